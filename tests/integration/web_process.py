"""A web process of a test's own, and what is asked of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.support import PrivateRedis

TOKEN = "w3b-t0ken"


@dataclass
class Web:
    process: subprocess.Popen[str]
    url: str
    folder: Path

    def get(self, path: str, **headers: str | bytes) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=10)

    def readiness(self) -> dict[str, str]:
        """What is missing, by check."""
        checks = self.get("/readyz").json()["checks"]
        return {name: check["output"] for name, check in checks.items() if check["status"] == "fail"}

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@contextmanager
def running(broker: PrivateRedis, folder: Path, *options: str, **environ: str) -> Iterator[Web]:
    """A web process on a free port."""
    command = [sys.executable, "-m", "seawall", "web", "--port", "0", "--broker-url", broker.url, *options]
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            yield Web(process, next(line.split()[-1] for line in lines if "listening on" in line), folder)
        finally:
            process.kill()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
