"""How the command's help is arranged, and what a misspelt word is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from seawall.kinds import nearest

__all__ = ["Group"]


class Group(click.Group):
    """A group that lists its commands in the order given, under headings, and suggests one for a misspelt name."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[click.Command]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.sections = sections
        for command in (command for commands in sections.values() for command in commands):
            self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        wide = max(len(name) for name in self.commands)
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                rows = [(f"{command.name:<{wide}}", command.get_short_help_str(limit=80)) for command in commands]
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            ctx.fail(f"there is no command {word!r}{nearest(word, self.commands)}")
        return super().resolve_command(ctx, args)
