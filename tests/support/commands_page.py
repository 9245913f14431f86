"""Writes the generated parts of docs/commands.md: `python -m tests.support.commands_page`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from seawall.cli.main import cli
from seawall.exits import Exit

__all__ = ["PAGE", "commands", "fields", "with_commands"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"

#: Options of nearly every command, described once.
COMMON = ("broker_url", "namespace", "log_format", "log_level")


def commands(group: click.Group = cli, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that can be run, by its name: `dead list`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def with_commands(page: str) -> str:
    """The page with usage, options and exit codes as the code has them now."""
    page = _filled(page, "common options", _options(dict(commands())["status"], common=True))
    page = _filled(page, "exit codes", _exits())
    for name, command in commands():
        page = _filled(page, name, _usage(name, command))
    return page


def fields(page: str, name: str) -> list[str]:
    """The fields that the table under `<!-- name -->` lists; a line may name several."""
    (table,) = re.findall(rf"<!-- {name} -->\n\n((?:\|.*\n)+)", page)
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    return [field for cell in cells for field in re.findall(r"`(\w+)`", cell)]


def _usage(name: str, command: click.Command) -> str:
    pieces = command.collect_usage_pieces(click.Context(command, info_name=name, **cli.context_settings))
    table = _options(command, common=False)
    usage = f"    seawall {name} {' '.join(pieces)}".rstrip()
    return f"{usage}\n\n{table}" if table else usage


def _options(command: click.Command, *, common: bool) -> str:
    rows = []
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden and (option.name in COMMON) is common:
            names = ", ".join(f"`{name}`" for name in option.opts)
            value = f" `{option.metavar}`" if option.metavar else ""
            default = f" Default: {option.default:g}." if isinstance(option.default, float) else ""
            rows.append(f"| {names}{value} | {option.help}{default} |")
    return "\n".join(["| option | meaning |", "|---|---|", *rows]) if rows else ""


def _exits() -> str:
    """The codes with the docstrings that follow them in the source."""
    source = Path(__file__).resolve().parents[2].joinpath("seawall", "exits.py").read_text("utf-8")
    about = dict(re.findall(r'^    ([A-Z_]+) = \d+\n    """(.*?)"""', source, flags=re.M))
    rows = [f"| {code.value} | {about.get(code.name, 'All went well.')} |" for code in Exit]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def _filled(page: str, name: str, text: str) -> str:
    start, end = rf"<!-- {name}: [^\n]*-->\n", "<!-- end -->"
    filled, times = re.subn(rf"({start}).*?({end})", lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page, flags=re.S)
    assert times == 1, f"the page has no place for {name}"
    return filled


if __name__ == "__main__":
    PAGE.write_text(with_commands(PAGE.read_text("utf-8")), "utf-8")
