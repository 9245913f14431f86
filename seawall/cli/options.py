"""Options that several commands share; those that are settings are checked as settings are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from seawall.settings import SETTINGS

__all__ = ["child_options", "json_option", "module_option", "modules_argument", "setting_option", "settings_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


def setting_option(name: str, flag: str, *, metavar: str, help: str) -> Callable[[Command], Command]:
    """An option that overrides the setting `name`. A value that the setting would refuse is a usage error."""

    def check(ctx: click.Context, parameter: click.Parameter, given: str | None) -> Any:
        if given is None:
            return None
        try:
            return SETTINGS[name].kind.value(given, from_text=True)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return click.option(flag, name, metavar=metavar, callback=check, help=help)


def settings_options(command: Command) -> Command:
    """--broker-url, --namespace, --log-format and --log-level; they reach the command under their settings' names."""
    for add in (
        setting_option("log_level", "--log-level", metavar="LEVEL", help="debug, info, warning, error or critical."),
        setting_option("log_format", "--log-format", metavar="FORMAT", help="text or json."),
        setting_option("namespace", "--namespace", metavar="NAME", help="Prefix of every key on the broker."),
        setting_option("broker_url", "--broker-url", metavar="URL", help="Such as redis://localhost:6379/0."),
    ):
        command = add(command)
    return command


def modules_argument(command: Command) -> Command:
    """MODULE ...: the user's modules whose import creates the clients."""
    return click.argument("modules", nargs=-1, metavar="[MODULE]...")(command)


def module_option(command: Command) -> Command:
    """--module, for commands whose arguments are something else."""
    text = "A module that declares the service; may be given several times. Services of seawall.toml need none."
    return click.option("-m", "--module", "modules", multiple=True, metavar="MODULE", help=text)(command)


def json_option(command: Command) -> Command:
    """--json, which reaches the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def child_options(command: Command) -> Command:
    """For processes that `seawall up` starts: --parent PID, stop when that one is gone; --name, as the log calls it."""
    command = click.option("--name", "process_name", hidden=True)(command)
    return click.option("--parent", type=int, default=0, hidden=True)(command)
