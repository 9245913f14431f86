"""The command `seawall` as a person types it: run to its end, or on a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ran", "Terminal", "plain_environ", "run", "terminal"]

#: As the installed program `seawall` looks for modules: not in the current folder first.
SEAWALL = (sys.executable, "-P", "-m", "seawall")
#: Seconds after which a command hangs.
PATIENCE = 30.0


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def plain_environ(**more: str) -> dict[str, str]:
    """This process's environment without anybody's settings, and with these."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SEAWALL_")} | more


def run(*words: str, folder: Path, environ: Mapping[str, str], given: bytes = b"") -> Ran:
    """`seawall words...` in this folder, to its end. Whatever a user does wrong, there is no traceback."""
    done = subprocess.run(
        [*SEAWALL, *words],
        cwd=folder,
        env=dict(environ),
        input=given,
        capture_output=True,
        timeout=PATIENCE,
    )
    ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in ran.err, ran.err
    return ran


class Terminal:
    """A command on a terminal, as wide as most."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self.seen = ""
        self._screen = screen

    def expect(self, text: str) -> None:
        """Read until the screen has shown this."""
        ends = time.monotonic() + PATIENCE
        while text not in self.seen:
            readable, _, _ = select.select([self._screen], [], [], max(0.0, ends - time.monotonic()))
            more = self._read() if readable else ""
            assert more, f"the terminal does not show {text!r}:\n{self.seen}"
            self.seen += more

    def interrupt(self) -> int:
        """ctrl-C, as the terminal's driver gives it to every process of the foreground; the command's exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        ends = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < ends:  # a full screen would stop the program
            if select.select([self._screen], [], [], 0.02)[0]:
                self.seen += self._read()
        return self.process.wait(10)

    def _read(self) -> str:
        """What it wrote; nothing when the last process on it has ended, which Linux calls an error."""
        try:
            return os.read(self._screen, 65536).decode(errors="replace")
        except OSError:
            return ""


@contextlib.contextmanager
def terminal(*words: str, folder: Path, environ: Mapping[str, str]) -> Iterator[Terminal]:
    """`seawall words...` on a terminal; killed at the end if it still runs."""
    screen, theirs = pty.openpty()
    process = subprocess.Popen(
        [*SEAWALL, *words],
        cwd=folder,
        env={**environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, screen)
    finally:
        process.kill()
        process.wait()
        os.close(screen)
