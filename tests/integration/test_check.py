"""What `seawall check` finds before anything starts, on real servers and in real folders."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seawall.actors.service import Service
from seawall.check import run_checks
from seawall.kinds import Problem
from seawall.settings import Settings, load_settings
from tests.support import PrivateRedis


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in. What tests put on the path or import from there is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.endswith("_services"):
            del sys.modules[name]


@pytest.fixture
def broker() -> Iterator[PrivateRedis]:
    """A server that tests may configure as badly as they like."""
    with tempfile.TemporaryDirectory(prefix="seawall-test-") as name:
        server = PrivateRedis(Path(name))
        server.start()
        yield server
        server.stop()


def said(settings: Settings, *modules: str, declared: Callable[[], Iterable[Service]] = tuple) -> list[str]:
    return [f"{problem.severity}: {problem}" for problem in run_checks(settings, modules, declared=declared)]


def at(server: PrivateRedis, **more: Any) -> Settings:
    return Settings(broker_url=server.url, **more)


def test_good_configuration_has_no_problems(folder: Path, broker: PrivateRedis) -> None:
    (folder / "fine_services.py").write_text("")
    (folder / "seawall.toml").write_text("[services.chroma]\nurl = 'http://chroma:6003'")
    settings = load_settings({"broker_url": broker.url}, {}, folder)
    assert said(settings, "fine_services") == []


def test_server_that_cannot_be_reached(folder: Path) -> None:
    (problem,) = said(Settings(broker_url=f"unix://{folder}/nobody.sock"))
    assert problem.startswith("error: SEAWALL_BROKER_URL names a server that is of no use now")
    assert "cannot be reached" in problem


def test_url_that_the_driver_does_not_understand(folder: Path) -> None:
    (problem,) = said(Settings(broker_url="redis://:secret@host:port/0"))
    assert problem.startswith("error: SEAWALL_BROKER_URL cannot be used")
    assert "secret" not in problem


def test_server_that_evicts_is_refused_unless_allowed(folder: Path, broker: PrivateRedis) -> None:
    with broker.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert said(at(broker)) == []
        client.config_set("maxmemory", "100mb")
    (problem,) = said(at(broker))
    assert problem.startswith("error: SEAWALL_BROKER_URL names a server that deletes keys when its memory is full")
    assert "maxmemory-policy allkeys-lru" in problem
    assert "SEAWALL_ALLOW_EVICTION=1" in problem
    (problem,) = said(at(broker, allow_eviction=True))
    assert problem.startswith("warning: ")


def test_server_that_does_not_persist_is_a_warning(folder: Path, broker: PrivateRedis) -> None:
    with broker.client() as client:
        client.config_set("appendonly", "no")
        assert said(at(broker)) == [
            "warning: SEAWALL_BROKER_URL names a server that keeps nothing on disk; set appendonly yes"
        ]
        client.config_set("save", "900 1")
    (problem,) = said(at(broker))
    assert "save points but no append-only file" in problem


def test_replica_is_refused(folder: Path, broker: PrivateRedis) -> None:
    with broker.client() as client:
        client.replicaof("127.0.0.1", "1")
    (problem,) = said(at(broker))
    assert problem == "error: SEAWALL_BROKER_URL names a replica, which takes no writes; name its primary"


def test_server_in_cluster_mode_is_refused(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="seawall-test-") as name:
        server = PrivateRedis(Path(name), cluster_enabled="yes")
        server.start()
        try:
            (problem,) = said(at(server))
        finally:
            server.stop()
    assert problem.startswith("error: SEAWALL_BROKER_URL names a server in cluster mode")


@pytest.mark.parametrize(
    ("forbid", "sign"),
    [
        ("-config", "refuses CONFIG GET"),
        ("-info", "refuses INFO"),
        ("-ping", "does not allow what Seawall needs: User default has no permissions to run the 'ping' command"),
    ],
)
def test_forbidden_command_is_named(folder: Path, broker: PrivateRedis, forbid: str, sign: str) -> None:
    with broker.client() as client:
        client.config_set("appendonly", "no")
        client.execute_command("ACL", "SETUSER", "default", forbid)
    (problem,) = said(at(broker))
    assert sign in problem


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: (folder / "seawall.py").write_text(""),
        lambda folder: ((folder / "seawall").mkdir(), (folder / "seawall" / "__init__.py").write_text("")),
    ],
    ids=["module", "package"],
)
def test_file_that_hides_the_package(folder: Path, make: Callable[[Path], object]) -> None:
    make(folder)
    (problem,) = said(Settings())
    assert str(folder / "seawall") in problem
    assert "hides Seawall's own `seawall`; rename it" in problem


def test_folder_of_data_called_seawall_hides_nothing(folder: Path) -> None:
    (folder / "seawall").mkdir()
    assert said(Settings()) == []


def test_old_service_utils_is_to_be_removed(folder: Path) -> None:
    """The guide's migration leaves one behind."""
    (folder / "service_utils.py").write_text("class ResilientServiceClient: ...")
    (problem,) = said(Settings())
    assert problem.startswith(f"error: {folder / 'service_utils.py'} hides Seawall's own `service_utils`")
    assert "remove the old file" in problem


def test_namesakes_of_our_rooms_are_the_users_own_business(folder: Path) -> None:
    (folder / "actors.py").write_text("")
    for name in ("workers", "supervisor"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("")
    assert said(Settings()) == []


def test_module_that_cannot_be_imported(folder: Path) -> None:
    (folder / "broken_services.py").write_text("1 / 0")
    assert said(Settings(), "broken_services", "no_such_services") == [
        "error: module broken_services cannot be imported: ZeroDivisionError: division by zero",
        "error: module no_such_services cannot be imported: ModuleNotFoundError: No module named 'no_such_services'",
    ]


def test_module_that_declares_what_cannot_be_used(folder: Path) -> None:
    lines = "from seawall.errors import ConfigurationError\nraise ConfigurationError('key \\'A\\' is no key')"
    (folder / "wrong_services.py").write_text(lines)
    assert said(Settings(), "wrong_services") == [
        "error: module wrong_services declares what cannot be used: key 'A' is no key"
    ]


def test_one_key_with_two_origins(folder: Path) -> None:
    (folder / "seawall.toml").write_text("[services.chroma]\nurl = 'http://chroma:6003/api'")
    settings = load_settings({}, {}, folder)
    same = Service(key="chroma", name="Chroma", base_url="http://chroma:6003")
    other = Service(key="chroma", name="Chroma", base_url="http://elsewhere:6003")
    assert said(settings, declared=lambda: [same]) == []
    assert said(settings, declared=lambda: [other]) == [
        "error: seawall.toml: services.chroma.url goes to http://chroma:6003 here and to http://elsewhere:6003 in code;"
        " one key has one origin"
    ]


def test_url_of_a_table_that_is_no_url(folder: Path) -> None:
    (folder / "seawall.toml").write_text("[services.chroma]\nurl = 'chroma:6003'")
    (problem,) = said(load_settings({}, {}, folder))
    assert "seawall.toml: services.chroma.url cannot be used" in problem


@pytest.mark.parametrize(("content", "sign"), [(None, "cannot be read: No such file"), (b" \n", "is empty")])
def test_token_file_of_no_use(folder: Path, content: bytes | None, sign: str) -> None:
    if content is not None:
        (folder / "token").write_bytes(content)
    (problem,) = run_checks(Settings(internal_token_file=folder / "token"))
    assert problem.severity == "error"
    assert problem.setting == "SEAWALL_INTERNAL_TOKEN_FILE"
    assert sign in problem.text
    assert run_checks(Settings(internal_token_file=folder / "token", internal_token="given")) == []


def test_problem_reads_as_a_sentence() -> None:
    assert str(Problem("error", "SEAWALL_WEB_PORT", "must be a port")) == "SEAWALL_WEB_PORT must be a port"
