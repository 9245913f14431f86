"""`seawall health`: one look at a process of this host, for a container's probe."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

import click

from seawall.boot import boot
from seawall.cli.options import modules_argument, setting_option, settings_options
from seawall.errors import BrokerUnavailable
from seawall.exits import Exit
from seawall.fleet import Fleet, read_fleet
from seawall.health import Checks, Meant, health, supervisor_checks, web_checks, worker_checks
from seawall.patience import within
from seawall.runtime import Runtime, registry
from seawall.settings import load_settings

__all__ = ["health_command"]

#: Seconds for the broker's, or the web process's, answer; a probe has one second by default.
PATIENCE = 0.8


@click.command("health", short_help="Tell a container's probe whether a process is at work.")
@modules_argument
@click.option(
    "--role",
    type=click.Choice(["worker", "supervisor", "web"]),
    required=True,
    metavar="ROLE",
    help="worker, supervisor or web.",
)
@click.option("--pid", type=click.IntRange(min=1), metavar="PID", help="That process; else any of this host.")
@click.option("--id", "name", metavar="ID", help="That worker or supervisor, as `seawall status --json` names it.")
@setting_option("web_port", "--port", metavar="PORT", help="The web process's port.")
@setting_option("web_host", "--host", metavar="ADDRESS", help="The web process's address.")
@settings_options
def health_command(modules: tuple[str, ...], role: str, pid: int | None, name: str | None, **arguments: Any) -> int:
    """Tell a container's probe whether a process of this host is at work.

    A worker has a fresh heartbeat, and serves the services of each MODULE and of seawall.toml; a supervisor has reported
    lately; a web process answers. Prints application/health+json. Exits with 0 when all is well, with 1 when not, and
    with 69 when the broker cannot be asked: no fault of the process, which a restart would not mend.
    """
    if role == "web":
        settings = load_settings(arguments)
        return _end(web_checks(settings.web_host, settings.web_port, PATIENCE))
    _, runtime = boot(arguments, modules, process="health", for_people=True)
    try:
        fleet = _fleet(runtime)
    except BrokerUnavailable as error:
        _end({"broker": {"status": "fail", "output": str(error)}})
        return Exit.UNAVAILABLE
    meant = _meant(pid, name)
    if role == "supervisor":
        return _end(supervisor_checks(fleet, meant))
    return _end(worker_checks(fleet, meant, [service.key for service in registry.own()]))


def _end(checks: Checks) -> int:
    found = health(checks)
    click.echo(json.dumps(found))
    return Exit.FAILED if found["status"] == "fail" else Exit.OK


def _meant(pid: int | None, name: str | None) -> Meant:
    host = socket.gethostname()

    def meant(report: Mapping[str, Any]) -> bool:
        if name is not None:
            return report.get("id") == name
        return report.get("host") == host and pid in (None, report.get("pid"))

    return meant


def _fleet(runtime: Runtime) -> Fleet:
    """As `read_fleet`, within PATIENCE seconds."""

    def ask() -> Fleet | BrokerUnavailable:
        try:
            return read_fleet(runtime, registry)
        except BrokerUnavailable as error:
            return error

    silent: Fleet | BrokerUnavailable = BrokerUnavailable(f"the broker does not answer within {PATIENCE} s")
    answer = within(PATIENCE, ask, silent)
    if isinstance(answer, BrokerUnavailable):
        raise answer
    return answer
