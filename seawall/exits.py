"""What a Seawall process's exit code means."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """From 64 to 78 the numbers of sysexits.h; above, those of a shell."""

    OK = 0
    FAILED = 1
    """The command did its work, and the answer is no: a check found an error, a breaker is open, an answer is a 4xx."""
    USAGE = 2
    """The command line is wrong."""
    UNAVAILABLE = 69
    """The broker cannot be reached, or a service that was called gave no answer."""
    SOFTWARE = 70
    """A part of Seawall died or hung, and the process ended so that it can be started again."""
    CANNOT_CREATE = 73
    """A file or a folder cannot be read, made or written to, because the disk is full, say."""
    CONFIG = 78
    """A setting is wrong, or what it names is taken, such as a port, or not fit, such as a broker; see `seawall check`."""
    NOT_FOUND = 127
    """The COMMAND of `seawall up` is no program, as a shell answers."""
    INTERRUPTED = 130
    """ctrl-C ended the command."""
    CUT_OFF = 143
    """A second SIGTERM: the process ended at once."""
