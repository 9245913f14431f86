"""`seawall demo`: the outage is real, and so are the counts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.caudex.books import Books
from examples.caudex.load import FALLBACK, Load
from tests.acceptance.shell import plain_environ

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "seawall", "demo"]


def row(said: str, name: str) -> list[int]:
    """The numbers of a row of one of the tables."""
    (line,) = re.findall(rf"^  {name} +([\d ]+)$", said, flags=re.M)
    return [int(cell) for cell in line.split()]


def test_outage_is_played_and_nothing_is_lost() -> None:
    ran = subprocess.run(
        [*COMMAND, "--outage", "3"], cwd=ROOT, env=plain_environ(), capture_output=True, text=True, timeout=90
    )
    said = ran.stdout
    assert ran.returncode == 0, said + ran.stderr
    story = [
        "three users chat and search",
        "git and chroma are killed",
        "then answered from the backend's own copy",
        "chroma: breaker OPEN after 5 failed calls in a row",
        "answered from the copy within",
        "background calls wait in the queue",
        "git and chroma are started again",
        "chroma: a trial succeeded, breaker CLOSED",
        "every queue is empty",
        "Nothing was lost.",
    ]
    places = [said.find(part) for part in story]
    assert places == sorted(places), said
    assert -1 not in places, dict(zip(story, places, strict=True))
    assert said.count("git: breaker OPEN") == said.count("git: a trial succeeded, breaker CLOSED") == 1
    for name in ("chroma", "git"):
        accepted, replaced, delivered, _, lost = row(said, name)
        assert accepted > 10
        assert (lost, replaced + delivered) == (0, accepted)
    before, failing, opened, after = row(said, "from the backend's copy")
    assert max(before, after) <= 3, "but for those who had asked the moment before, one of each user"
    assert failing > 0
    assert opened > 10
    assert row(said, "errors") == [0, 0, 0, 0]
    answered, failed, paid, saved = row(said, "chats")
    assert failed == 0
    assert answered == paid == saved > 10


def test_end_in_the_middle_leaves_nothing_behind() -> None:
    with subprocess.Popen(
        [*COMMAND], cwd=ROOT, env=plain_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        while "three users" not in (line := demo.stdout.readline()):
            assert line, demo.stderr.read()
        children = psutil.Process(demo.pid).children(recursive=True)
        folder = next(word for child in children for word in child.cmdline() if "seawall-demo-" in word)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(30) == 130
        assert "Traceback" not in demo.stderr.read()
    assert len(children) > 8
    assert not psutil.wait_procs(children, 5)[1]
    assert not Path(folder.split(":")[-1]).exists()


class Ledger:
    """Stands for the four services: what their books say."""

    def __init__(self, **books: dict[str, list[int]]) -> None:
        self.services = dict.fromkeys(("billing", "filesystem", "chroma", "git"), self)
        self.answers: dict[str, Any] = {
            "/balance/demo": {"balance": 100},
            "/files/handbook": {"files": ["chats/1.md"]},
            "/admin/requests": {"keys": {**books.get("chroma", {}), **books.get("git", {})}},
        }

    def ask(self, method: str, path: str) -> Any:
        class Response:
            json = staticmethod(lambda: self.answers[path])

        return Response


def load(**accepted: list[str]) -> Load:
    """What one user and a job did: a chat that was answered, and these calls that were accepted."""
    made = Load("http://nobody", lambda source, took: None)
    made.seen["before"].update(("chat", "chroma", "chat: chroma"))
    made.accepted.update(accepted)
    return made


@pytest.mark.parametrize(
    ("book", "replaced", "good"),
    [
        ({"a": [1, 1], "b": [2, 1]}, set(), True),
        ({"a": [1, 1]}, set(), False),
        ({"a": [1, 1]}, {"b"}, True),
        ({"a": [1, 1], "b": [3, 0]}, set(), False),
        ({"a": [2, 2], "b": [1, 1]}, set(), True),
    ],
    ids=["all there", "one missing", "one replaced", "one refused by its service", "one twice"],
)
def test_account_tells_what_is_missing(
    book: dict[str, list[int]], replaced: set[str], good: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(chroma=book)
    books = Books(ledger)  # type: ignore[arg-type]
    ledger.answers["/balance/demo"] = {"balance": 98}
    one = load(chroma=["a", "b"], git=[])
    one.replaced |= replaced
    assert books.settle(one, ["before"]) is good
    said = capsys.readouterr().out
    assert ("Nothing was lost." in said) is good
    assert row(said, "chroma")[-1] == (0 if good else 1)


def test_account_tells_of_a_chat_that_was_not_paid(capsys: pytest.CaptureFixture[str]) -> None:
    books = Books(Ledger())  # type: ignore[arg-type]
    assert not books.settle(load(chroma=[], git=[]), ["before"])
    assert row(capsys.readouterr().out, "chats") == [1, 0, 0, 1]
    assert FALLBACK == "fallback"
