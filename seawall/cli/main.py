"""The command's entry: its subcommands, and one place where errors become words and exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

import click
import requests
from redis.exceptions import RedisError

from seawall.cli.alerts import alerts
from seawall.cli.breakers import breaker, pause, resume
from seawall.cli.calls import call
from seawall.cli.checks import check
from seawall.cli.completion import completion
from seawall.cli.dead import dead
from seawall.cli.demo import demo
from seawall.cli.groups import Group
from seawall.cli.health import health_command
from seawall.cli.processes import supervisor, web, worker
from seawall.cli.status import status
from seawall.cli.up import up
from seawall.errors import ConfigurationError
from seawall.exits import Exit
from seawall.signals import Stopped

__all__ = ["cli", "main"]

SECTIONS: dict[str, Sequence[click.Command]] = {
    "Everything on one host": (up, demo),
    "One process each, as in the Procfile": (worker, supervisor, web),
    "For people": (status, call, breaker, pause, resume, dead, alerts, check),
    "For other programs": (health_command, completion),
}


@click.group(
    cls=Group,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="COMMAND ...",
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(metadata.version("seawall"), prog_name="seawall", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Outbound service calls as durable messages, gated by a breaker that the whole fleet shares.

    Start with `seawall up MODULE`, where MODULE is a Python module that creates your clients. Settings come from
    options, SEAWALL_* variables and seawall.toml; `seawall check --show` prints each with its source.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Run the command and exit with a code of `seawall.exits.Exit`. What a user can get wrong is no traceback."""
    try:
        code = cli.main(prog_name="seawall", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort as error:
        _end(Exit.INTERRUPTED if isinstance(error.__context__, KeyboardInterrupt) else Exit.FAILED, "stopped")
    except Stopped:
        sys.exit(Exit.OK)
    except ConfigurationError as error:
        _end(Exit.CONFIG, str(error))
    except requests.RequestException as error:  # BrokerUnavailable is one
        _end(Exit.UNAVAILABLE, str(error))
    except RedisError as error:
        _end(Exit.UNAVAILABLE, f"the broker refused a command: {error}")
    except OSError as error:
        _end(Exit.CANNOT_CREATE, str(error))
    except Exception:
        traceback.print_exc()
        _end(Exit.SOFTWARE, "this is a mistake in Seawall; please report it with the lines above")
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _end(code: Exit, message: str) -> NoReturn:
    click.echo(click.style("seawall: ", fg="red", bold=True) + message, err=True)
    sys.exit(code)
