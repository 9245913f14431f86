"""Real processes for the acceptance tests: workers, supervisors, `seawall up`, callers. All are gone at the end.

Scenarios that mostly wait are played at once, each on a fleet of its own (see Stage), so that the suite stays short.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil

from seawall.actors.engine import engine_from_url
from seawall.actors.queue_store import Accepted, Counts, Put
from seawall.actors.record import Call, encode, new_call_id
from seawall.actors.service import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT, origin_of, queue_names
from seawall.errors import BrokerUnavailable
from seawall.supervisor.breaker import Record, State
from seawall.supervisor.leader import leader_info
from tests.support import wait_until

__all__ = ["CallError", "Caller", "Fleet", "Program", "Stage", "Up", "opened", "say"]

#: Seconds within which a process must have started; the machine may be busy with other things.
START_SECONDS = 20.0
#: Seconds after which a test is stuck rather than slow.
PATIENCE = 20.0
#: Seconds that a process gets to end by itself before it is killed.
END_SECONDS = 10.0

P = TypeVar("P", bound="Program")

_CALLER = Path(__file__).with_name("caller.py")


class Program:
    """A child process whose output goes to a file. Also a context manager that leaves nothing of it behind."""

    def __init__(
        self, argv: Sequence[str], *, folder: Path, log: Path, environ: Mapping[str, str], pipes: bool = False
    ) -> None:
        self.log = log
        pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                list(argv),
                cwd=folder,
                env=dict(environ),
                stdin=pipe,
                stdout=subprocess.PIPE if pipes else output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def lines(self, part: str) -> list[str]:
        """The log's lines that contain this."""
        return [line for line in self.text.splitlines() if part in line]

    def expect(self, part: str, *, count: int = 1, timeout: float = PATIENCE) -> list[str]:
        """Wait until the log has so many lines that contain this."""

        def said() -> list[str] | None:
            found = self.lines(part)
            return found if len(found) >= count else None

        return wait_until(said, timeout, message=f"{self.log.name} does not say {part!r} {count} time(s):\n{self.text}")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`, of this process alone."""
        self.popen.kill()
        self.popen.wait(END_SECONDS)

    def terminate(self) -> None:
        self.popen.terminate()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code; negative: the signal that ended it."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.log.name} runs on after {timeout} s:\n{self.text}") from None

    def close(self) -> None:
        """Kill it and whatever it has started."""
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.popen.wait(END_SECONDS)
        psutil.wait_procs(family, END_SECONDS)
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class CallError(Exception):
    """What a call raised in a caller's process: `kind` is the class's name, `bases` those of all its classes."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(f"{told['kind']}: {told['text']}")
        self.kind: str = told["kind"]
        self.bases: list[str] = told["bases"]
        self.shown: str = told["shown"]


class Caller(Program):
    """A client process of its own, which does what it is told; see caller.py for what it can do."""

    def __init__(self, folder: Path, log: Path, environ: Mapping[str, str]) -> None:
        super().__init__(
            [sys.executable, str(_CALLER), "services"], folder=folder, log=log, environ=environ, pipes=True
        )
        self._numbers = itertools.count()
        self._answers: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, do: str, **arguments: Any) -> Future[Any]:
        """Begin with something; its answer, later."""
        number, answer = next(self._numbers), Future[Any]()
        self._answers[number] = answer
        assert self.popen.stdin is not None
        with self._lock:
            self.popen.stdin.write(json.dumps({"n": number, "do": do, **arguments}).encode() + b"\n")
            self.popen.stdin.flush()
        return answer

    def ask(self, do: str, *, timeout: float = PATIENCE, **arguments: Any) -> Any:
        """Do something and wait for its answer. Raises CallError for what was raised over there."""
        return self.start(do, **arguments).result(timeout)

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self.popen.stdout:
                told = json.loads(line)
                answer = self._answers.pop(told["n"])
                if "error" in told:
                    answer.set_exception(CallError(told["error"]))
                else:
                    answer.set_result(told["answer"])
        for answer in self._answers.values():
            answer.set_exception(ConnectionError("the caller is gone"))


class Up(Program):
    """`seawall up` with its embedded server."""

    def __init__(self, folder: Path, log: Path, environ: Mapping[str, str], *options: str) -> None:
        command = [sys.executable, "-m", "seawall", "up", "services", "--port", "0", *options]
        super().__init__(command, folder=folder, log=log, environ=environ)

    def url(self) -> str:
        """The broker's, once everything runs."""
        line = self.expect("export SEAWALL_BROKER_URL=", timeout=START_SECONDS)[0]
        return line.partition("=")[2].strip().strip("'")

    def children(self, command: str) -> list[int]:
        """The process ids of its children whose command line has this word."""
        found = psutil.Process(self.pid).children()
        return [child.pid for child in found if any(command in word for word in _command_line(child))]


class Fleet:
    """Processes that share a namespace on one broker, and services that they declare: a table of keywords by key."""

    _namespaces = itertools.count(1)

    def __init__(
        self,
        folder: Path,
        url: str,
        services: Mapping[str, Mapping[str, Any]],
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.namespace = f"fleet{next(self._namespaces)}"
        self.services = services
        self.folder = folder / self.namespace
        self.folder.mkdir(parents=True)
        self.url = url
        (self.folder / "services.py").write_text(_module(services))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SEAWALL_")}
        self.environ = {**kept, "SEAWALL_NAMESPACE": self.namespace, **(environ or {})}
        self.programs: list[Program] = []
        self._numbers = itertools.count(1)
        self.use(url)

    def use(self, url: str) -> None:
        """Point at this broker, for a fleet whose broker's URL is known only later."""
        self.url = url
        self.engine = engine_from_url(url or "memory://", self.namespace)
        if url:
            self.environ["SEAWALL_BROKER_URL"] = url

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for program in reversed(self.programs):
            program.close()
        self.engine.close()
        if kind is not None:
            for program in self.programs:
                print(f"--- {program.log}\n" + "\n".join(program.text.splitlines()[-40:]))

    def worker(self, *options: str) -> Program:
        return self._seawall("worker", *options)

    def supervisor(self, *options: str) -> Program:
        return self._seawall("supervisor", *options)

    def caller(self) -> Caller:
        return self._kept(Caller(self.folder, self._log("caller"), self.environ))

    def up(self, *options: str) -> Up:
        """Everything under `seawall up`, with a server of its own; use() its url() then."""
        environ = {name: value for name, value in self.environ.items() if name != "SEAWALL_BROKER_URL"}
        return self._kept(Up(self.folder, self._log("up"), environ, *options))

    def script(self, text: str, *arguments: str) -> Program:
        """A Python program of the test's own, in this fleet's folder and environment."""
        return self._kept(
            Program(
                [sys.executable, "-c", text, *arguments],
                folder=self.folder,
                log=self._log("script"),
                environ=self.environ,
            )
        )

    def start(self, *, workers: int = 0, supervisors: int = 0, callers: int = 0) -> list[Any]:
        """So many of each, in this order, once all of them are at work."""
        started: list[Any] = [self.worker() for _ in range(workers)]
        started += [self.supervisor() for _ in range(supervisors)]
        started += [self.caller() for _ in range(callers)]
        for program in started[:workers]:
            self.wait_for_worker(program)
        if supervisors:
            self.wait_for_leader()
        for program in started[workers + supervisors :]:
            program.ask("ready", timeout=START_SECONDS)
        return started

    def enqueue(self, key: str, paths: Iterable[str], *, delay: float = 0.0) -> list[str]:
        """Background POSTs, as a client queues them; their ids. Saves a caller's process where no client is tested."""
        url, attempts, timeout = (self.services[key].get(name) for name in ("url", "max_retries", "timeout"))
        calls = [
            Call(
                id=new_call_id(),
                service=key,
                origin=origin_of(url),
                method="POST",
                target=path,
                max_attempts=attempts or DEFAULT_MAX_RETRIES,
                timeout=timeout or DEFAULT_TIMEOUT,
                keep_result=60,
            )
            for path in paths
        ]
        puts = [Put(queue_names(key)[1], call.id, encode(call), delay, expires_in=3600) for call in calls]
        assert all(isinstance(answer, Accepted) for answer in self.engine.queue.put(puts))
        return [call.id for call in calls]

    def wait_for_worker(self, program: Program) -> None:
        def reports() -> bool:
            return program.pid in [report["pid"] for report in self.workers()]

        wait_until(reports, START_SECONDS, message=f"the worker does not start:\n{program.text}")

    def wait_for_leader(self, *, other_than: int = 0) -> int:
        """The leading supervisor's process id."""

        def leader() -> int:
            pid = self.leader()
            return pid if pid != other_than else 0

        return wait_until(leader, START_SECONDS, message="no supervisor leads")

    def workers(self) -> list[dict[str, Any]]:
        return [json.loads(report) for report in self.engine.queue.workers()]

    def leader(self) -> int:
        """The process id of the supervisor that holds the lease; 0 without one."""
        assert self.engine.link is not None
        owner = leader_info(self.engine.link, self.namespace).owner
        return int(owner.split(":")[1]) if owner else 0

    def of_pid(self, pid: int) -> Program:
        return next(program for program in self.programs if program.pid == pid)

    def breaker(self, key: str) -> Record:
        return self.engine.breakers.read(key)[0] or Record()

    def counts(self, key: str) -> Counts:
        """Of the background queue."""
        return self.engine.queue.counts([queue_names(key)[1]])[0]

    def running(self, key: str) -> int:
        """How many calls of either queue are in a worker's hands."""
        return sum(counts.leased for counts in self.engine.queue.counts(queue_names(key)))

    def drained(self, key: str) -> bool:
        """Nothing waits or runs in either queue; False while the broker is away."""
        try:
            found = self.engine.queue.counts(queue_names(key))
        except BrokerUnavailable:
            return False
        return all(counts.ready + counts.due + counts.leased == 0 for counts in found)

    def _seawall(self, command: str, *options: str) -> Program:
        argv = [sys.executable, "-m", "seawall", command, "services", "--parent", str(os.getpid()), *options]
        return self._kept(Program(argv, folder=self.folder, log=self._log(command), environ=self.environ))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}-{next(self._numbers)}.log"

    def _kept(self, program: P) -> P:
        self.programs.append(program)
        return program


class Stage:
    """Plays scenarios at once, on threads. The test named after a scenario asks for its result.

    A scenario is a function of a folder of its own; what it raises is raised in its test.
    """

    def __init__(self, folder: Path, scenarios: Mapping[str, Callable[[Path], Any]]) -> None:
        self._pool = ThreadPoolExecutor(len(scenarios))
        self._plays: dict[str, Future[Any]] = {}
        for name, play in scenarios.items():
            place = folder / name
            place.mkdir()
            self._plays[name] = self._pool.submit(play, place)

    def result(self, name: str, timeout: float = 120.0) -> Any:
        return self._plays[name].result(timeout)

    def close(self) -> None:
        """Wait for all of them: each clears up after itself."""
        self._pool.shutdown(wait=True)


@contextlib.contextmanager
def playing(folder: Path, **scenarios: Callable[[Path], Any]) -> Iterator[Stage]:
    stage = Stage(folder, scenarios)
    try:
        yield stage
    finally:
        stage.close()


def opened(fleet: Fleet, key: str, timeout: float = PATIENCE) -> float:
    """Wait until the breaker is open and nothing runs any more; the monotonic time."""

    def is_open() -> bool:
        return fleet.breaker(key).state is not State.CLOSED

    wait_until(is_open, timeout, message=f"the breaker of {key} does not open")
    return time.monotonic()


def say(text: str) -> None:
    """A measured figure; `pytest -s` shows it."""
    print(f"\n    {text}", flush=True)


def _module(services: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of a module that declares these services."""
    lines = ["from seawall import ResilientServiceClient", ""]
    for key, keywords in services.items():
        given = {"service_name": key.capitalize(), "key": key, **keywords}
        url = given.pop("url")
        rest = ", ".join(f"{name}={value!r}" for name, value in given.items())
        lines.append(f"{key} = ResilientServiceClient({url!r}, {rest})")
    return "\n".join([*lines, ""])


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []
