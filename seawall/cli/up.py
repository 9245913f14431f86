"""`seawall up`: everything on one host, with a durable queue of its own where no other is configured."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from seawall.boot import import_modules
from seawall.cli.options import settings_options
from seawall.embedded import EmbeddedServer
from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.exits import Exit
from seawall.fleet import Fleet, read_fleet
from seawall.logs import setup_logging
from seawall.outage import Outage
from seawall.redis_link import shown_url
from seawall.runtime import Runtime, registry
from seawall.settings import Settings, load_settings
from seawall.signals import Signals
from seawall.supervisor.processes import ChildSpec, Keeper

__all__ = ["up"]

logger = logging.getLogger("seawall.up")

#: Seconds between two looks at the children and the server; a dead one is started again within this and its delay.
LOOK_SECONDS = 0.2
#: Seconds in which the fleet must be complete.
START_SECONDS = 30.0
#: Seconds beyond the workers' own shutdown timeout, after which what is left is killed.
STOP_MARGIN = 3.0


@click.command()
@click.argument("modules_and_command", nargs=-1, type=click.UNPROCESSED, metavar="[MODULE]... [-- COMMAND...]")
@settings_options
@click.option("--workers", type=int, help="Worker processes.")
@click.option("--port", "web_port", type=int, help="The web process's port; 0 takes a free one.")
@click.option("--no-web", is_flag=True, help="Run no web process.")
@click.option("--data-dir", type=click.Path(file_okay=False), help="Where the embedded server keeps its data.")
@click.option("--seconds", type=float, help="Stop after so many seconds.")
def up(
    modules_and_command: tuple[str, ...],
    no_web: bool,
    seconds: float | None,
    **arguments: Any,
) -> int:
    """Run a broker, a supervisor, workers and the web process, and COMMAND beside them with the URL set.

    MODULE creates your clients. With no broker URL a private Valkey is started; its data lies under .seawall/. What
    dies is started again; SIGTERM and ctrl-C stop everything. When COMMAND ends, so does the rest, with its exit code.
    """
    modules, command = _split(modules_and_command, sys.argv)
    with Signals(hangup_stops=True) as signals:
        settings = load_settings(arguments)
        setup_logging(settings.log_format, settings.log_level, process="up")
        import_modules(modules)
        if not registry.all() and not settings.services:
            raise ConfigurationError(
                "no service is declared: name a module that creates clients, such as `seawall up app.services`, "
                "or declare services in seawall.toml"
            )
        with _broker(settings) as (server, url):
            settings = replace(settings, broker_url=url, web_port=settings.web_port or free_port(settings.web_host))
            house = House(settings, modules, command, server, web=not no_web)
            return house.run(signals, seconds)


def _split(words: Sequence[str], argv: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Modules before `--`, a command after it; click itself drops the `--`."""
    if "--" not in argv:
        return tuple(words), ()
    after = tuple(argv[list(argv).index("--") + 1 :])
    return tuple(words[: len(words) - len(after)]), after


@contextlib.contextmanager
def _broker(settings: Settings) -> Iterator[tuple[EmbeddedServer | None, str]]:
    """The configured broker, or a private one for as long as this lasts."""
    if not settings.memory_mode:
        yield None, settings.broker_url
        return
    server = EmbeddedServer(settings.data_dir)
    server.start()
    try:
        yield server, server.url
    finally:
        server.stop()


class House:
    """What `up` runs. The children are kept by a Keeper; the server and the user's command by this loop."""

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
        self._server = server
        self._outage = Outage(logger, "the embedded server")
        self._stop_seconds = settings.shutdown_timeout + STOP_MARGIN
        self._environ = _environment(settings)
        self._modules = modules
        self._command = command
        self._web = web
        roles = [
            "supervisor",
            *(f"worker-{number}" for number in range(1, settings.workers + 1)),
            *(["web"] if web else []),
        ]
        self._keeper = Keeper([self._child(role) for role in roles])

    def _child(self, name: str) -> ChildSpec:
        """One of Seawall's own processes: `worker-2` runs the command `worker`."""
        command = name.partition("-")[0]
        argv = (sys.executable, "-m", "seawall", command, "--parent", str(os.getpid()), "--name", name, *self._modules)
        return ChildSpec(name=name, argv=argv, env=self._environ, grace=self._stop_seconds)

    def run(self, signals: Signals, seconds: float | None) -> int:
        """Until a signal, until `seconds` have passed, until the command ends, or until a child is given up."""
        ends = None if seconds is None else time.monotonic() + seconds
        self._keeper.start()
        try:
            fleet = self._wait_until_complete(signals)
            if fleet is not None:
                click.echo(screen(self._settings, fleet, self._server, self._modules, web=self._web))
                self._start_command()
            return self._watch(signals, ends)
        finally:
            stops = signals.stop_count
            self._keeper.stop(self._stop_seconds, hurry=lambda: signals.stop_count > max(1, stops))

    def _start_command(self) -> None:
        if self._command:
            self._keeper.add(
                ChildSpec(
                    name=self._command[0],
                    argv=self._command,
                    env=self._environ,
                    grace=self._stop_seconds,
                    restart=False,
                )
            )

    def _watch(self, signals: Signals, ends: float | None) -> int:
        while not signals.stop_requested and (ends is None or time.monotonic() < ends):
            self._look_after_server()
            self._keeper.poll()
            if self._keeper.verdict is not None:
                return self._keeper.verdict
            signals.wait(LOOK_SECONDS)
        return Exit.OK

    def _look_after_server(self) -> None:
        """Start the embedded server again when it has died. On the main thread: it dies with the thread that starts it."""
        server = self._server
        if server is None or server.poll() is None:
            self._outage.over()
            return
        self._outage.begins(RuntimeError(f"it ended with {server.poll()}"))
        try:
            server.restart()
        except (BrokerUnavailable, ConfigurationError) as error:
            logger.error("the embedded server does not start: %s", error)

    def _wait_until_complete(self, signals: Signals) -> Fleet | None:
        """The fleet once a supervisor leads and every worker has reported; None when a signal came first."""
        runtime = Runtime(self._settings)
        give_up = time.monotonic() + START_SECONDS
        try:
            while not signals.stop_requested:
                with contextlib.suppress(BrokerUnavailable):
                    fleet = read_fleet(runtime, registry)
                    if len(fleet.workers) >= self._settings.workers and fleet.leader:
                        return fleet
                if self._keeper.verdict is not None or time.monotonic() > give_up:
                    raise ConfigurationError("the processes do not come up; their messages above say why")
                self._look_after_server()
                self._keeper.poll()
                signals.wait(0.05)
            return None
        finally:
            runtime.close()


def _environment(settings: Settings) -> Mapping[str, str]:
    """What the children need beside this process's own: the broker's URL, and what was given as an option."""
    environ = {"SEAWALL_BROKER_URL": settings.broker_url, "SEAWALL_REQUIRE_BROKER": "1"}
    for name in ("namespace", "log_format", "log_level", "web_port", "web_host"):
        if settings.sources.get(name) == "argument" or name == "web_port":
            environ[f"SEAWALL_{name.upper()}"] = str(getattr(settings, name))
    return environ


def free_port(host: str) -> int:
    """A port that was free a moment ago, to be told to the web process and to people."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def screen(
    settings: Settings, fleet: Fleet, server: EmbeddedServer | None, modules: Sequence[str], *, web: bool
) -> str:
    """One screen that says where everything is."""
    where = f"embedded Valkey, data in {server.folder}" if server is not None else shown_url(settings.broker_url)
    slots = sum(worker.get("slots", 0) for worker in fleet.workers)
    lines = [
        click.style("Seawall is up.", bold=True, fg="green") + "  ctrl-C stops it.",
        "",
        f"  broker      {where}",
        f"  supervisor  {fleet.leader}",
        f"  workers     {len(fleet.workers)} with {slots} slots in all",
    ]
    if web:
        lines.append(f"  status      http://{settings.web_host}:{settings.web_port}/v1/api/status/services")
    lines.append("  services    " + "\n              ".join(f"{s.key:<14} {s.origin}" for s in registry.all()))
    url = shlex.quote(settings.broker_url)
    lines += ["", "Point other programs at it:", f"  export SEAWALL_BROKER_URL={url}", ""]
    if registry.all():
        first = registry.all()[0]
        module = f" --module {modules[0]}" if modules else ""
        lines += ["Try, in another terminal:", f"  seawall call {first.key} GET {first.health_path or '/'}{module}", ""]
    return "\n".join(lines)
