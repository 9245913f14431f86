"""Real processes for the acceptance tests: workers, supervisors, `seawall up`, callers. All are gone at the end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from seawall.actors.engine import engine_from_url
from seawall.actors.queue_store import Accepted, Counts, Put
from seawall.actors.record import Call, encode, new_call_id
from seawall.actors.service import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT, origin_of, queue_names
from seawall.errors import BrokerUnavailable
from seawall.supervisor.breaker import Record, State
from seawall.supervisor.leader import leader_info
from tests.acceptance.programs import PATIENCE, START_SECONDS, Caller, CallError, Program, Up
from tests.acceptance.stage import Stage, playing, say
from tests.support import wait_until

__all__ = ["CallError", "Caller", "Fleet", "Program", "Stage", "Up", "opened", "playing", "say"]

P = TypeVar("P", bound=Program)

#: A module in every fleet's folder. A client process that imports it gives the broker as long for an answer as the tests' own
#: do, and so do its children: a machine that stands still for a second is no outage.
PATIENT = f"""
from seawall.actors.engine import engine_from_url
engine_from_url.__kwdefaults__["answer_timeout"] = {PATIENCE}
"""


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
        (self.folder / "patient.py").write_text(PATIENT)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SEAWALL_")}
        self.environ = {**kept, "SEAWALL_NAMESPACE": self.namespace, **(environ or {})}
        self.programs: list[Program] = []
        self._numbers = itertools.count(1)
        self.use(url)

    def use(self, url: str) -> None:
        """Point at this broker, for a fleet whose broker's URL is known only later."""
        self.url = url
        self.engine = engine_from_url(url or "memory://", self.namespace, answer_timeout=PATIENCE)
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

    def also(self, code: str) -> None:
        """Have the module that declares the services end with this."""
        with (self.folder / "services.py").open("a") as module:
            module.write(code + "\n")

    def worker(self, *options: str) -> Program:
        return self._seawall("worker", *options)

    def supervisor(self, *options: str) -> Program:
        return self._seawall("supervisor", *options)

    def caller(self, *, patient: bool = True) -> Caller:
        """Not `patient` where the broker's absence is the subject."""
        modules = ("patient", "services") if patient else ("services",)
        return self._kept(Caller(self.folder, self._log("caller"), self.environ, modules))

    def up(self, *options: str, broker: str = "") -> Up:
        """Everything under `seawall up`, with a server of its own (use() its url() then) or over the `broker` at this URL."""
        environ = {**self.environ, "SEAWALL_BROKER_URL": broker}  # empty counts as not set
        return self._kept(Up(self.folder, self._log("up"), environ, *options))

    def script(self, text: str, *arguments: str) -> Program:
        """A Python program of the test's own, in this fleet's folder and environment. A client imports `patient` first."""
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

    def pause_the_leader(self, meanwhile: Callable[[], object]) -> None:
        """Stop the leading supervisor for longer than its lease, until another one leads and `meanwhile` is done."""
        paused = self.of_pid(self.leader())
        paused.signal(signal.SIGSTOP)
        self.wait_for_leader(other_than=paused.pid)
        meanwhile()
        paused.signal(signal.SIGCONT)
        paused.expect("leads no longer")

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


def opened(fleet: Fleet, key: str, timeout: float = PATIENCE) -> float:
    """Wait until the breaker is open and nothing runs any more; the monotonic time."""

    def is_open() -> bool:
        return fleet.breaker(key).state is not State.CLOSED

    wait_until(is_open, timeout, message=f"the breaker of {key} does not open")
    return time.monotonic()


def _module(services: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of a module that declares these services."""
    lines = ["from seawall import ResilientServiceClient", ""]
    for key, keywords in services.items():
        given = {"service_name": key.capitalize(), "key": key, **keywords}
        url = given.pop("url")
        rest = ", ".join(f"{name}={value!r}" for name, value in given.items())
        lines.append(f"{key} = ResilientServiceClient({url!r}, {rest})")
    return "\n".join([*lines, ""])
