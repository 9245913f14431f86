"""What the figures were measured on, and with which versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from bench.contenders import PEERS
from bench.stage import Stage

__all__ = ["describe"]

_OWN = ("seawall", "dramatiq", "redis", "hiredis", "requests", "urllib3", "msgspec")
_PEERS = (
    "celery",
    "dramatiq",
    "rq",
    "taskiq",
    "taskiq-redis",
    "aiohttp",
    "pybreaker",
    "interlock-cb",
    "circuitbreaker",
)
_ASK = "import json, sys; from importlib import metadata; print(json.dumps({n: metadata.version(n) for n in sys.argv[1:]}))"


def describe(stage: Stage) -> dict[str, str]:
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "upstream": stage.upstream.name,
        "broker": f"{stage.broker.name}, append-only file synced every second, TCP on loopback",
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in _OWN),
        "peers": _peers(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _peers() -> str:
    python = PEERS / "python"
    if not python.exists():
        return "none; `make bench` installs them"
    asked = (*_PEERS, "purgatory")
    found = json.loads(subprocess.check_output([str(python), "-c", _ASK, *asked], text=True))
    return ", ".join(f"{name} {version}" for name, version in found.items())
