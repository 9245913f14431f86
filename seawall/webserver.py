"""The web process: uvicorn around the application of seawall.supervisor.web."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from seawall.actors.token import TokenSource
from seawall.errors import ConfigurationError, TokenUnavailable
from seawall.exits import Exit
from seawall.settings import SETTINGS, Settings
from seawall.signals import Signals
from seawall.supervisor.page.board import Board
from seawall.supervisor.page.desk import Desk
from seawall.supervisor.page.session import Sessions
from seawall.supervisor.web import ENTRANCES, OPEN_PATHS, make_app
from seawall.supervisor.web_guard import Guard

__all__ = ["address_problem", "serve", "shown_address"]

logger = logging.getLogger("seawall.web")

#: Seconds between two looks whether the parent process is still there, and, at the end, whether all is over.
LOOK_SECONDS, LAST_LOOK_SECONDS = 1.0, 0.05
#: Seconds that open requests have to end at SIGTERM.
GRACE_SECONDS = 5
#: Connections that may wait to be accepted.
BACKLOG = 128


def serve(
    desk: Desk,
    settings: Settings,
    signals: Signals,
    orphaned: Callable[[], bool] = lambda: False,
) -> Exit | None:
    """Serve until a signal, or until the parent is gone; None after SIGHUP, which asks for a fresh start.

    A second signal ends the process as it is, with CUT_OFF. Raises ConfigurationError when the address cannot be had, or is
    not to be had without a token.
    """
    listener = _listen(settings)
    host, port = settings.web_host, listener.getsockname()[1]
    board, token = Board(desk), _token(settings)
    sessions = Sessions(token) if token is not None else None
    app = make_app(desk, board, sessions)
    config = uvicorn.Config(
        _guarded(app, token, sessions, settings, listener),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,  # whoever connects may write them: guesses are counted by who connects
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    logger.info("listening on %s port %d, here http://%s", host, port, shown_address(host, port))
    return asyncio.run(_serve(_Server(config), board, listener, signals, orphaned))


def shown_address(host: str, port: int) -> str:
    """Where a browser on this machine finds it.

    >>> shown_address("0.0.0.0", 8610), shown_address("::1", 80)
    ('127.0.0.1:8610', '[::1]:80')
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_problem(settings: Settings) -> str:
    """Why the web process could not listen now where it is told to; empty when it can."""
    try:
        _listen(settings).close()
    except ConfigurationError as error:
        return str(error)
    return ""


class _Server(uvicorn.Server):
    """The process notes its signals itself, from its first moment on."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(settings: Settings) -> socket.socket:
    """Bound and listening, so that whoever is told the port can connect at once. Raises ConfigurationError."""
    host, port, listener = settings.web_host, settings.web_port, None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        _require_token(settings, listener)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigurationError(
            f"the web process cannot listen on {host}:{port}: {error.strerror}; name another port with --port "
            "or SEAWALL_WEB_PORT, 0 for any"
        ) from error
    except ConfigurationError:
        assert listener is not None
        listener.close()
        raise
    return listener


def _require_token(settings: Settings, listener: socket.socket) -> None:
    """Beyond this machine there is no answer but health without a token, unless somebody says so in so many words."""
    token = _token(settings)
    if token is not None:
        try:
            token()
        except TokenUnavailable as error:
            raise ConfigurationError(f"{error}; the web process lets nobody in without it") from error
    elif not (settings.web_open or _is_here(listener)):
        value, file, everybody = (SETTINGS[name].variable for name in ("web_token", "web_token_file", "web_open"))
        raise ConfigurationError(
            f"the web process is to listen on {settings.web_host}, beyond this machine, and has no token: set {value} or "
            f"{file}, or {everybody}=1 if everybody may read its status"
        )


def _is_here(listener: socket.socket) -> bool:
    """Whether it can be reached from this machine only."""
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _token(settings: Settings) -> Callable[[], str] | None:
    source = TokenSource(value=settings.web_token, file=settings.web_token_file, what="the web process's token")
    if not source.configured:
        return None

    def token() -> str:
        header = source.header_value()
        assert header is not None
        return header[1]

    return token


def _guarded(
    app: Any,
    token: Callable[[], str] | None,
    sessions: Sessions | None,
    settings: Settings,
    listener: socket.socket,
) -> Guard:
    return Guard(
        app,
        open_paths=OPEN_PATHS,
        entrances=ENTRANCES,
        token=token,
        sessions=sessions,
        only_here=_is_here(listener) and not settings.web_open,
        host=settings.web_host,
    )


async def _serve(
    server: uvicorn.Server, board: Board, listener: socket.socket, signals: Signals, orphaned: Callable[[], bool]
) -> Exit | None:
    """Why it ended: OK, or None for a reload. A second signal ends the process here."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    reload = False
    while not serving.done():
        if signals.stop_count >= (1 if reload else 2):
            logging.shutdown()
            os._exit(Exit.CUT_OFF)  # the end of the loop would wait for threads that wait for the broker
        reload = reload or (signals.reload_requested and not server.should_exit)
        server.should_exit = server.should_exit or signals.stop_requested or reload or orphaned()
        if server.should_exit:
            board.close()  # its streams have no end of their own
        look = LAST_LOOK_SECONDS if server.should_exit else LOOK_SECONDS
        waiting = asyncio.create_task(asyncio.to_thread(signals.wait, look))
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    await serving
    return None if reload else Exit.OK
