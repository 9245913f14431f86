"""What people do with the command stands in the list that the page shows."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

from seawall import ResilientServiceClient
from seawall.exits import Exit
from seawall.observing import read_actions
from tests.acceptance.shell import plain_environ, run
from tests.support import Answer, CountingService, wait_until
from tests.support.house import RemoteHouse, caller


def test_commands_that_change_something_are_noted(redis_url: str, service: CountingService, tmp_path: Path) -> None:
    def command(*words: str) -> str:
        ran = run(*words, folder=tmp_path, environ=plain_environ(SEAWALL_BROKER_URL=redis_url))
        assert ran.code == Exit.OK, ran.err
        return ran.out

    service.script("*", Answer(500))
    with caller(redis_url) as runtime, RemoteHouse(redis_url, supervised=False):
        git = ResilientServiceClient(service.url, "Git", key="git", max_retries=1)
        handles = [git.enqueue("POST", "/add", rounds=1) for _ in range(2)]
        wait_until(lambda: all(handle.status() == "failed" for handle in handles))
        assert command("pause", "git") == "git: paused; `seawall resume git` lets its calls go on\n"
        assert command("resume", "git") == "git: resumed\n"
        command("breaker", "open", "git")
        command("breaker", "close", "git")
        command("dead", "purge", handles[0].id, "--yes")
        command("dead", "replay", "--all")
        actions = list(reversed(read_actions(runtime)))
    assert {action["who"] for action in actions} == {f"{getpass.getuser()}@{socket.gethostname()}"}
    assert [(action["what"], action["service"], action["detail"]) for action in actions] == [
        ("pause", "git", ""),
        ("resume", "git", ""),
        ("open", "git", ""),
        ("close", "git", ""),
        ("purge", "git", "1 forgotten"),
        ("replay", "git", "1 queued again"),
    ]


def test_a_service_that_nobody_knows_cannot_be_paused(redis_url: str, tmp_path: Path) -> None:
    for words in (("pause", "git"), ("resume", "git")):
        refused = run(*words, folder=tmp_path, environ=plain_environ(SEAWALL_BROKER_URL=redis_url))
        assert refused.code == Exit.CONFIG
        assert "no service 'git' is known" in refused.err
