"""`seawall worker`, `seawall supervisor`, `seawall web`: the processes that the Procfile names."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, NoReturn

import click

from seawall.boot import boot
from seawall.cli.options import child_options, modules_argument, settings_options
from seawall.errors import ConfigurationError
from seawall.exits import Exit
from seawall.fleet import read_fleet
from seawall.runtime import Runtime, registry
from seawall.signals import ParentWatch, Signals
from seawall.supervising import make_supervisor
from seawall.workers.process import End, run_worker
from seawall.workers.worker import CallWorker

__all__ = ["supervisor", "web", "worker"]

logger = logging.getLogger("seawall")


@click.command()
@modules_argument
@settings_options
@click.option("--shutdown-timeout", type=float, help="Seconds between SIGTERM and exit.")
@child_options
def worker(modules: tuple[str, ...], parent: int, process_name: str | None, **arguments: Any) -> int:
    """Run the calls of the services that MODULE (or seawall.toml) declares.

    SIGTERM drains and exits in time, a second one exits at once, SIGHUP drains and starts afresh.
    """
    with Signals() as signals:
        settings, runtime = boot(arguments, modules, process="worker", name=process_name)
        _need_services("worker")
        runner = CallWorker(runtime.engine, runtime.views, runtime.token)
        runner.serve(registry.all())
        registry.on_declare(lambda service: runner.serve([service]))
        logger.info("serving %s", ", ".join(sorted(service.key for service in registry.all())))
        orphaned = ParentWatch(parent).orphaned
        end = run_worker(runner, signals, shutdown_timeout=settings.shutdown_timeout, orphaned=orphaned)
        if end is End.CUT_OFF:
            logging.shutdown()
            os._exit(Exit.CUT_OFF)
        _close(runtime)
    if end is End.RELOAD:
        _start_afresh()
    return Exit.OK


@click.command()
@modules_argument
@settings_options
@child_options
def supervisor(modules: tuple[str, ...], parent: int, process_name: str | None, **arguments: Any) -> int:
    """Hold the breakers' timers, try whether sick services are back, return dead workers' calls.

    Run two of them: one leads, the other takes over. MODULE declares the services, for their health paths.
    """
    with Signals() as signals:
        _, runtime = boot(arguments, modules, process="supervisor", name=process_name)
        code = make_supervisor(runtime, registry).run(signals, orphaned=ParentWatch(parent).orphaned)
        if code is Exit.CUT_OFF:
            logging.shutdown()
            os._exit(Exit.CUT_OFF)
        _close(runtime)
    if code is None:
        _start_afresh()
    return code


@click.command()
@modules_argument
@settings_options
@click.option("--host", "web_host", help="The address to listen on.")
@click.option("--port", "web_port", type=int, help="The port to listen on; 0 takes a free one.")
@child_options
def web(modules: tuple[str, ...], parent: int, process_name: str | None, **arguments: Any) -> int:
    """Answer /v1/api/status/services, /healthz and /readyz."""
    settings, runtime = boot(arguments, modules, process="web", name=process_name)
    try:
        from seawall.webserver import serve
    except ModuleNotFoundError as error:
        raise ConfigurationError("the web process needs its extra: pip install 'seawall[server]'") from error
    orphaned = ParentWatch(parent).orphaned
    return serve(lambda: read_fleet(runtime, registry).as_json(), settings.web_host, settings.web_port, orphaned)


def _need_services(process: str) -> None:
    if not registry.all():
        raise ConfigurationError(
            f"`seawall {process}` has no service to serve: name a module that creates clients, such as "
            f"`seawall {process} app.services`, or declare services in seawall.toml"
        )


def _close(runtime: Runtime) -> None:
    from seawall import runtime as runtimes

    runtimes.replace(None)
    runtime.close()


def _start_afresh() -> NoReturn:
    """The same command in the same process: new code, new settings, same process id."""
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, "-m", "seawall", *sys.argv[1:]])  # noqa: S606 - our own arguments
