"""Noting what somebody did with the command in the list that the page shows."""

from __future__ import annotations

import getpass
import socket

import click

from seawall.errors import BrokerUnavailable
from seawall.observing import note_action
from seawall.runtime import Runtime

__all__ = ["note"]


def note(runtime: Runtime, what: str, service: str = "", detail: str = "") -> None:
    """Note it as `user@host`. It is done already: that it could not be noted is only said."""
    try:
        note_action(runtime, f"{_user()}@{socket.gethostname()}", what, service, detail)
    except BrokerUnavailable as error:
        click.echo(f"seawall: done, but not noted in the audit list: {error}", err=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return "somebody"
