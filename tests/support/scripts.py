"""Programs that a test runs in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

__all__ = ["ROOT", "run_script"]

ROOT = Path(__file__).resolve().parents[2]


def run_script(
    code: str, *arguments: str, timeout: float = 20.0, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the code, with `sys.argv[1:]` as given, and answer what it printed. Settings of this process play no part."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SEAWALL_")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        env=plain | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert not check or done.returncode == 0, done.stderr
    return done
