"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["child_options", "modules_argument", "settings_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(command: Command) -> Command:
    """--broker-url, --namespace, --log-format and --log-level; they reach the command under their settings' names."""
    for option in (
        click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much to log."),
        click.option("--log-format", type=click.Choice(["text", "json"]), help="How to write the log."),
        click.option("--namespace", metavar="NAME", help="Prefix of every key on the broker."),
        click.option("--broker-url", metavar="URL", help="The broker, such as redis://localhost:6379/0."),
    ):
        command = option(command)
    return command


def modules_argument(command: Command) -> Command:
    """MODULE ...: the user's modules whose import creates the clients."""
    return click.argument("modules", nargs=-1, metavar="[MODULE]...")(command)


def child_options(command: Command) -> Command:
    """For processes that `seawall up` starts: --parent PID, stop when that one is gone; --name, as the log calls it."""
    command = click.option("--name", "process_name", hidden=True)(command)
    return click.option("--parent", type=int, default=0, hidden=True)(command)
