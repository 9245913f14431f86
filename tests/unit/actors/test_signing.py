"""A signature holds for one body, one key and a short time; the receiver's ten lines in the docs agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import verify_alert
from seawall.actors.signing import Signing, check_signature, signature
from seawall.actors.token import TokenSource
from seawall.errors import TokenUnavailable

AT = 1_764_025_482
BODY = json.dumps({"id": "chroma.open.1", "summary": "Chroma: déjà vu"}).encode()
PAGE = Path(__file__).resolve().parents[3] / "docs" / "alerts.md"


def test_signature_is_the_documented_one() -> None:
    """The HMAC is openssl's: printf '1764025482.{}' | openssl dgst -sha256 -hmac key."""
    expected = "53f4341c5b255793d08b178c4ab5fb30136b8cbd382dd9ea7ef896df1ca43b3a"
    assert signature("key", b"{}", AT) == f"t={AT},v1={expected}"


@given(
    body=st.binary(max_size=200),
    other=st.binary(max_size=200),
    key=st.text("abcdef-", min_size=1),
    at=st.integers(0, 2**33),
)
def test_what_was_signed_is_accepted_and_nothing_else(body: bytes, other: bytes, key: str, at: int) -> None:
    made = signature(key, body, at)
    check_signature(made, key, body, now=at + 5, tolerance=10)
    if other != body:
        with pytest.raises(ValueError, match="does not match"):
            check_signature(made, key, other, now=at, tolerance=10)
    with pytest.raises(ValueError, match="does not match"):
        check_signature(made, key + "x", body, now=at, tolerance=10)


def test_an_alert_is_verified_and_read() -> None:
    assert verify_alert(BODY, signature("key", BODY, AT), "key", now=AT)["id"] == "chroma.open.1"


def test_one_of_several_signatures_is_enough_while_a_key_changes() -> None:
    old, new = signature("old", BODY, AT), signature("new", BODY, AT)
    both = f"{old},v1={new.partition('v1=')[2]}"
    assert verify_alert(BODY, both, "new", now=AT) == verify_alert(BODY, both, "old", now=AT)


@pytest.mark.parametrize(
    ("header", "now", "words"),
    [
        (None, AT, "has no X-Seawall-Signature"),
        ("", AT, "has no X-Seawall-Signature"),
        ("nonsense", AT, "has no time"),
        ("t=soon,v1=00", AT, "has no time"),
        ("t=1,t=2,v1=00", AT, "has no time"),
        (f"t={AT}", AT, "does not match"),
        (f"t={AT},v1=é", AT, "does not match"),
        (f"t={AT},v0={signature('key', BODY, AT)[-64:]}", AT, "does not match"),
        (signature("key", BODY, AT), AT + 301, "301 s away"),
        (signature("key", BODY, AT), AT - 301, "301 s away"),
    ],
)
def test_what_is_wrong_is_said(header: str | None, now: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        verify_alert(BODY, header, "key", now=now)


def test_without_a_key_nothing_is_accepted() -> None:
    with pytest.raises(ValueError, match="no key"):
        verify_alert(BODY, signature("", BODY, AT), "", now=AT)


def test_the_ten_lines_of_the_docs_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(import hashlib.*?)```", PAGE.read_text("utf-8"), flags=re.S)[0]
    theirs: dict[str, Any] = {}
    exec(code, theirs)
    monkeypatch.setattr(theirs["time"], "time", lambda: AT + 1.0)
    made = signature("key", BODY, AT)
    assert theirs["verify"](BODY, made, "key")
    assert not theirs["verify"](BODY + b" ", made, "key")
    assert not theirs["verify"](BODY, made, "other")
    assert not theirs["verify"](BODY, signature("key", BODY, AT - 400), "key")


def test_the_key_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first\n")
    signing = Signing(TokenSource("X-Sig", file=file, what="the key"), wall_time=lambda: AT + 0.9)
    assert signing.headers(BODY) == {"X-Sig": signature("first", BODY, AT)}
    file.write_text("second, longer\n")
    assert signing.headers(BODY) == {"X-Sig": signature("second, longer", BODY, AT)}
    file.unlink()
    with pytest.raises(TokenUnavailable, match="the key's file"):
        signing.headers(BODY)


def test_without_a_key_nothing_is_signed_and_the_key_shows_nowhere() -> None:
    assert Signing(TokenSource("X-Sig")).headers(BODY) == {}
    assert "hush" not in repr(Signing(TokenSource("X-Sig", "hush")))
