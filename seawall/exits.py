"""What a Seawall process's exit code means."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """The numbers above 63 are those of sysexits.h."""

    OK = 0
    FAILED = 1
    """The command did its work, and the answer is no: a check found an error, a breaker is open, a call failed."""
    USAGE = 2
    """The command line is wrong."""
    UNAVAILABLE = 69
    """The broker, or a service that was called, cannot be reached."""
    SOFTWARE = 70
    """A part of Seawall died or hung, and the process ended so that it can be started again."""
    CANNOT_CREATE = 73
    """A folder, a port or a lock cannot be had."""
    CONFIG = 78
    """A setting is wrong; `seawall check` says which."""
    CUT_OFF = 143
    """A second SIGTERM: the process ended at once."""
