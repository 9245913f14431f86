"""`seawall demo`: an outage played on the example application."""

from __future__ import annotations

import os
import sys

import click

from seawall.errors import ConfigurationError

__all__ = ["demo"]


@click.command(short_help="Play an outage on the example application.")
@click.option(
    "--outage",
    type=click.FloatRange(min=1, max=300),
    default=12.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the services stay away once the breakers are open.",
)
@click.option("--quiet", is_flag=True, help="Print the counts only.")
def demo(outage: float, quiet: bool) -> int:
    """Play an outage on the example application and count what arrived.

    Load runs, git and chroma are killed, breakers open, callers fall back, background calls wait, the services return,
    everything is delivered. Exits with 1 if anything was lost. Runs in a checkout of the project, where examples/ lies.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        from examples.caudex.demo import play
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the demo plays on examples/caudex, which cannot be imported here ({error}); "
            "run it in a checkout of the project, after `make setup`"
        ) from error
    return play(outage, quiet=quiet)
