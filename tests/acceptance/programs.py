"""Child processes of the acceptance tests: what each is told, what it has said, and how it ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil

from tests.support import wait_until

__all__ = ["PATIENCE", "START_SECONDS", "CallError", "Caller", "Program", "Up"]

#: Seconds within which a process must have started; the machine may be busy with other things.
START_SECONDS = 20.0
#: Seconds after which a test is stuck rather than slow.
PATIENCE = 20.0
#: Seconds that a process gets to end by itself before it is killed.
END_SECONDS = 10.0

_CALLER = Path(__file__).with_name("caller.py")


class Program:
    """A child process whose output goes to a file."""

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

    def __init__(self, folder: Path, log: Path, environ: Mapping[str, str], modules: Sequence[str]) -> None:
        super().__init__([sys.executable, str(_CALLER), *modules], folder=folder, log=log, environ=environ, pipes=True)
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


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []
