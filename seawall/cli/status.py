"""`seawall status`: the fleet as a table, or as JSON."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from seawall.boot import boot
from seawall.cli.options import modules_argument, settings_options
from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.exits import Exit
from seawall.fleet import Fleet, ServiceLine, read_fleet
from seawall.runtime import Runtime, registry

__all__ = ["fleet_table", "status"]

#: Seconds between two looks of --watch.
WATCH_SECONDS = 1.0
_STYLES = {"closed": "green", "open": "bold red", "half_open": "yellow"}


@click.command()
@modules_argument
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Stay, and update every second.")
@click.option("--check", "check_open", is_flag=True, help="Exit with 1 when a breaker is not closed.")
def status(modules: tuple[str, ...], as_json: bool, watch: bool, check_open: bool, **arguments: Any) -> int:
    """Breakers, queues, workers and supervisors, fleet-wide."""
    _, runtime = boot(arguments, modules, process="status")
    if watch:
        _watch(runtime, as_json)
        return Exit.OK
    fleet = read_fleet(runtime, registry)
    if as_json:
        click.echo(json.dumps(fleet.as_json(), indent=2))
    else:
        _console().print(fleet_table(fleet), _footer(fleet), sep="\n")
    sick = any(line.breaker["state"] != "closed" for line in fleet.services)
    return Exit.FAILED if check_open and sick else Exit.OK


def _watch(runtime: Runtime, as_json: bool) -> None:
    """Until ctrl-C. An outage of the broker is shown, and survived."""
    if as_json:
        while True:
            click.echo(json.dumps(read_fleet(runtime, registry).as_json()))
            time.sleep(WATCH_SECONDS)
    from rich.console import Group
    from rich.live import Live

    with Live(console=_console(), refresh_per_second=4) as live:
        while True:
            try:
                fleet = read_fleet(runtime, registry)
                live.update(Group(fleet_table(fleet), _footer(fleet)))
            except BrokerUnavailable as error:
                live.update(f"[bold red]no contact:[/] {error}")
            time.sleep(WATCH_SECONDS)


def fleet_table(fleet: Fleet) -> Any:
    """One row per service, the sick ones first."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("SERVICE", "left"), ("BREAKER", "left"), ("MEANING", "left"), ("QUEUED", "right"), ("HELD", "right"),
        ("LATER", "right"), ("RUNNING", "right"), ("DEAD", "right"), ("WORKERS", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for line in sorted(fleet.services, key=lambda line: (line.breaker["state"] == "closed", line.key)):
        row, state = line.as_json(), line.breaker["state"]
        numbers = [str(row[name]) for name in ("queued", "held", "due_later", "running", "dead", "workers")]
        table.add_row(line.key, f"[{_STYLES[state]}]{state}[/]", _meaning(line), *numbers)
    return table


def _meaning(line: ServiceLine) -> str:
    breaker = line.breaker
    if breaker["state"] == "closed":
        failures = breaker["consecutive_failures"]
        return f"{failures} of {breaker['failure_threshold']} failures" if failures else "healthy"
    if breaker["state"] == "half_open":
        return "a trial is under way or free to be taken"
    since = max(0.0, time.time() - (breaker["opened_at"] or time.time()))
    return f"open for {since:.0f} s, next trial in {breaker['retry_after']:.0f} s"


def _footer(fleet: Fleet) -> str:
    slots = sum(worker.get("slots", 0) for worker in fleet.workers)
    leader = f"leader {fleet.leader}" if fleet.leader else "[yellow]no supervisor leads[/]"
    workers = f"{len(fleet.workers)} worker(s) with {slots} slots" if fleet.workers else "[bold red]no worker runs[/]"
    return f"\n{workers} · {len(fleet.supervisors)} supervisor(s) · {leader}"


def _console() -> Any:
    try:
        from rich.console import Console
    except ModuleNotFoundError as error:
        raise ConfigurationError("tables need rich: pip install 'seawall[server]', or use --json") from error
    return Console(soft_wrap=False)
