"""What the system says about another process's signals, so that a test need not guess when it is ready for one."""

from __future__ import annotations

import signal
from pathlib import Path

__all__ = ["catches"]


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for this signal by now; False also when it has ended.

    Where the system does not tell, True.

    >>> import os
    >>> catches(os.getpid(), signal.SIGINT), catches(os.getpid(), signal.SIGKILL)
    (True, False)
    """
    if not Path("/proc/self/status").exists():
        return True
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (number - 1) & 1)
