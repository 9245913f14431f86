"""`seawall check`: find a bad configuration before anything starts."""

from __future__ import annotations

from typing import Any

import click

from seawall.check import run_checks
from seawall.cli.options import modules_argument, settings_options
from seawall.exits import Exit
from seawall.settings import read_settings

__all__ = ["check"]


@click.command()
@modules_argument
@settings_options
@click.option("--show", is_flag=True, help="Print every setting, its value and where it came from.")
def check(modules: tuple[str, ...], show: bool, **arguments: Any) -> int:
    """Look at settings, services and broker. Exits with 1 when there is an error; warnings are only printed."""
    settings, problems = read_settings(arguments)
    if show:
        _show(settings.rows())
    problems = [*problems, *run_checks(settings, modules)]
    for problem in problems:
        color = "red" if problem.severity == "error" else "yellow"
        click.echo(click.style(f"{problem.severity}: ", fg=color, bold=True) + str(problem))
    errors = sum(problem.severity == "error" for problem in problems)
    if not problems:
        click.echo(click.style("all is well", fg="green"))
    elif not errors:
        click.echo(f"{len(problems)} warning(s), no error")
    return Exit.FAILED if errors else Exit.OK


def _show(rows: list[tuple[str, str, str]]) -> None:
    wide = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        click.echo(f"{name:<{wide}}  {value or '-':<40}  {source}")
