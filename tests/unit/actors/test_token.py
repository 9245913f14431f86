"""The internal token comes from a value or a file, and is never shown."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from seawall.actors.token import TokenSource
from seawall.errors import ConfigurationError, TokenUnavailable

TOKEN = "tok-3f1c"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "internal-token"
    path.write_text(f"{TOKEN}\n")
    return path


def test_not_configured_means_no_header() -> None:
    source = TokenSource()
    assert source.header_value() is None
    assert not source.configured


def test_a_value() -> None:
    source = TokenSource("X-Service-Token", TOKEN)
    assert source.header_value() == ("X-Service-Token", TOKEN)
    assert source.configured


def test_a_value_wins_over_a_file(file: Path) -> None:
    assert TokenSource(value="from-value", file=file).header_value() == ("X-Internal-Token", "from-value")


def test_a_file_without_its_line_end(file: Path) -> None:
    assert TokenSource(file=file).header_value() == ("X-Internal-Token", TOKEN)


def test_a_file_is_read_again_when_it_was_written_or_replaced(file: Path, tmp_path: Path) -> None:
    source = TokenSource(file=str(file))
    source.header_value()
    file.write_text("second")
    assert source.header_value() == ("X-Internal-Token", "second")
    replacement = tmp_path / "next"
    replacement.write_text("third!")
    os.utime(replacement, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    replacement.replace(file)
    assert source.header_value() == ("X-Internal-Token", "third!")


def test_an_unchanged_file_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = TokenSource(file=file)
    source.header_value()
    monkeypatch.setattr("seawall.actors.token._decoded", lambda content: pytest.fail("was read again"))
    assert source.header_value() == ("X-Internal-Token", TOKEN)


def test_a_file_that_disappears_is_an_error_that_names_it(file: Path) -> None:
    source = TokenSource(file=file)
    source.header_value()
    file.unlink()
    with pytest.raises(TokenUnavailable, match="No such file") as caught:
        source.header_value()
    assert str(file) in str(caught.value)
    file.write_text("back")
    assert source.header_value() == ("X-Internal-Token", "back")


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"tok\r\nHost: evil", b"tok\x00en", b"tok\xffen", b"x" * 70_000], ids=repr
)
def test_a_file_that_holds_no_token(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(TokenUnavailable) as caught:
        TokenSource(file=file).header_value()
    assert str(file) in str(caught.value)
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "  ", "tok\nen", "tok\r\nHost: evil", "tok\u20acen"])
def test_a_value_that_is_no_token(value: str) -> None:
    with pytest.raises(TokenUnavailable) as caught:
        TokenSource(value=value).header_value()
    assert "tok" not in str(caught.value).replace("token", "")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(TokenUnavailable):
        TokenSource(file=tmp_path).header_value()


@pytest.mark.parametrize("header", ["", "X Token", "X-Token:", "X\r\nY", "T\u00f6ken"])
def test_a_header_name_that_cannot_be_sent(header: str) -> None:
    with pytest.raises(ConfigurationError):
        TokenSource(header, TOKEN)


def test_it_shows_where_the_token_comes_from_and_never_the_token(file: Path) -> None:
    from_file = TokenSource(file=file)
    from_file.header_value()
    assert repr(from_file) == f"TokenSource(header='X-Internal-Token', file={str(file)!r})"
    assert TOKEN not in f"{TokenSource(value=TOKEN)!r} {TokenSource(value=TOKEN)}"


def test_it_does_not_leave_the_process() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(TokenSource(value=TOKEN))
