"""`seawall worker`, `seawall supervisor`, `seawall web`: the processes that the Procfile names."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from seawall.boot import boot
from seawall.broker_check import BrokerWatch
from seawall.cli.options import child_options, modules_argument, setting_option, settings_options
from seawall.errors import ConfigurationError
from seawall.exits import Exit
from seawall.runtime import Runtime, registry
from seawall.signals import ParentWatch, Signals
from seawall.supervising import make_supervisor
from seawall.workers.process import End, run_worker
from seawall.workers.worker import CallWorker

__all__ = ["supervisor", "web", "worker"]

logger = logging.getLogger("seawall")


@click.command(short_help="Run calls.")
@modules_argument
@setting_option("shutdown_timeout", "--shutdown-timeout", metavar="SECONDS", help="Between SIGTERM and exit.")
@settings_options
@child_options
def worker(modules: tuple[str, ...], parent: int, process_name: str | None, **arguments: Any) -> int:
    """Run the calls of the services that MODULE (or seawall.toml) declares.

    SIGTERM finishes what runs, gives the rest back and exits in time; a second one exits at once. SIGHUP does the same
    and starts afresh, with new code and settings.
    """
    watch = BrokerWatch()
    with Signals() as signals:
        settings, runtime = boot(
            arguments, modules, process="worker", name=process_name, watch=watch, importing=signals.starting()
        )
        _need_services("worker")
        runner = CallWorker(runtime.engine, runtime.views, runtime.token)
        runner.serve(registry.all())
        registry.on_declare(lambda service: runner.serve([service]))
        logger.info("serving %s", ", ".join(sorted(service.key for service in registry.all())))
        useless = _useless(parent, watch)
        end = run_worker(runner, signals, shutdown_timeout=settings.shutdown_timeout, orphaned=useless)
        if end is End.CUT_OFF:
            logging.shutdown()
            os._exit(Exit.CUT_OFF)
        _close(runtime)
    watch.raise_refusal()
    if end is End.RELOAD:
        _start_afresh()
    return Exit.OK


@click.command(short_help="Try sick services, return the calls of dead workers.")
@modules_argument
@settings_options
@child_options
def supervisor(modules: tuple[str, ...], parent: int, process_name: str | None, **arguments: Any) -> int:
    """Try whether sick services are back, return the calls of dead workers, and queue the calls of schedules.

    Run two of them: one leads, the other takes over. MODULE declares the services, for their health paths, and the
    schedules. SIGTERM and SIGHUP are those of a worker.
    """
    watch = BrokerWatch()
    with Signals() as signals:
        _, runtime = boot(
            arguments, modules, process="supervisor", name=process_name, watch=watch, importing=signals.starting()
        )
        code = make_supervisor(runtime, registry).run(signals, orphaned=_useless(parent, watch))
        if code is Exit.CUT_OFF:
            logging.shutdown()
            os._exit(Exit.CUT_OFF)
        _close(runtime)
    watch.raise_refusal()
    if code is None:
        _start_afresh()
    return code


@click.command(short_help="Serve the status page, metrics and health.")
@modules_argument
@setting_option("web_port", "--port", metavar="PORT", help="The port to listen on; 0 takes a free one.")
@setting_option("web_host", "--host", metavar="ADDRESS", help="The address to listen on.")
@settings_options
@child_options
def web(modules: tuple[str, ...], parent: int, process_name: str | None, **arguments: Any) -> int:
    """Serve the status page, the fleet's numbers and health over HTTP.

    GET /: the page, with buttons. /metrics: for Prometheus. /v1/api/status/services: every service's breaker and queues. /v1/api/status: the same with workers and
    supervisors, as `seawall status --json`. /healthz: this process runs. /readyz: broker, supervisor and workers are
    there, else 503 with what is missing.

    Beyond this machine (--host) all but the last two need the token of SEAWALL_WEB_TOKEN or SEAWALL_WEB_TOKEN_FILE, as
    Authorization: Bearer TOKEN or, in a browser, at /login.
    """
    try:
        from seawall.cli.desk import FleetDesk
        from seawall.webserver import serve
    except ModuleNotFoundError as error:
        raise ConfigurationError("the web process needs its extra: pip install 'seawall[server]'") from error
    watch = BrokerWatch()
    with Signals() as signals:
        settings, runtime = boot(
            arguments, modules, process="web", name=process_name, watch=watch, importing=signals.starting()
        )
        code = serve(FleetDesk(runtime), settings, signals, _useless(parent, watch))
        _close(runtime)
    watch.raise_refusal()
    if code is None:
        _start_afresh()
    return code


def _need_services(process: str) -> None:
    if not registry.own():
        raise ConfigurationError(
            f"`seawall {process}` has no service to serve: name a module that creates clients, such as "
            f"`seawall {process} app.services`, or declare services in seawall.toml"
        )


def _useless(parent: int, watch: BrokerWatch) -> Callable[[], bool]:
    """Whether there is nobody left to work for: the parent is gone, or the broker has turned out to be unfit."""
    orphaned = ParentWatch(parent).orphaned
    return lambda: orphaned() or watch.refused


def _close(runtime: Runtime) -> None:
    from seawall import runtime as runtimes

    runtimes.replace(None)
    runtime.close()


def _start_afresh() -> NoReturn:
    """The same command in the same process: new code, new settings, same process id."""
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "seawall", *sys.argv[1:]])  # noqa: S606 - our own arguments
