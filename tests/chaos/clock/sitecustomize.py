"""Imported by Python at its start, where this folder is on the path: the wall clock of a process as chaos wants it.

The file that CHAOS_CLOCK names holds the seconds by which `time.time` is off, as a float; whoever writes it there sets
the clock of the running process, as a bad time server would. The monotonic clock stays right, as it does in life.
"""

from __future__ import annotations

import mmap
import os
import struct
import time


def _skew() -> None:
    with open(os.environ["CHAOS_CLOCK"], "rb") as file:
        held = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real, real_ns, read = time.time, time.time_ns, struct.Struct("d").unpack_from
    time.time = lambda: real() + read(held)[0]
    time.time_ns = lambda: real_ns() + int(read(held)[0] * 1e9)


if os.environ.get("CHAOS_CLOCK"):
    _skew()
