"""What `seawall up` runs, and how it looks after it."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import click

from seawall.cli.screen import screen
from seawall.embedded import EmbeddedServer
from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.fleet import Fleet, read_fleet
from seawall.outage import Outage
from seawall.runtime import Runtime, registry
from seawall.settings import SETTINGS, Settings
from seawall.signals import Signals
from seawall.supervisor.processes import ChildSpec, Keeper
from seawall.supervisor.restarts import RestartPolicy, Restarts

__all__ = ["House"]

logger = logging.getLogger("seawall.up")

#: Seconds after which a fleet that is not complete is worth a warning.
START_SECONDS = 20.0
#: Seconds beyond the workers' own shutdown timeout, after which what is left is killed.
STOP_MARGIN = 3.0
#: The embedded server is started again for ever: nothing else has the calls that it accepted.
_SERVERS_RESTARTS = RestartPolicy(first_delay=0.5, longest_delay=5.0, budget=sys.maxsize)
#: Settings that the children are told when they were given as options here.
_TOLD = ("namespace", "log_format", "log_level", "web_host")
#: Who needs which of the secrets that are set in the environment. A supervisor asks health paths with the internal token, the
#: user's program makes calls itself while the broker is away, and a worker signs alerts.
_NEEDED = {
    "worker": ("internal_token", "alerts_secret"),
    "supervisor": ("internal_token",),
    "web": ("web_token",),
    "program": ("internal_token",),
}
_SECRETS = ("internal_token", "web_token", "alerts_secret")


class House:
    """Children are kept by a Keeper, the embedded server, if there is one, beside them. On the main thread only."""

    def __init__(
        self,
        settings: Settings,
        modules: Sequence[str],
        command: Sequence[str],
        server: EmbeddedServer | None,
        *,
        web: bool,
    ) -> None:
        self._settings = settings
        self._modules = modules
        self._command = command
        self._server = server
        self._web = web
        self._announced = False
        self._late_at = time.monotonic() + START_SECONDS
        self._runtime = Runtime(settings)
        self._outage = Outage(logger, "the embedded server")
        self._restarts = Restarts(_SERVERS_RESTARTS)
        self._restart_at = 0.0
        self._stop_seconds = settings.shutdown_timeout + STOP_MARGIN
        self._environ = _environment(settings)
        workers = [f"worker-{number}" for number in range(1, settings.workers + 1)]
        roles = ["supervisor", *workers, *(["web"] if web else [])]
        self._keeper = Keeper([self._child(role) for role in roles])

    def run(self, signals: Signals, seconds: float | None, orphaned: Callable[[], bool]) -> int:
        """Until a signal, until `seconds` have passed, until the command ends, or until a child is given up."""
        ends = math.inf if seconds is None else time.monotonic() + seconds
        try:
            return self._keeper.run(
                signals,
                timeout=self._stop_seconds,
                orphaned=lambda: orphaned() or time.monotonic() >= ends,
                beside=self._look_after,
            )
        finally:
            self._runtime.close()
            logger.info("everything has stopped")

    def _child(self, name: str) -> ChildSpec:
        """One of Seawall's own processes: `worker-2` runs the command `worker`. Files of the current folder hide nothing."""
        role = name.partition("-")[0]
        command = (sys.executable, "-P", "-m", "seawall", role)
        argv = (*command, "--parent", str(os.getpid()), "--name", name, *self._modules)
        return ChildSpec(name, argv, self._environ, self._stop_seconds, without=_kept_from(role))

    def _look_after(self) -> None:
        """Called several times a second, by the thread that started the server: it dies with that one."""
        self._look_after_server()
        if not self._announced and (fleet := self._complete_fleet()):
            self._announced = True
            click.echo(screen(self._settings, fleet, self._server, self._modules, web=self._web))
            if self._command:
                self._keeper.add(self._users_program())

    def _users_program(self) -> ChildSpec:
        name = os.path.basename(self._command[0])
        kept = _kept_from("program")
        return ChildSpec(name, self._command, self._environ, self._stop_seconds, restart=False, without=kept)

    def _look_after_server(self) -> None:
        """Start the embedded server again when it has died. What keeps it from starting, such as a full disk, may pass."""
        server, now = self._server, time.monotonic()
        if server is None or (server.pid is not None and server.poll() is None):
            self._outage.over()
            return
        self._outage.begins(RuntimeError(f"it ended with {server.poll()}"))
        if now < self._restart_at:
            return
        try:
            server.restart()
        except (BrokerUnavailable, ConfigurationError, OSError) as error:
            delay = self._restarts.after_death(now, 0.0) or _SERVERS_RESTARTS.longest_delay
            self._restart_at = time.monotonic() + delay
            logger.error("the embedded server does not start, tried again in %.1f s: %s", delay, error)
        else:
            self._restarts = Restarts(_SERVERS_RESTARTS)

    def _complete_fleet(self) -> Fleet | None:
        """The fleet once a supervisor leads, every worker of ours has reported, and the web process listens."""
        missing = ""
        try:
            fleet = read_fleet(self._runtime, registry)
            missing = self._missing(fleet)
            if not missing:
                return fleet
        except BrokerUnavailable as error:
            missing = str(error)
        if time.monotonic() > self._late_at:
            self._late_at = math.inf
            logger.warning("not everything runs after %g s: %s", START_SECONDS, missing)
        return None

    def _missing(self, fleet: Fleet) -> str:
        """What the fleet lacks, in words; nothing when it is complete."""
        pids = self._keeper.pids
        ours = {pid for name, pid in pids.items() if name.startswith("worker-")}
        ready = ours & {worker.get("pid") for worker in fleet.workers}
        if len(ready) < self._settings.workers:
            return f"{len(ready)} of {self._settings.workers} workers serve"
        if not fleet.leader:
            return "no supervisor leads"
        if self._web and not _listens(self._settings.web_host, self._settings.web_port):
            return "the web process does not listen"
        return ""


def _environment(settings: Settings) -> Mapping[str, str]:
    """What the children need beside this process's own: the broker's URL, and what was given as an option."""
    environ = {"broker_url": settings.broker_url, "require_broker": "1", "web_port": str(settings.web_port)}
    environ |= {name: str(getattr(settings, name)) for name in _TOLD if settings.sources.get(name) == "argument"}
    return {SETTINGS[name].variable: value for name, value in environ.items()}


def _kept_from(role: str) -> list[str]:
    """Variables with secrets that are none of its business. Everybody has the broker's password: it is in the URL."""
    return [SETTINGS[name].variable for name in _SECRETS if name not in _NEEDED[role]]


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.2).close()
    except OSError:
        return False
    return True
