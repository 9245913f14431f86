"""`seawall dead`: calls that will not be tried again, why, and what to do about them."""

from __future__ import annotations

import json
import time
from itertools import chain, islice
from typing import Any

import click

from seawall.actors.service import service_of_queue
from seawall.boot import boot
from seawall.cli.dead_letters import Chosen, check_known, chosen, exact, filter_options, find, letters, take_filter
from seawall.cli.dead_rows import letter_details, letter_row, replay_letter
from seawall.cli.dead_shown import described, with_body
from seawall.cli.groups import Group
from seawall.cli.noting import note
from seawall.cli.options import json_option, settings_options
from seawall.cli.pacing import Pace
from seawall.cli.replaying import StopSignals, Tally, progress, send_again
from seawall.cli.tables import duration
from seawall.cli.values import calls_a_second, reads
from seawall.errors import BrokerUnavailable
from seawall.exits import Exit
from seawall.runtime import Runtime

__all__ = ["dead"]

#: Calls a second that a replay queues: a service that has just come back is not flooded, and 1,000 take ten seconds.
DEFAULT_RATE = 100.0
_COLUMNS = ("ID", "DIED", "SERVICE", "REASON", "REQUEST")


@click.command("list", short_help="List them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--limit", type=click.IntRange(min=1), metavar="NUMBER", help="End the list after so many.")
@filter_options
@settings_options
def list_(as_json: bool, limit: int | None, **arguments: Any) -> None:
    """List dead letters, service by service, the oldest first: id, age, service, reason and request."""
    wanted = take_filter(arguments)
    queue = _boot(arguments).engine.queue
    found = letters(queue, wanted)
    first = next(found, None)
    if first is None:
        check_known(queue, wanted)
    else:
        found = chain([first], found)
    rows = map(letter_row, islice(found, limit))
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        _print_table([_shown(row) for row in rows])
    if limit is not None and next(found, None) is not None:
        click.echo(f"seawall: there are more than {limit}", err=True)


@click.command(short_help="Print one, with its attempts and its request.")
@click.argument("id")
@click.option("--body", is_flag=True, help="The request's body too, secrets and all.")
@json_option
@settings_options
def show(id: str, body: bool, as_json: bool, **arguments: Any) -> int:
    """Print the dead letter ID, with its attempts and its request, without secrets.

    ID may be the beginning of one, if no other begins so.
    """
    runtime = _boot(arguments)
    letter = find(runtime.engine.queue, id)
    if letter is None:
        _tell_missing(id)
        return Exit.FAILED
    details = letter_details(letter, runtime)
    shown = letter_row(letter) | (with_body(letter, details) if body else details)
    click.echo(json.dumps(shown, indent=2) if as_json else described(shown))
    return Exit.OK


@click.command(short_help="Queue them again, at a pace.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option(
    "--rate",
    type=str,
    callback=reads(calls_a_second),
    default=DEFAULT_RATE,
    show_default=True,
    metavar="NUMBER",
    help="Calls a second; 0 for as fast as possible.",
)
@json_option
@filter_options
@settings_options
def replay(ids: tuple[str, ...], everything: bool, rate: float, as_json: bool, **arguments: Any) -> int:
    """Queue dead letters again: those named (the beginning of an ID will do), or all that match.

    They keep their ids and Idempotency-Keys, and start with their first attempt. Their time to expire begins anew.

    Each is moved in one step. However the command ends, by ctrl-C or `kill -9` too, the same command again queues what
    is left, and none twice.
    """
    runtime, found = _pick(arguments, ids, everything)
    tally = Tally(total=len(found))
    with StopSignals() as signals:
        _replay_all(runtime, found, tally, Pace(rate, sleep=signals.wait), signals, as_json=as_json)
    if tally.queued:
        note(runtime, "replay", _one_service(found), str(tally))
    if tally.left:
        return signals.exit_code
    return Exit.OK if tally.queued == max(len(found), len(set(ids))) else Exit.FAILED


@click.command(short_help="Forget them for good.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@filter_options
@settings_options
def purge(ids: tuple[str, ...], everything: bool, yes: bool, as_json: bool, **arguments: Any) -> int:
    """Forget dead letters for good: those named (the beginning of an ID will do), or all that match."""
    runtime, found = _pick(arguments, ids, everything)
    if found and not yes:
        click.confirm(
            f"Forget {len(found)} dead letter{'' if len(found) == 1 else 's'} for good?", abort=True, err=as_json
        )
    done = sum(runtime.engine.queue.purge(letter.queue, letter.id) for letter in found)
    click.echo(json.dumps({"forgotten": done}) if as_json else f"{done} forgotten")
    if done:
        note(runtime, "purge", _one_service(found), f"{done} forgotten")
    return Exit.OK if done == max(len(found), len(set(ids))) else Exit.FAILED


@click.group(cls=Group, sections={"Commands": (list_, show, replay, purge)})
def dead() -> None:
    """List, show, replay or purge dead letters.

    A dead letter is a background call that will not be tried again by itself: it expired, its rounds were used up, it
    was rejected or malformed, or it killed its workers.
    """


def _boot(arguments: dict[str, Any]) -> Runtime:
    return boot(arguments, process="dead", for_people=True)[1]


def _pick(arguments: dict[str, Any], ids: tuple[str, ...], everything: bool) -> tuple[Runtime, list[Chosen]]:
    """Those that the command line means, found before any is taken away, which would move the others."""
    wanted = take_filter(arguments)
    if not (ids or everything or wanted.narrows):
        raise click.UsageError(
            "name IDs, or choose with --service, --reason or --all, or with --path, --older-than or --newer-than"
        )
    runtime = _boot(arguments)
    queue = runtime.engine.queue
    meant = exact(queue, ids)
    found = chosen(queue, wanted, meant)
    if not found:
        check_known(queue, wanted)
    for id in sorted(set(meant) - {letter.id for letter in found}):
        _tell_missing(id)
    return runtime, found


def _one_service(found: list[Chosen]) -> str:
    """The service of all of them; empty where there are several."""
    services = {service_of_queue(letter.queue) for letter in found}
    return services.pop() if len(services) == 1 else ""


def _tell_missing(id: str) -> None:
    click.echo(f"seawall: there is no dead letter {id}", err=True)


def _replay_all(
    runtime: Runtime, found: list[Chosen], tally: Tally, pace: Pace, signals: StopSignals, *, as_json: bool
) -> None:
    """Until the last of them or a signal. Says what was done, and what is left, whatever ends it."""
    perhaps = ""
    try:
        with progress(len(found)) as step:
            send_again(
                found,
                tally,
                lambda letter: replay_letter(runtime, letter),
                pace=pace,
                stopped=lambda: signals.stop_requested,
                step=step,
            )
    except BrokerUnavailable as error:
        perhaps = ", and perhaps one more" if error.written else ""
        raise
    finally:
        click.echo(json.dumps(tally.as_json()) if as_json else f"{tally}{perhaps}")
        if tally.left:
            click.echo(f"seawall: {tally.left} left; the same command queues them", err=True)


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    request = f"{row['method']} {row['path']}" if row["method"] else "(not readable)"
    reason = f"{row['reason']}: {row['last_error']}" if row["last_error"] else row["reason"]
    return row["id"], f"{duration(time.time() - row['died_at'])} ago", row["service"], reason, request


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be; plain text, so that it needs no extra and can be cut by other tools."""
    if not rows:
        click.echo("no dead letters")
        return
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        line = "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        click.echo(click.style(line, bold=True) if row is _COLUMNS else line)
