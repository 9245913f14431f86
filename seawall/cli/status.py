"""`seawall status`: the fleet as a table, or as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import click

from seawall.boot import boot
from seawall.cli.completion import complete_service
from seawall.cli.options import modules_argument, settings_options
from seawall.cli.tables import console, duration
from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.exits import Exit
from seawall.fleet import COUNTED, Fleet, ServiceLine, read_fleet
from seawall.kinds import nearest
from seawall.runtime import Runtime, registry

__all__ = ["fleet_table", "status"]

#: Seconds between two looks of --watch.
WATCH_SECONDS = 1.0
_STYLES = {"closed": "green", "open": "bold red", "half_open": "yellow"}
_NUMBERS = {"QUEUED": "queued", "HELD": "held", "LATER": "due_later", "RUNNING": "running", "DEAD": "dead"}


@click.command(short_help="Show breakers, queues, workers and supervisors.")
@modules_argument
@click.option(
    "--service",
    "keys",
    multiple=True,
    metavar="KEY",
    shell_complete=complete_service,
    help="Only this service; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one object a line.")
@click.option("--watch", is_flag=True, help="Stay until ctrl-C, and update every second.")
@click.option("--check", "check_open", is_flag=True, help="Exit with 1 when a breaker is not closed.")
@settings_options
def status(
    modules: tuple[str, ...], keys: tuple[str, ...], as_json: bool, watch: bool, check_open: bool, **arguments: Any
) -> int:
    """Show breakers, queues, workers and supervisors of the whole fleet.

    QUEUED calls wait for a worker, HELD ones for an open breaker, LATER ones for their next attempt; DEAD ones are
    dead letters. Naming a MODULE adds services that no worker has served yet.
    """
    if watch and check_open:
        raise click.UsageError("--watch and --check exclude each other")
    _, runtime = boot(arguments, modules, process="status", for_people=True)
    read = partial(_read, runtime, keys)
    if watch:
        return _watch(read, as_json)
    fleet = read()
    if as_json:
        click.echo(json.dumps(fleet.as_json(), indent=2))
    else:
        console().print(fleet_table(fleet), _footer(fleet), sep="\n")
    sick = any(line.breaker["state"] != "closed" for line in fleet.services)
    return Exit.FAILED if check_open and sick else Exit.OK


def _read(runtime: Runtime, keys: tuple[str, ...]) -> Fleet:
    """The fleet, with these services only if any are named. Raises ConfigurationError for a service that nobody knows."""
    fleet = read_fleet(runtime, registry)
    if not keys:
        return fleet
    known = [line.key for line in fleet.services]
    for key in keys:
        if key not in known:
            listed = ", ".join(known) or "none; its workers have not started yet"
            raise ConfigurationError(f"no service {key!r} is known{nearest(key, known)} (known: {listed})")
    return replace(fleet, services=[line for line in fleet.services if line.key in keys])


def _watch(read: Callable[[], Fleet], as_json: bool) -> int:
    """Until ctrl-C. An outage of the broker is shown, and survived."""
    try:
        if as_json:
            _watch_lines(read)
        else:
            _watch_table(read)
    except KeyboardInterrupt:
        return Exit.OK


def _watch_lines(read: Callable[[], Fleet]) -> NoReturn:
    while True:
        try:
            shown = read().as_json()
        except BrokerUnavailable as error:
            shown = {"error": str(error)}
        click.echo(json.dumps(shown))
        time.sleep(WATCH_SECONDS)


def _watch_table(read: Callable[[], Fleet]) -> NoReturn:
    from rich.live import Live

    screen = console()
    if not sys.stdout.isatty():
        while True:
            screen.print(_view(read))
            time.sleep(WATCH_SECONDS)
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            live.update(_view(read), refresh=True)
            time.sleep(WATCH_SECONDS)


def _view(read: Callable[[], Fleet]) -> Any:
    from rich.console import Group
    from rich.text import Text

    clock = time.strftime("%H:%M:%S")
    try:
        fleet = read()
    except BrokerUnavailable as error:
        return Text(f"{clock}  {error}", style="bold red")
    return Group(fleet_table(fleet), _footer(fleet, clock))


def fleet_table(fleet: Fleet) -> Any:
    """One row per service, the sick ones first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("SERVICE", "BREAKER", "MEANING"):
        table.add_column(name)
    for name in (*_NUMBERS, "WORKERS"):
        table.add_column(name, justify="right")
    for line in sorted(fleet.services, key=lambda line: (_is_well(line), line.key)):
        state = line.breaker["state"]
        table.add_row(line.key, Text(state, _STYLES[state]), Text(_meaning(line)), *_figures(line))
    return table


def _is_well(line: ServiceLine) -> bool:
    """Nobody needs to look at it: its breaker is closed, it is not paused, and a worker serves it."""
    return line.breaker["state"] == "closed" and not line.paused and bool(line.waited.workers)


def _figures(line: ServiceLine) -> list[Any]:
    from rich.text import Text

    row = line.as_json()
    styles = {"held": "yellow", "dead": "yellow"}
    figures = [Text(str(row[name]), styles.get(name, "") if row[name] else "dim") for name in _NUMBERS.values()]
    return [*figures, Text(str(row["workers"]), "" if row["workers"] else "bold red")]


def _meaning(line: ServiceLine) -> str:
    breaker = line.breaker
    why = f": {breaker['last_error']}" if breaker["last_error"] else ""
    if breaker["state"] == "closed":
        if line.paused:
            waits = f"{line.held:,} call{' waits' if line.held == 1 else 's wait'}"
            return f"paused by hand, {waits}; `seawall resume {line.key}` lets it go on"
        failures = breaker["consecutive_failures"]
        if line.waiting and not line.waited.workers:
            return f"{line.waiting} call(s) wait, and no worker serves them"
        if not line.waited.workers and not failures:
            return "no worker serves it"
        return f"{failures} of {breaker['failure_threshold']} failures{why}" if failures else "healthy"
    if breaker["forced"]:
        return f"held open by hand; `seawall breaker close {line.key}` closes it"
    if breaker["state"] == "half_open":
        return "a trial is being made, or waits for the next call"
    since = max(0.0, breaker["as_of"] - (breaker["opened_at"] or breaker["as_of"]))
    return f"for {duration(since)}, next trial {_soon(breaker['retry_after'])}{why}"


def _soon(seconds: float) -> str:
    return f"in {duration(seconds)}" if seconds >= 0.5 else "now"


def _footer(fleet: Fleet, clock: str = "") -> Any:
    from rich.text import Text

    slots = sum(worker.get("slots", 0) for worker in fleet.workers)
    workers = (
        f"{_count(fleet.workers, 'worker')} with {slots} slots" if fleet.workers else "[bold red]no worker runs[/]"
    )
    leads = f"{fleet.leader} leads" if fleet.leader else "[yellow]no supervisor leads[/]"
    services = "" if fleet.services else "no service is known: name a MODULE, or start a worker\n"
    services += "".join(f"{line.key}: {counted}\n" for line in fleet.services if (counted := _counted(line)))
    parts = [workers, _count(fleet.supervisors, "supervisor"), leads, *([clock] if clock else [])]
    return Text.from_markup(f"{services}\n{' · '.join(parts)}")


def _counted(line: ServiceLine) -> str:
    """What was counted of its background calls, in words; nothing where nothing was."""
    return ", ".join(f"{times:,} {what.replace('_', ' ')}" for what in COUNTED if (times := line.tally.get(what)))


def _count(things: list[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
