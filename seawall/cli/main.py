"""The command's entry: its subcommands, and one place where errors become words and exit codes."""

from __future__ import annotations

import sys
from importlib import metadata

import click

from seawall.cli.breakers import breaker
from seawall.cli.calls import call
from seawall.cli.checks import check
from seawall.cli.dead import dead
from seawall.cli.demo import demo
from seawall.cli.processes import supervisor, web, worker
from seawall.cli.status import status
from seawall.cli.up import up
from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.exits import Exit

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(metadata.version("seawall"), prog_name="seawall")
def cli() -> None:
    """Outbound service calls as durable messages, gated by a breaker that the whole fleet shares.

    Start with `seawall up MODULE`, where MODULE creates your clients. Settings come from options, SEAWALL_* variables
    and seawall.toml; `seawall check --show` prints each with its source.
    """


for command in (up, worker, supervisor, web, status, call, breaker, dead, check, demo):
    cli.add_command(command)


def main() -> None:
    """Run the command and exit with a code of `seawall.exits.Exit`."""
    try:
        code = cli.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(Exit.USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except ConfigurationError as error:
        click.echo(f"seawall: {error}", err=True)
        sys.exit(Exit.CONFIG)
    except BrokerUnavailable as error:
        click.echo(f"seawall: {error}", err=True)
        sys.exit(Exit.UNAVAILABLE)
    sys.exit(code if isinstance(code, int) else Exit.OK)
