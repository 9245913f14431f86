"""What people and scripts have of the commands: JSON, filters, prefixes of ids, completion."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall import ResilientServiceClient
from seawall.actors.engine import Engine, engine_from_url
from seawall.exits import Exit
from tests.support import Answer, CountingService
from tests.support.commands_page import PAGE, fields
from tests.support.dead_letters import bury_calls
from tests.support.house import RemoteHouse, caller
from tests.unit.cli.conftest import Ran, Run


class Shell:
    """Commands against one broker."""

    def __init__(self, run: Run, url: str) -> None:
        self._run, self.url = run, url

    def __call__(self, *words: str) -> Ran:
        return self._run(*words, "--broker-url", self.url)

    def json(self, *words: str) -> object:
        ran = self(*words, "--json")
        assert ran.code == Exit.OK, ran
        return json.loads(ran.out)


@pytest.fixture
def shell(seawall_command: Run, redis_url: str) -> Shell:
    return Shell(seawall_command, redis_url)


@pytest.fixture
def engine(redis_url: str) -> Iterator[Engine]:
    engine = engine_from_url(redis_url)
    yield engine
    engine.close()


@pytest.fixture
def letters(engine: Engine) -> list[str]:
    return bury_calls(engine.queue, "git", ["/a?secret=k-12345", "/b"], headers={"X-Api-Key": "k-12345"})


class TestJson:
    def test_breakers(self, shell: Shell, letters: list[str]) -> None:
        assert shell.json("breaker", "open", "git") == {"service": "git", "state": "open", "forced": True}
        assert shell.json("breaker", "close", "git") == {"service": "git", "state": "closed", "forced": False}
        assert shell.json("breaker", "reset", "git") == {"service": "git", "state": "closed", "forced": False}
        assert shell.json("pause", "git") == {"service": "git", "paused": True}
        assert shell.json("resume", "git") == {"service": "git", "paused": False}

    def test_replay_and_purge(self, shell: Shell, letters: list[str]) -> None:
        told = shell.json("dead", "replay", letters[0])
        assert told == {"queued": 1, "gone": 0, "empty": 0, "left": 0}
        assert shell.json("dead", "purge", "--all", "--yes") == {"forgotten": 1}

    def test_check(self, shell: Shell, folder: Path) -> None:
        (folder / "seawall.toml").write_text('[services.git]\nurl = "http://127.0.0.1:9"\n')
        told = shell.json("check", "--show")
        assert isinstance(told, dict)
        assert told["ok"] is True
        assert {"name", "value", "source"} == set(told["settings"][0])
        ran = shell("check", "nowhere", "--json")
        assert (ran.code, json.loads(ran.out)["ok"]) == (Exit.FAILED, False)
        problems = json.loads(ran.out)["problems"]
        assert all(set(problem) == {"severity", "setting", "text"} for problem in problems)
        assert "error" in [problem["severity"] for problem in problems]

    def test_call(self, shell: Shell, service: CountingService, folder: Path) -> None:
        (folder / "shop_services.py").write_text(
            f"from seawall import ResilientServiceClient\nResilientServiceClient({service.url!r}, key='shop')\n"
        )
        service.script("/ready", Answer(200, {"ok": True}))
        with caller(shell.url):
            ResilientServiceClient(service.url, key="shop")
            with RemoteHouse(shell.url):
                ran = shell("call", "shop", "GET", "/ready", "-m", "shop_services", "--as-json")
        told = json.loads(ran.out)
        assert (told["service"], told["status"], json.loads(told["body"])) == ("shop", 200, {"ok": True})
        assert told["headers"]["Content-Type"] == "application/json"


class TestShow:
    def test_it_reads_well(self, shell: Shell, letters: list[str]) -> None:
        out = shell("dead", "show", letters[0]).out
        assert re.match(rf"{letters[0]}  git\ndied      \d+ s ago \(", out)
        assert "request   POST /a at http://127.0.0.1:9, body of 0 bytes\n" in out
        assert "X-Api-Key: ***\n" in out
        assert "k-12345" not in out

    def test_its_json_has_the_documented_fields(self, shell: Shell, letters: list[str]) -> None:
        page = PAGE.read_text()
        listed = json.loads(shell("dead", "list", "--json").out.splitlines()[0])
        assert list(listed) == fields(page, "letter")
        shown = json.loads(shell("dead", "show", letters[0], "--json").out)
        assert [*shown, "unreadable"] == fields(page, "letter") + fields(page, "letter details")

    def test_the_beginning_of_an_id_is_enough(self, shell: Shell, letters: list[str]) -> None:
        first, second = letters
        differs = next(place for place in range(len(first)) if first[place] != second[place]) + 1
        assert json.loads(shell("dead", "show", first[:differs], "--json").out)["id"] == first
        ran = shell("dead", "show", first[:3])
        assert (ran.code, ran.err.splitlines()[-1]) == (
            Exit.USAGE,
            f"Error: 2 dead letters begin with {first[:3]!r}: {first}, {second}",
        )

    def test_the_body_only_when_it_is_asked_for(self, shell: Shell, redis_url: str, engine: Engine) -> None:
        from seawall.actors.record import Call, encode
        from tests.support.dead_letters import bury

        def call(id: str, body: bytes) -> bytes:
            return encode(Call(id=id, service="git", origin="http://x", method="POST", target="/", body=body))

        bodies = {"text": b"what is in it", "bytes": b"\xff\x00"}
        bury(engine.queue, "git.background", {id: call(id, body) for id, body in bodies.items()}, reason="expired")
        assert "what is in it" not in shell("dead", "show", "text").out
        assert shell("dead", "show", "text", "--body").out.endswith("body\nwhat is in it\n")
        assert json.loads(shell("dead", "show", "bytes", "--body", "--json").out)["request"]["body_base64"] == "/wA="


def test_a_misspelt_reason_is_told(shell: Shell, letters: list[str]) -> None:
    ran = shell("dead", "list", "--reason", "exipred")
    assert (ran.code, ran.err.splitlines()[-1]) == (
        Exit.USAGE,
        "Error: no dead letter has the reason 'exipred'; did you mean 'expired'?",
    )
    unknown = shell("dead", "list", "--reason", "of another release")  # a letter with it would be found
    assert (unknown.code, "(known: expired, failed," in unknown.err) == (Exit.CONFIG, True)


class TestStatusOfSomeServices:
    def test_only_those(self, shell: Shell, engine: Engine, letters: list[str]) -> None:
        bury_calls(engine.queue, "shop", ["/"])
        shell("breaker", "open", "shop")
        told = json.loads(shell("status", "--json", "--service", "git").out)
        assert list(told["services"]) == ["git"]
        assert shell("status", "--check", "--service", "git").code == Exit.OK
        assert shell("status", "--check", "--service", "git", "--service", "shop").code == Exit.FAILED

    def test_a_misspelt_one_is_told(self, shell: Shell, letters: list[str]) -> None:
        ran = shell("status", "--service", "gti")
        assert ran.code == Exit.CONFIG
        assert "no service 'gti' is known; did you mean 'git'? (known: git)" in ran.err


class TestCompletion:
    @pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
    def test_the_shell_accepts_its_script(self, seawall_command: Run, shell_name: str) -> None:
        ran = seawall_command("completion", shell_name)
        assert (ran.code, "_SEAWALL_COMPLETE" in ran.out) == (Exit.OK, True)
        program = shutil.which(shell_name)
        if program is None:
            pytest.skip(f"{shell_name} is not installed here")
        done = subprocess.run([program, "-n"], input=ran.out, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")

    def test_words_and_services_are_completed(
        self, seawall_command: Run, redis_url: str, letters: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("_SEAWALL_COMPLETE", "bash_complete")

        def completed(*words: str) -> list[str]:
            monkeypatch.setenv("COMP_WORDS", " ".join(("seawall", *words)))
            monkeypatch.setenv("COMP_CWORD", str(len(words)))
            monkeypatch.setenv("SEAWALL_BROKER_URL", redis_url)
            return [line.partition(",")[2] for line in seawall_command().out.splitlines()]

        assert completed("brea") == ["breaker"]
        assert completed("breaker", "open", "g") == ["git"]
        assert completed("dead", "list", "--service", "g") == ["git"]
