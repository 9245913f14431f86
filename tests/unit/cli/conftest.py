"""The command, run inside the test's own process, in an empty folder."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from seawall import runtime as runtimes
from seawall.actors.engine import engine_from_url
from seawall.cli.main import main
from seawall.redis_link import RedisLink
from tests.support.house import PATIENT, no_services

__all__ = ["Ran", "Run"]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def redis_url(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shared server is never away: commands and engines of this process wait for its answer as long as it takes."""
    for made in (engine_from_url, RedisLink.__init__):
        monkeypatch.setitem(made.__kwdefaults__, "answer_timeout", PATIENT)  # type: ignore[arg-type]
    return redis_url


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in; what a command leaves behind in the process is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    root, seawall = logging.getLogger(), logging.getLogger("seawall")
    before = list(root.handlers), root.level, seawall.level, set(sys.modules), runtimes.replace(None)
    with no_services():
        yield tmp_path
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    seawall.setLevel(before[2])
    for name in set(sys.modules) - before[3]:
        if name.endswith("services"):
            del sys.modules[name]
    made = runtimes.replace(before[4])
    if made is not None:
        made.close()


@pytest.fixture
def seawall_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`seawall words...`, to its exit."""

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["seawall", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        made = runtimes.replace(None)
        if made is not None:
            made.close()
        printed = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, printed.out, printed.err)

    return run
