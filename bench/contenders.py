"""Who runs an HTTP call through a queue: how its workers and its driver are started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

__all__ = ["CONTENDERS", "DIRECT", "SEAWALL", "Contender", "Driver", "Workers"]

PROGRAMS = Path(__file__).parent / "programs"
PEERS = Path(__file__).parent / ".venv" / "bin"
OWN = Path(sys.executable).parent
#: Calls that run at once in one worker process, for everybody who has threads or tasks.
SLOTS = 8
#: Seconds for an answer of a driver beyond what it was told to take, and for a worker to stop.
PATIENCE = 120.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Contender:
    """`workers` makes the command of its workers for so many processes; None where nothing works in the background."""

    name: str
    program: str
    database: int
    workers: Callable[[int], Sequence[str]] | None
    folder: Path = PEERS
    processes: int = 1
    """Worker processes in the comparisons of one."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its own."""

    def environment(self, upstream: str, broker: str) -> dict[str, str]:
        url = f"{broker.rpartition('/')[0]}/{self.database}"
        own = {"BENCH_UPSTREAM": upstream, "BENCH_BROKER": url, "PYTHONPATH": str(PROGRAMS), "PYTHONWARNINGS": "ignore"}
        return os.environ | own | {"SEAWALL_BROKER_URL": url, "SEAWALL_LOG_LEVEL": "warning"} | self.more


def _celery(pool: str, concurrency: int) -> Sequence[str]:
    quiet = ("--loglevel", "error", "--without-gossip", "--without-mingle", "--without-heartbeat")
    return ("celery", "--app", "celery_app", "worker", "--pool", pool, "--concurrency", str(concurrency), *quiet)


DIRECT = Contender("direct", "direct_app.py", 0, None, folder=OWN)
SEAWALL = Contender("Seawall", "seawall_app.py", 1, lambda n: ("seawall", "worker", "seawall_app"), folder=OWN)
CONTENDERS = (
    DIRECT,
    SEAWALL,
    Contender(
        "Dramatiq",
        "dramatiq_app.py",
        2,
        lambda n: ("dramatiq", "dramatiq_app", "--processes", str(n), "--threads", str(SLOTS)),
    ),
    Contender("Celery, threads", "celery_app.py", 3, lambda n: _celery("threads", SLOTS)),
    Contender("Celery, prefork 2", "celery_app.py", 4, lambda n: _celery("prefork", 2), processes=2),
    Contender("RQ", "rq_app.py", 5, lambda n: ("rq", "worker", "--quiet", "--url", "{broker}")),
    Contender(
        "taskiq",
        "taskiq_app.py",
        6,
        lambda n: (
            *("taskiq", "worker", "taskiq_app:broker", "--workers", str(n)),
            *("--max-async-tasks", str(SLOTS), "--log-level", "ERROR"),
        ),
    ),
)


class Workers:
    """A contender's worker processes, as a context."""

    def __init__(self, contender: Contender, upstream: str, broker: str, processes: int = 1) -> None:
        assert contender.workers is not None
        environment = contender.environment(upstream, broker)
        arguments = [part.format(broker=environment["BENCH_BROKER"]) for part in contender.workers(processes)]
        commands = processes if contender.folder == OWN else 1  # one command starts them all, elsewhere
        self._started = [
            subprocess.Popen(
                [str(contender.folder / arguments[0]), *arguments[1:]],
                cwd=PROGRAMS,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for _ in range(commands)
        ]

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def processes(self) -> list[psutil.Process]:
        """These processes and their children."""
        found = [psutil.Process(process.pid) for process in self._started]
        return found + [child for process in found for child in process.children(recursive=True)]

    def memory(self) -> int:
        """Resident bytes of them all. One that lives for a single job, as RQ's, may end meanwhile."""
        resident = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                resident += process.memory_info().rss
        return resident

    def cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self.processes()]
        return sum(spent.user + spent.system for spent in times)


class Driver:
    """A contender's driver, told what to do over its standard input; as a context."""

    def __init__(self, contender: Contender, upstream: str, broker: str) -> None:
        self.contender = contender
        self._process = subprocess.Popen(
            [str(contender.folder / "python"), str(PROGRAMS / contender.program)],
            cwd=PROGRAMS,
            env=contender.environment(upstream, broker),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Driver:
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tell(self, order: str, **more: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": order, **more}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the driver of {self.contender.name} ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
