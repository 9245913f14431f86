"""`seawall check`: find a bad configuration before anything starts."""

from __future__ import annotations

from typing import Any

import click

from seawall.check import run_checks
from seawall.cli.options import modules_argument, settings_options
from seawall.exits import Exit
from seawall.kinds import Problem
from seawall.redis_link import shown_url
from seawall.runtime import registry
from seawall.settings import Settings, read_settings

__all__ = ["check"]

_COLORS = {"error": "red", "warning": "yellow"}


@click.command(short_help="Find what is wrong before anything starts.")
@modules_argument
@click.option("--show", is_flag=True, help="Print every setting, its value and where it came from.")
@settings_options
def check(modules: tuple[str, ...], show: bool, **arguments: Any) -> int:
    """Find what is wrong with settings, services and broker, before anything starts.

    Imports each MODULE, as `up` and `worker` would. Exits with 1 when there is an error; warnings are only printed.
    """
    settings, found = read_settings(arguments)
    found = [*found, *run_checks(settings, modules)]
    if show:
        _show(settings.rows())
    for problem in dict.fromkeys(found):
        click.echo(click.style(f"{problem.severity}: ", fg=_COLORS[problem.severity], bold=True) + str(problem))
    errors = sum(problem.severity == "error" for problem in found)
    if not errors:
        click.echo(_verdict(settings, found))
    return Exit.FAILED if errors else Exit.OK


def _show(rows: list[tuple[str, str, str]]) -> None:
    wide = max(len(name) for name, _, _ in rows)
    broad = min(60, max(len(value) for _, value, _ in rows))
    for name, value, source in rows:
        click.echo(f"{name:<{wide}}  {value or '-':<{broad}}  {source}")
    click.echo()


def _verdict(settings: Settings, warnings: list[Problem]) -> str:
    """That all is well, and what it was that was looked at."""
    services = len({service.key for service in registry.all()} | {table.key for table in settings.services})
    what = f"{services} service{'' if services == 1 else 's'}"
    where = (
        "no broker, calls are kept in memory" if settings.memory_mode else f"broker {shown_url(settings.broker_url)}"
    )
    word = click.style("no error" if warnings else "all is well", fg="green", bold=True)
    return f"{word}: {what}, {where}"
