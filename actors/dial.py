"""Opening a connection within a deadline: the look-up of the name and all of its addresses included."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

from urllib3.util.connection import allowed_gai_family

from seawall.actors.deadline import Deadline

__all__ = ["dial"]

_Address = tuple[int, int, int, str, Any]


def dial(host: str, port: int, limit: Deadline, options: Sequence[tuple[int, int, int | bytes]]) -> socket.socket:
    """A connected socket, from the first of the host's addresses that answers.

    The time left is shared evenly among the addresses not yet tried, so that one that swallows everything does not
    hide a good one. Raises TimeoutError, socket.gaierror or the OSError of the last address.
    """
    addresses = _resolved(host.strip("[]"), port, limit)
    last: OSError = OSError(f"{host} has no address")
    for position, address in enumerate(addresses):
        share = limit.remaining / (len(addresses) - position)
        if share <= 0:
            raise TimeoutError(f"no connection to {host} in time")
        try:
            return _connected(address, share, options)
        except OSError as error:
            last = error
    try:
        raise last
    finally:
        del last  # the error's traceback refers to this frame


def _connected(address: _Address, seconds: float, options: Sequence[tuple[int, int, int | bytes]]) -> socket.socket:
    family, kind, protocol, _, name = address
    sock = socket.socket(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.settimeout(seconds)
        sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock


class _Lookup:
    """One look-up of a name, shared by all threads that ask for it while it lasts."""

    def __init__(self) -> None:
        self.finished = threading.Event()
        self.addresses: list[_Address] = []
        self.error: OSError | None = None


_lookups: dict[tuple[str, int], _Lookup] = {}
_lookups_lock = threading.Lock()


def _resolved(host: str, port: int, limit: Deadline) -> list[_Address]:
    """The host's addresses. The system's resolver cannot be interrupted, so a name is looked up in another thread."""
    with contextlib.suppress(socket.gaierror):
        return _ask(host, port, socket.AI_NUMERICHOST)
    lookup = _joined_lookup(host, port)
    if not lookup.finished.wait(limit.remaining):
        raise TimeoutError(f"the name {host} was not resolved in time")
    if lookup.error is not None:
        # A new object for each of the threads that waited: a raised error collects tracebacks.
        raise type(lookup.error)(*lookup.error.args) from lookup.error
    return lookup.addresses


def _joined_lookup(host: str, port: int) -> _Lookup:
    with _lookups_lock:
        lookup = _lookups.get((host, port))
        if lookup is not None:
            return lookup
        lookup = _lookups[host, port] = _Lookup()
    thread = threading.Thread(target=_look_up, args=(host, port, lookup), name="seawall-resolver", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # No more threads: the interpreter is shutting down, or the process is at its limit.
        _look_up(host, port, lookup)
    return lookup


def _look_up(host: str, port: int, lookup: _Lookup) -> None:
    try:
        lookup.addresses = _ask(host, port, 0)
    except OSError as error:
        lookup.error = error
    finally:
        with _lookups_lock:
            _lookups.pop((host, port), None)
        lookup.finished.set()


def _ask(host: str, port: int, flags: int) -> list[_Address]:
    try:
        return list(socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM, 0, flags))
    except UnicodeError as error:
        # A label that is empty or too long fails in Python's own encoding of the name.
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is not a host name: {error}") from error
    except socket.gaierror:
        if not flags:
            # A resolver without a file descriptor says "try again"; ask for one here to learn the real reason.
            socket.socket().close()
        raise


def _renew_in_child() -> None:
    """A look-up that another thread had begun never ends in a forked child."""
    global _lookups, _lookups_lock
    _lookups = {}
    _lookups_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_in_child)
