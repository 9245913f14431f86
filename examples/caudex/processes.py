"""One program of the example as a child process: start it, kill it, start it again on the same port."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import requests

from examples.caudex.addresses import internal_token

__all__ = ["ProcessDied", "ServiceProcess"]

#: Seconds until a program must say that it listens; a loaded machine starts Python slowly.
READY_SECONDS = 20.0
#: Seconds a program gets to end cleanly before it is killed; over the 5 s in which a queue in memory drains at exit.
STOP_SECONDS = 10.0
#: Seconds for one request of `ask`.
ASK_SECONDS = 10.0

#: The folder that holds `examples`, so that the children find it too.
_ROOT = Path(__file__).resolve().parents[2]
_LISTENING = re.compile(rb"listening on http://127\.0\.0\.1:(\d+)\n")


class ProcessDied(RuntimeError):
    """A program ended, or did not say that it listens in time. The message ends with the last lines of its log."""


class ServiceProcess:
    """A server under `examples.caudex`, in a process of its own.

    `port` 0 takes a free one at the first start and keeps it from then on. Its messages go to `<data>/logs/<name>.log`.
    The child ends by itself when this process is gone, even by SIGKILL. Also a context manager.

        with ServiceProcess("chroma", data=folder) as chroma:
            chroma.ask("POST", "/add", json={"documents": ["A caudex stores water."]})
            chroma.kill()
            chroma.start()
    """

    def __init__(
        self, name: str, *, data: Path, port: int = 0, module: str = "", environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.port = port
        self.data = data.resolve()
        self._module = module or f"examples.caudex.servers.{name}"
        self._environ = {**os.environ, **(environ or {})}
        self._child: subprocess.Popen[bytes] | None = None
        self._said = b""

    def __enter__(self) -> ServiceProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def log(self) -> Path:
        return self.data / "logs" / f"{self.name}.log"

    @property
    def output(self) -> IO[bytes] | None:
        """Becomes readable when the program speaks or ends; for `select`, followed by `hear`. None before a start."""
        return self._child.stdout if self._child else None

    def start(self) -> None:
        """Start it and wait until it accepts requests. ProcessDied if it does not."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it without waiting. Does nothing while it runs."""
        if self.running:
            return
        self._forget()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", self._module, "--port", str(self.port), "--data", str(self.data)]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*command, "--with-parent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=_ROOT,
                env=self._environ,
                start_new_session=True,  # ctrl-C in the terminal is for the parent, which stops the children in order
            )

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until a launched program accepts requests. ProcessDied if it ends first, or is too slow."""
        deadline = time.monotonic() + timeout
        while not _LISTENING.search(self._said):
            left = deadline - time.monotonic()
            if self.output is None:
                raise ProcessDied(f"{self.name} was not started")
            if left <= 0 or not select.select([self.output], [], [], left)[0]:
                self.kill()
                raise ProcessDied(f"{self.name} does not listen after {timeout:g} s\n{self._last_words()}")
            if not self.hear():
                raise ProcessDied(f"{self.name} ended while starting\n{self._last_words()}")

    def hear(self) -> bool:
        """Take in what the program wrote on its output, waiting for it; False when the program has ended."""
        if self._child is None or self._child.stdout is None:
            return False
        chunk = os.read(self._child.stdout.fileno(), 4096)
        self._said += chunk
        if found := _LISTENING.search(self._said):
            self.port = int(found[1])
        if not chunk:
            self._child.wait()
        return bool(chunk)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Ask it to end, and kill it if it does not within `timeout` seconds. Safe twice and before a start."""
        self.ask_to_stop()
        if self._child:
            try:
                self._child.wait(timeout)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._forget()

    def ask_to_stop(self) -> None:
        """The first half of `stop`, for stopping several at once."""
        if self._child and self.running:
            self._child.terminate()

    def kill(self) -> None:
        """SIGKILL, as a crash would be. `start` brings it back on the same port."""
        if self._child:
            self._child.kill()
        self._forget()

    def restart(self) -> None:
        self.stop()
        self.start()

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """One direct request, past every queue, with the internal token if there is one; options as in requests."""
        header, token = internal_token(self._environ)
        headers = {**({header: token} if token else {}), **options.pop("headers", {})}
        with requests.Session() as session:
            session.trust_env = False  # no proxy between two programs of one machine
            return session.request(method, self.url + path, headers=headers, **{"timeout": ASK_SECONDS, **options})

    def _forget(self) -> None:
        child, self._child, self._said = self._child, None, b""
        if child:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-5:])
