"""docs/commands.md says what the command does."""

from __future__ import annotations

import click

from seawall.cli.main import cli
from tests.support.commands_page import COMMON, PAGE, commands, with_commands


def test_page_has_every_command_with_its_options_as_they_are_now() -> None:
    """`make docs` writes them."""
    page = PAGE.read_text("utf-8")
    assert page == with_commands(page)
    for name, _ in commands():
        assert f"    seawall {name} " in page
    for heading in cli.commands:
        assert f"### seawall {heading}\n" in page


def test_common_options_are_common() -> None:
    """All of them, or none: the page describes them once."""
    for name, command in commands():
        have = [option.name for option in command.params if isinstance(option, click.Option) and option.name in COMMON]
        assert have in ([], list(COMMON)), name
