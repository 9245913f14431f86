"""`seawall check`: find a bad configuration before anything starts."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import click

from seawall.check import run_checks
from seawall.cli.options import json_option, modules_argument, settings_options
from seawall.exits import Exit
from seawall.kinds import Problem
from seawall.redis_link import shown_url
from seawall.runtime import registry
from seawall.schedules import registry as schedules
from seawall.settings import Settings, read_settings
from seawall.ticks import Ticks

__all__ = ["check"]

_COLORS = {"error": "red", "warning": "yellow"}


@click.command(short_help="Find what is wrong before anything starts.")
@modules_argument
@click.option("--show", is_flag=True, help="Print every setting, its value and where it came from, and every schedule.")
@json_option
@settings_options
def check(modules: tuple[str, ...], show: bool, as_json: bool, **arguments: Any) -> int:
    """Find what is wrong with settings, services and broker, before anything starts.

    Imports each MODULE, as `up` and `worker` would. Exits with 1 when there is an error; warnings are only printed.
    """
    settings, found = read_settings(arguments)
    found = list(dict.fromkeys([*found, *run_checks(settings, modules)]))
    errors = sum(problem.severity == "error" for problem in found)
    if as_json:
        click.echo(json.dumps(_as_json(settings, found, show), indent=2))
        return Exit.FAILED if errors else Exit.OK
    if show:
        _show(settings.rows())
        _show_schedules(settings)
    for problem in found:
        click.echo(click.style(f"{problem.severity}: ", fg=_COLORS[problem.severity], bold=True) + str(problem))
    if not errors:
        click.echo(_verdict(settings, found))
    return Exit.FAILED if errors else Exit.OK


def _as_json(settings: Settings, found: list[Problem], show: bool) -> dict[str, Any]:
    """In the form that docs/commands.md has; settings and schedules only if they are asked for."""
    shown: dict[str, Any] = {
        "ok": not any(problem.severity == "error" for problem in found),
        "problems": [{"severity": one.severity, "setting": one.setting, "text": one.text} for one in found],
    }
    if show:
        shown["settings"] = [
            {"name": name, "value": value, "source": source} for name, value, source in settings.rows()
        ]
        shown["schedules"] = [
            {"name": name, "service": service, "when": str(ticks), "next_at": ticks.after(time.time())}
            for name, (service, ticks) in _known_schedules(settings).items()
        ]
    return shown


def _show(rows: list[tuple[str, str, str]]) -> None:
    wide = max(len(name) for name, _, _ in rows)
    broad = min(60, max(len(value) for _, value, _ in rows))
    for name, value, source in rows:
        click.echo(f"{name:<{wide}}  {value or '-':<{broad}}  {source}")
    click.echo()


def _known_schedules(settings: Settings) -> dict[str, tuple[str, Ticks]]:
    """Service and ticks by name, of the file and of the modules that were named; code wins."""
    known = {table.name: (table.values["service"], table.ticks) for table in settings.schedules}
    return known | {schedule.name: (schedule.service.key, schedule.ticks) for schedule in schedules.all()}


def _show_schedules(settings: Settings) -> None:
    known = _known_schedules(settings)
    for name, (service, ticks) in known.items():
        moment = ticks.after(time.time())
        comes = "never" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
        click.echo(f"schedule {name}  {service}  {ticks}  next {comes}")
    if known:
        click.echo()


def _verdict(settings: Settings, warnings: list[Problem]) -> str:
    """That all is well, and what it was that was looked at."""
    services = len({service.key for service in registry.own()} | {table.key for table in settings.services})
    what = f"{services} service{'' if services == 1 else 's'}"
    where = (
        "no broker, calls are kept in memory" if settings.memory_mode else f"broker {shown_url(settings.broker_url)}"
    )
    word = click.style("no error" if warnings else "all is well", fg="green", bold=True)
    return f"{word}: {what}, {where}"
