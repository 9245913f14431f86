"""What the command answers to people who are new to it, or make a mistake."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from seawall.cli.main import cli
from seawall.exits import Exit
from tests.support import CountingService
from tests.support.house import no_services
from tests.unit.cli.conftest import Run


def commands(group: click.Group = cli, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*before, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken and does not listen."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def module(folder: Path) -> str:
    (folder / "shop_services.py").write_text(
        "from seawall import ResilientServiceClient\n"
        "shop = ResilientServiceClient('http://127.0.0.1:9', 'Shop Server', key='shop', max_retries=1)\n"
    )
    return "shop_services"


def test_help_lists_every_command_under_its_heading(seawall_command: Run) -> None:
    ran = seawall_command()
    assert ran == seawall_command("--help")
    assert ran.code == Exit.OK
    words = [line.split()[0] for line in ran.out.splitlines() if line.startswith("  ") and len(line.split()) > 1]
    listed = [word for word in words if word in cli.commands]
    assert listed == [
        "up",
        "demo",
        "worker",
        "supervisor",
        "web",
        "status",
        "call",
        "breaker",
        "pause",
        "resume",
        "dead",
        "alerts",
        "check",
        "health",
        "completion",
    ]
    assert "Everything on one host:" in ran.out
    assert "..." not in "".join(ran.out.splitlines()[1:]), "no line is cut short"


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_of_every_command_reads_well(seawall_command: Run, words: tuple[str, ...]) -> None:
    ran = seawall_command(*words, "-h")
    assert ran.code == Exit.OK
    assert ran.out.startswith(f"Usage: seawall {' '.join(words)} ")
    assert max(map(len, ran.out.splitlines())) <= 100
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert command.help
    assert command.get_short_help_str(200).endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        (["statsu"], "there is no command 'statsu'; did you mean 'status'?"),
        (["superviser"], "did you mean 'supervisor'?"),
        (["breaker", "opne", "shop"], "there is no command 'opne'; did you mean 'open'?"),
        (["dead", "lst"], "did you mean 'list'?"),
        (["app.services"], "there is no command 'app.services'"),
        (["status", "--jsno"], "--json"),
        (["up", "--broker-url", "rediss//x"], "Invalid value for '--broker-url': must be a URL that starts with"),
        (["up", "--broker-url", "rdis://:pw@x"], "rdis:// is none of them; did you mean 'redis'?"),
        (["up", "--workers", "0"], "Invalid value for '--workers': must be a whole number from 1 to 256, not 0"),
        (["web", "--port", "web"], "Invalid value for '--port'"),
        (
            ["worker", "--log-level", "inof"],
            "must be debug or info or warning or error or critical, not 'inof'; did you",
        ),
        (["call", "shop"], "Missing argument 'METHOD'"),
        (["call", "shop", "GET", "/", "-d", "x", "-j", "1"], "give either --data or --json"),
        (["call", "shop", "GET", "/", "-j", "{oops"], "this is not JSON"),
        (["call", "shop", "GET", "/", "-H", "no colon"], "'no colon' must be NAME:VALUE"),
        (["call", "shop", "GET", "/", "-d", "@no-such-file"], "no-such-file cannot be read: No such file"),
        (["dead", "purge"], "name IDs, or choose with --service, --reason or --all"),
        (["status", "--watch", "--check"], "--watch and --check exclude each other"),
    ],
)
def test_wrong_command_line_is_named_with_what_would_be_right(
    seawall_command: Run, words: list[str], sign: str
) -> None:
    ran = seawall_command(*words)
    assert ran.code == Exit.USAGE
    assert sign in " ".join(ran.err.split())
    assert "pw" not in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        (["GET", "//elsewhere/"], "path"),
        (["POST", "/", "-H", "Authorization: Basic x"], "allow_headers"),
        (["GET", "/", "-H", "X-Y: a\r\nb: c"], "header"),
    ],
    ids=["path", "credentials", "header injection"],
)
def test_call_that_cannot_be_made_is_a_usage_error(
    seawall_command: Run, module: str, words: list[str], sign: str
) -> None:
    ran = seawall_command("call", "shop", *words, "-m", module)
    assert ran.code == Exit.USAGE
    assert sign in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("def broken(:", "failed while it was imported: SyntaxError: invalid syntax (wrong_services.py, line 1)"),
        ("\n1 / 0", "failed while it was imported: ZeroDivisionError: division by zero ("),
        ("raise SystemExit('no')", "failed while it was imported: SystemExit: no ("),
        ("import nothing_like_it", "cannot be imported: No module named 'nothing_like_it'"),
        (
            "from seawall import ResilientServiceClient as C\nC('http://a', key='x')\nC('http://b', key='x')",
            "declares what cannot be used: service 'x' is declared twice, at http://a:80 and at http://b:80",
        ),
    ],
)
def test_module_that_cannot_be_used_is_named_with_its_line(
    seawall_command: Run, folder: Path, text: str, sign: str
) -> None:
    (folder / "wrong_services.py").write_text(text)
    ran = seawall_command("up", "wrong_services")
    assert ran.code == Exit.CONFIG
    assert f"seawall: module 'wrong_services' {sign}" in ran.err
    assert "Traceback" not in ran.err
    assert seawall_command("check", "wrong_services").code == Exit.FAILED


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        (["up"], "no service is declared: name a module that creates clients, such as `seawall up app.services`"),
        (["up", "services.py/x"], "'services.py/x' is not the name of a module, such as app.services"),
        (
            ["worker", "shop_services"],
            "`seawall worker` needs a broker that it shares with others: set SEAWALL_BROKER_URL",
        ),
        (["supervisor"], "needs a broker"),
        (["web"], "needs a broker"),
        (["status"], "needs a broker"),
        (["dead", "list"], "needs a broker"),
        (["breaker", "open", "shop"], "needs a broker"),
        (["call", "shob", "GET", "/", "-m", "shop_services"], "service 'shob' is not declared; did you mean 'shop'?"),
        (["worker", "--broker-url", "redis://localhost:1"], "`seawall worker` has no service to serve: name a module"),
        (
            ["status", "--broker-url", "redis://x?foo=1"],
            "broker URL redis://x?foo=1 cannot be used: 'foo' is no option",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_configuration_that_lacks_something_says_what_to_do(
    seawall_command: Run, module: str, words: list[str], sign: str
) -> None:
    ran = seawall_command(*words)
    assert ran.code == Exit.CONFIG
    assert sign in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        (
            ["worker", "--broker-url", "redis://localhost:1", "--parent", "1"],
            "`seawall worker` has no service to serve",
        ),
        (["up", "touches", "--seconds", "0"], "no service is declared"),
    ],
    ids=["worker", "up"],
)
def test_the_webhook_of_alerts_is_no_service_to_serve(
    seawall_command: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sign: str
) -> None:
    (folder / "touches.py").write_text("from seawall import runtime\nruntime.current()\n")
    monkeypatch.setenv("SEAWALL_ALERTS_WEBHOOK", "http://127.0.0.1:9/hook")
    with no_services():
        ran = seawall_command(*words)
    assert ran.code == Exit.CONFIG
    assert sign in ran.err


def test_every_wrong_setting_is_listed_at_once(
    seawall_command: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEAWALL_WEB_PROT", "1")
    (folder / "seawall.toml").write_text("workrs = 3\n[services.shop]\nurl = 'http://shop'\ntimout = 3\n")
    for words in (["check"], ["status"]):
        ran = seawall_command(*words)
        said = ran.out + ran.err
        assert "SEAWALL_WEB_PROT is not a setting; did you mean 'SEAWALL_WEB_PORT'?" in said
        assert "seawall.toml: workrs is not a setting; did you mean 'workers'?" in said
        assert "seawall.toml: services.shop.timout is not a key of a service; did you mean 'timeout'?" in said
    assert seawall_command("check").code == Exit.FAILED
    assert seawall_command("status").code == Exit.CONFIG


def test_check_says_what_it_looked_at_and_shows_where_values_come_from(
    seawall_command: Run, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEAWALL_WORKERS", "3")
    monkeypatch.setenv("SEAWALL_INTERNAL_TOKEN", "tok-1")
    ran = seawall_command("check", module, "--show", "--namespace", "shop")
    assert ran.code == Exit.OK
    rows = {line.split()[0]: line.split()[1:] for line in ran.out.splitlines() if line}
    assert rows["workers"] == ["3", "environment", "SEAWALL_WORKERS"]
    assert rows["namespace"] == ["shop", "argument"]
    assert rows["web_port"] == ["8610", "default"]
    assert "tok-1" not in ran.out
    assert ran.out.splitlines()[-1] == "all is well: 1 service, no broker, calls are kept in memory"


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["breaker", "open", "shop"],
        ["dead", "list"],
        ["call", "shop", "GET", "/", "-m", "shop_services"],
        ["up", "shop_services"],
    ],
    ids=lambda words: words[0],
)
def test_broker_that_is_away_is_named_without_its_password(
    seawall_command: Run, module: str, closed_port: int, words: list[str]
) -> None:
    url = f"redis://:secret@127.0.0.1:{closed_port}/0"
    ran = seawall_command(*words, "--broker-url", url)
    assert ran.code == Exit.UNAVAILABLE
    assert "Connection refused" in ran.err
    assert "secret" not in ran.err
    assert "Traceback" not in ran.err


def test_call_needs_no_broker(seawall_command: Run, folder: Path, service: CountingService) -> None:
    """Everything of Seawall in this process: the answer is the same, and so is the exit code."""
    (folder / "seawall.toml").write_text(f"[services.shop]\nurl = '{service.url}'\n")
    assert seawall_command("call", "shop", "GET", "/ready").code == Exit.OK
    assert service.count("/ready", method="GET") == 1


def test_mistake_of_ours_has_a_traceback_and_a_code_of_its_own(
    seawall_command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 would say that a breaker is open."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr("seawall.cli.status.boot", broken)
    ran = seawall_command("status", "--check")
    assert ran.code == Exit.SOFTWARE
    assert "RuntimeError: nobody expected this" in ran.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), Exit.INTERRUPTED),
        (PermissionError(13, "Permission denied", "/data"), Exit.CANNOT_CREATE),
    ],
)
def test_ends_from_outside_have_codes_of_their_own(
    seawall_command: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: Exit
) -> None:
    def ended(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("seawall.cli.status.boot", ended)
    ran = seawall_command("status")
    assert ran.code == code
    assert ran.err.strip().splitlines()[-1].startswith("seawall: ")
    assert "Traceback" not in ran.err


def test_version(seawall_command: Run) -> None:
    assert seawall_command("--version").out.startswith("seawall 0.")
