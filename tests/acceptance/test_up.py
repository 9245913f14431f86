"""`seawall up`: everything on one host, looked after, and gone at the end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from seawall.exits import Exit
from tests.acceptance.harness import Fleet
from tests.acceptance.shell import Ran, plain_environ, run, terminal
from tests.support import CountingService, wait_until


@contextmanager
def shop(folder: Path) -> Iterator[Fleet]:
    """A folder with the module `services`, whose one service is there."""
    with CountingService() as service, Fleet(folder, "", {"shop": {"url": service.url}}) as fleet:
        yield fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with shop(tmp_path) as fleet:
        yield fleet


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, 5)[1]


def test_one_screen_says_where_everything_is_and_its_lines_work(fleet: Fleet) -> None:
    up = fleet.up("--namespace", "shop")
    url = up.url()
    screen = up.text
    assert "Seawall is up. ctrl-C stops it." in screen
    assert "embedded Valkey, data in .seawall/broker" in screen
    assert re.search(r"services +shop +http://127\.0\.0\.1:\d+\n", screen)
    (address,) = re.findall(r"status +(http://\S+)\n", screen)
    lines = requests.get(f"{address}v1/api/status/services", timeout=5).json()
    assert list(lines) == ["shop"]
    assert lines["shop"]["workers"] == 2
    to_try = [line.strip() for line in screen.partition("in another terminal:\n")[2].splitlines() if line.strip()][:2]
    assert [shlex.split(line)[1] for line in to_try] == ["call", "status"]
    called = run(
        *shlex.split(to_try[0])[1:], "-i", folder=fleet.folder, environ=plain_environ(SEAWALL_NAMESPACE="shop")
    )
    assert called.code == Exit.OK, called.err
    assert called.out.startswith("HTTP 200 OK")
    up.expect("[Shop] ✓ GET / succeeded")
    looked = run("status", "--json", folder=fleet.folder, environ=plain_environ(SEAWALL_NAMESPACE="shop"))
    assert len(json.loads(looked.out)["workers"]) == 2, "the broker of the `seawall up` in this folder is found"
    assert url.startswith("unix://")
    second = run("up", "services", "--port", "0", folder=fleet.folder, environ=plain_environ())
    assert second.code == Exit.CONFIG
    assert f"is in use by another `seawall up` (process {up.pid}); stop that one, or set SEAWALL_DATA_DIR" in second.err
    processes = family(up.pid)
    up.terminate()
    assert up.wait() == Exit.OK
    assert gone(processes)
    assert "everything has stopped" in up.text


def test_whatever_dies_is_started_again(fleet: Fleet) -> None:
    up = fleet.up()
    fleet.use(up.url())
    for word in ("worker-1", "supervisor", "web", "valkey-server"):
        (victim,) = up.children(word)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda word=word, victim=victim: set(up.children(word)) - {victim}, 15)
    up.expect("the embedded server is back after")
    wait_until(lambda: len({report["pid"] for report in fleet.workers()} & set(up.children("worker"))) == 2, 15)
    assert run("call", "shop", "GET", "/", "-m", "services", folder=fleet.folder, environ=fleet.environ).code == Exit.OK
    assert not [line for line in up.text.splitlines() if "Traceback" in line]
    up.terminate()
    assert up.wait() == Exit.OK


def test_ctrl_c_stops_everything_and_a_program_beside_it(fleet: Fleet) -> None:
    program = [sys.executable, "-c", "import time\nprint('program runs', flush=True)\ntime.sleep(600)"]
    with terminal("up", "services", "--no-web", "--", *program, folder=fleet.folder, environ=fleet.environ) as screen:
        screen.expect("program runs")
        processes = family(screen.process.pid)
        assert len(processes) == 6, "up, Valkey, a supervisor, two workers, the program"
        assert screen.interrupt() == Exit.OK
        assert gone(processes)
        assert "\x1b[" in screen.seen, "in colours, on a terminal"


def test_program_gets_the_url_and_its_exit_code_is_passed_on(fleet: Fleet) -> None:
    """In a folder with files of the user's own that would hide others: it is the last place to look at."""
    for name in ("click.py", "redis.py", "actors.py"):
        (fleet.folder / name).write_text("raise RuntimeError('this is not what anybody wanted')\n")
    program = ["sh", "-c", 'echo "program: $* $SEAWALL_BROKER_URL"; exit 7', "sh", "--workers", "--"]
    ran = run("up", "services", "--no-web", "--", *program, folder=fleet.folder, environ=fleet.environ)
    assert ran.code == 7, ran.err
    assert (
        "program: --workers -- unix:///" in ran.out
    )  # where the folder's path is too long for a socket, it is elsewhere


def test_seconds_are_enough_for_a_look(fleet: Fleet) -> None:
    began = time.monotonic()
    ran = run("up", "services", "--no-web", "--seconds", "0.5", folder=fleet.folder, environ=fleet.environ)
    assert ran.code == Exit.OK
    assert time.monotonic() - began < 10


def test_taken_port_is_named_before_anything_starts(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = run("up", "services", "--port", str(port), folder=fleet.folder, environ=fleet.environ)
    assert ran == Ran(
        Exit.CONFIG,
        "",
        f"seawall: the web process cannot listen on 127.0.0.1:{port}: Address already in use; "
        "name another port with --port or SEAWALL_WEB_PORT, 0 for any\n",
    )


def test_program_that_is_none_is_named_before_anything_starts(fleet: Fleet) -> None:
    ran = run("up", "services", "--", "no-such-program", folder=fleet.folder, environ=fleet.environ)
    assert ran == Ran(Exit.NOT_FOUND, "", "seawall: no-such-program: there is no such program\n")
