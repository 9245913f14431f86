"""The web process: uvicorn around the application of seawall.supervisor.web."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from seawall.errors import ConfigurationError
from seawall.exits import Exit
from seawall.signals import Signals
from seawall.supervisor.web import make_app

__all__ = ["address_problem", "serve", "shown_address"]

logger = logging.getLogger("seawall.web")

#: Seconds between two looks whether the parent process is still there.
LOOK_SECONDS = 1.0
#: Seconds that open requests have to end at SIGTERM.
GRACE_SECONDS = 5
#: Connections that may wait to be accepted.
BACKLOG = 128


def serve(
    read_fleet: Callable[[], dict[str, Any]],
    host: str,
    port: int,
    signals: Signals,
    orphaned: Callable[[], bool] = lambda: False,
) -> Exit | None:
    """Serve until a signal, or until the parent is gone; None after SIGHUP, which asks for a fresh start.

    Raises ConfigurationError when the address cannot be had.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        make_app(read_fleet),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    port = listener.getsockname()[1]
    logger.info("listening on %s port %d, here http://%s", host, port, shown_address(host, port))
    reload = asyncio.run(_serve(_Server(config), listener, signals, orphaned))
    return None if reload else Exit.OK


def shown_address(host: str, port: int) -> str:
    """Where a browser on this machine finds it.

    >>> shown_address("0.0.0.0", 8610), shown_address("::1", 80)
    ('127.0.0.1:8610', '[::1]:80')
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_problem(host: str, port: int) -> str:
    """Why the web process could not listen there now; empty when it can."""
    try:
        _listen(host, port).close()
    except ConfigurationError as error:
        return str(error)
    return ""


class _Server(uvicorn.Server):
    """The process notes its signals itself, from its first moment on."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    """Bound and listening, so that whoever is told the port can connect at once."""
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigurationError(
            f"the web process cannot listen on {host}:{port}: {error.strerror}; name another port with --port "
            "or SEAWALL_WEB_PORT, 0 for any"
        ) from error
    return listener


async def _serve(
    server: uvicorn.Server, listener: socket.socket, signals: Signals, orphaned: Callable[[], bool]
) -> bool:
    """Whether it ended for a reload."""

    async def watch() -> bool:
        reload = False
        while not (signals.stop_requested or reload or orphaned() or server.should_exit):
            await asyncio.to_thread(signals.wait, LOOK_SECONDS)
            reload = signals.reload_requested
        server.should_exit = True
        return reload

    watching = asyncio.create_task(watch())
    await server.serve(sockets=[listener])
    return await watching
