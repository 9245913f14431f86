"""`seawall up`: everything on one host, with a durable queue of its own where no other is configured."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click

from seawall import runtime as runtimes
from seawall.boot import import_modules, refuse_gevent
from seawall.broker_check import require_fit_broker
from seawall.cli.house import House
from seawall.cli.options import child_options, setting_option, settings_options
from seawall.embedded import STOP_TIMEOUT, EmbeddedServer
from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.exits import Exit
from seawall.logs import setup_logging
from seawall.runtime import registry
from seawall.schedules import registry as schedules
from seawall.scheduling import schedule_problems
from seawall.settings import Settings, load_settings
from seawall.signals import ParentWatch, Signals, Stopped

__all__ = ["up"]

logger = logging.getLogger("seawall.up")

_COMMAND = "seawall.up.command"
#: Seconds that the embedded server has to end after a second signal; what it accepted is on disk already.
HURRIED_STOP = 1.0


class _WithCommand(click.Command):
    """A command whose arguments after `--` are another program's command line, options and all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, ctx.meta[_COMMAND] = args, ()
        if "--" in args:
            at = args.index("--")
            own, ctx.meta[_COMMAND] = args[:at], tuple(args[at + 1 :])
        return super().parse_args(ctx, own)


@click.command(cls=_WithCommand, short_help="Run a broker, a supervisor, workers and the web process.")
@click.argument("modules", nargs=-1, metavar="[MODULE]... [-- COMMAND [ARGUMENT]...]")
@setting_option("workers", "--workers", metavar="NUMBER", help="Worker processes. [default: 2]")
@setting_option("web_port", "--port", metavar="PORT", help="The web process's port; 0 takes a free one.")
@click.option("--no-web", is_flag=True, help="Run no web process.")
@setting_option("data_dir", "--data-dir", metavar="FOLDER", help="For the embedded server. [default: .seawall]")
@click.option("--seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop after so long.")
@settings_options
@child_options
@click.pass_context
def up(
    ctx: click.Context,
    /,
    modules: tuple[str, ...],
    no_web: bool,
    seconds: float | None,
    parent: int,
    process_name: str | None,
    **arguments: Any,
) -> int:
    """Run a broker, a supervisor, workers and the web process on this host.

    MODULE creates your clients. With no broker URL a private Valkey is started, which keeps its data under .seawall/.
    What dies is started again; SIGTERM and ctrl-C stop everything, and a second one stops it at once.

    COMMAND is your own program: it runs beside them with SEAWALL_BROKER_URL set. When it ends, everything does, with
    its exit code.
    """
    command: Sequence[str] = ctx.meta[_COMMAND]
    with Signals(hangup_stops=True) as signals:
        settings = load_settings(arguments)
        setup_logging(settings.log_format, settings.log_level, process=process_name or "up")
        with signals.starting(), schedules.without_broker():  # a private one is yet to be started
            import_modules(modules)
        refuse_gevent("up")
        _need_services(settings)
        if command and shutil.which(command[0]) is None:
            click.echo(f"seawall: {command[0]}: there is no such program", err=True)
            return Exit.NOT_FOUND
        with _broker(settings, signals) as (server, url):
            port = settings.web_port if no_web else _port(settings)
            house = House(replace(settings, broker_url=url, web_port=port), modules, command, server, web=not no_web)
            return house.run(signals, seconds, ParentWatch(parent).orphaned)


def _need_services(settings: Settings) -> None:
    if not registry.own() and not settings.services:
        raise ConfigurationError(
            "no service is declared: name a module that creates clients, such as `seawall up app.services`, "
            "or declare services in seawall.toml"
        )
    runtime = runtimes.replace(None)  # the modules' clients made one; nothing is called in this process
    if runtime is not None:
        runtime.close()
    for problem in schedule_problems(settings, registry.all()):
        raise ConfigurationError(str(problem))


def _port(settings: Settings) -> int:
    """The web process's port, known to be free a moment ago. Raises ConfigurationError before anything is started."""
    try:
        from seawall.webserver import address_problem
    except ModuleNotFoundError as error:
        text = "the web process needs its extra: pip install 'seawall[server]', or leave it out with --no-web"
        raise ConfigurationError(text) from error
    if problem := address_problem(settings):
        raise ConfigurationError(problem)
    return settings.web_port or _free_port(settings.web_host)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _broker(settings: Settings, signals: Signals) -> Iterator[tuple[EmbeddedServer | None, str]]:
    """The configured broker, found fit; or a private one for as long as this lasts."""
    if not settings.memory_mode:
        require_fit_broker(settings)
        yield None, settings.broker_url
        return
    server = EmbeddedServer(settings.data_dir, hurry=lambda: signals.stop_requested)
    try:
        server.start()
    except BrokerUnavailable:
        if signals.stop_requested:
            raise Stopped from None
        raise
    try:
        yield server, server.url
    finally:
        server.stop(STOP_TIMEOUT if signals.stop_count < 2 else HURRIED_STOP)
