"""`seawall dead`: calls that will not be tried again, why, and what to do about them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from seawall.actors.queue_store import DeadLetter
from seawall.actors.record import Malformed, TooNew, decode_call
from seawall.actors.redact import path_only, redact_headers
from seawall.actors.service import DEFAULT_EXPIRES_IN, service_of_queue
from seawall.boot import boot
from seawall.cli.groups import Group
from seawall.cli.options import settings_options
from seawall.cli.tables import duration
from seawall.exits import Exit
from seawall.runtime import Runtime, registry

__all__ = ["dead"]

#: Dead letters read from the broker at once.
PAGE = 100
_COLUMNS = ("ID", "DIED", "SERVICE", "REASON", "REQUEST")


def _filters(command: Any) -> Any:
    for add in (
        click.option("--reason", metavar="REASON", help="Only those with this reason."),
        click.option("--service", metavar="KEY", help="Only those of this service."),
    ):
        command = add(command)
    return settings_options(command)


@click.command("list", short_help="List them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@_filters
def list_(service: str | None, reason: str | None, as_json: bool, **arguments: Any) -> None:
    """List dead letters, the oldest of each queue first: id, age, service, reason and request."""
    runtime = _boot(arguments)
    rows = [_row(letter) for letter in _letters(runtime, service, reason)]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    elif rows:
        _print_table([_shown(row) for row in rows])
    else:
        click.echo("no dead letters")


@click.command(short_help="Print one, with its attempts and its request.")
@click.argument("id")
@settings_options
def show(id: str, **arguments: Any) -> int:
    """Print the dead letter ID as JSON, with its attempts and its request, without secrets."""
    runtime = _boot(arguments)
    for letter in _chosen(runtime, (id,), None, None):
        click.echo(json.dumps(_row(letter) | _details(letter, runtime), indent=2))
        return Exit.OK
    return Exit.FAILED


@click.command(short_help="Queue them again.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@_filters
def replay(ids: tuple[str, ...], everything: bool, service: str | None, reason: str | None, **arguments: Any) -> int:
    """Queue dead letters again: those named, or all that match.

    They keep their ids and Idempotency-Keys, and start with their first attempt. Their time to expire begins anew.
    """
    runtime, chosen = _pick(arguments, ids, everything, service, reason)
    done = sum(_replay(runtime, letter) for letter in chosen)
    click.echo(f"{done} queued again")
    return Exit.OK if done == max(len(chosen), len(set(ids))) else Exit.FAILED


@click.command(short_help="Forget them for good.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_filters
def purge(
    ids: tuple[str, ...], everything: bool, service: str | None, reason: str | None, yes: bool, **arguments: Any
) -> int:
    """Forget dead letters for good: those named, or all that match."""
    runtime, chosen = _pick(arguments, ids, everything, service, reason)
    if chosen and not yes:
        click.confirm(f"Forget {len(chosen)} dead letter{'' if len(chosen) == 1 else 's'} for good?", abort=True)
    done = sum(runtime.engine.queue.purge(letter.queue, letter.id) for letter in chosen)
    click.echo(f"{done} forgotten")
    return Exit.OK if done == max(len(chosen), len(set(ids))) else Exit.FAILED


@click.group(cls=Group, sections={"Commands": (list_, show, replay, purge)})
def dead() -> None:
    """List, show, replay or purge dead letters.

    A dead letter is a background call that will not be tried again by itself: it expired, its rounds were used up, it
    was rejected or malformed, or it killed its workers.
    """


def _boot(arguments: dict[str, Any]) -> Runtime:
    return boot(arguments, process="dead", for_people=True)[1]


def _pick(
    arguments: dict[str, Any], ids: tuple[str, ...], everything: bool, service: str | None, reason: str | None
) -> tuple[Runtime, list[DeadLetter]]:
    if not (ids or everything or service or reason):
        raise click.UsageError("name IDs, or choose with --service, --reason or --all")
    runtime = _boot(arguments)
    return runtime, _chosen(runtime, ids, service, reason)


def _chosen(runtime: Runtime, ids: tuple[str, ...], service: str | None, reason: str | None) -> list[DeadLetter]:
    """Read before any is taken away, which would move the others. An id that is not among them is told."""
    found = [letter for letter in _letters(runtime, service, reason) if not ids or letter.id in ids]
    for id in sorted(set(ids) - {letter.id for letter in found}):
        click.echo(f"seawall: there is no dead letter {id}", err=True)
    return found


def _letters(runtime: Runtime, service: str | None, reason: str | None) -> Iterator[DeadLetter]:
    queue = runtime.engine.queue
    for name in sorted(queue.queues()):
        if service and service_of_queue(name) != service:
            continue
        offset = 0
        while page := queue.dead_letters(name, offset, PAGE):
            yield from (letter for letter in page if not reason or letter.reason == reason)
            offset += len(page)


def _replay(runtime: Runtime, letter: DeadLetter) -> bool:
    declared = registry.find(service_of_queue(letter.queue))
    expires_in = declared.expires_in if declared is not None else DEFAULT_EXPIRES_IN
    return runtime.engine.queue.replay(letter.queue, letter.id, expires_in)


def _row(letter: DeadLetter) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": letter.id,
        "service": service_of_queue(letter.queue) or letter.queue,
        "reason": letter.reason,
        "died_at": letter.at,
        "rounds": letter.progress.round,
        "method": None,
        "path": None,
    }
    try:
        call = decode_call(letter.payload)
    except (Malformed, TooNew):
        return row
    return row | {"method": call.method, "path": path_only(call.target)}


def _details(letter: DeadLetter, runtime: Runtime) -> dict[str, Any]:
    """Attempts, and the request as far as it may be seen and can be read."""
    attempts = [{"at": one.at, "outcome": one.outcome, "took": one.took} for one in letter.progress.history]
    try:
        call = decode_call(letter.payload)
    except (Malformed, TooNew) as error:
        return {"attempts": attempts, "request": None, "unreadable": str(error)}
    headers = redact_headers(call.headers, token_header=runtime.settings.internal_token_header)
    request = {"origin": call.origin, "headers": dict(headers), "body_bytes": len(call.body or b"")}
    return {"attempts": attempts, "request": request}


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    request = f"{row['method']} {row['path']}" if row["method"] else "(not readable)"
    return row["id"], f"{duration(time.time() - row['died_at'])} ago", row["service"], row["reason"], request


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be; plain text, so that it needs no extra and can be cut by other tools."""
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        line = "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        click.echo(click.style(line, bold=True) if row is _COLUMNS else line)
