"""`seawall dead`: calls that will not be tried again, why, and what to do about them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from seawall.actors.queue_store import DeadLetter
from seawall.actors.record import Malformed, TooNew, decode_call
from seawall.actors.redact import redact_headers
from seawall.actors.service import DEFAULT_EXPIRES_IN, service_of_queue
from seawall.boot import boot
from seawall.cli.options import settings_options
from seawall.exits import Exit
from seawall.runtime import Runtime, registry

__all__ = ["dead"]

#: Dead letters read from the broker at once.
PAGE = 100


@click.group()
def dead() -> None:
    """Dead letters: list, show, replay, purge."""


def _common(command: Any) -> Any:
    for option in (
        click.option("--service", help="Only those of this service."),
        click.option("--reason", help="Only those with this reason."),
    ):
        command = option(command)
    return settings_options(command)


@dead.command("list")
@_common
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def list_(service: str | None, reason: str | None, as_json: bool, **arguments: Any) -> None:
    """Every dead letter: its age, service, reason and request."""
    _, runtime = boot(arguments, process="dead")
    found = 0
    for letter in _letters(runtime, service, reason):
        found += 1
        row = _row(letter)
        if as_json:
            click.echo(json.dumps(row))
        else:
            age, request = time.time() - letter.at, f"{row['method']} {row['path']}"
            click.echo(f"{letter.id}  {age:7.0f} s ago  {row['service']:<16} {letter.reason:<16} {request}")
    if not found and not as_json:
        click.echo("no dead letters")


@dead.command()
@click.argument("id")
@settings_options
def show(id: str, **arguments: Any) -> int:
    """One dead letter with its attempts and its request, without secrets."""
    _, runtime = boot(arguments, process="dead")
    for letter in _letters(runtime, None, None):
        if letter.id == id:
            click.echo(json.dumps(_row(letter, full=True), indent=2))
            return Exit.OK
    click.echo(f"no dead letter {id}", err=True)
    return Exit.FAILED


@dead.command()
@click.argument("ids", nargs=-1)
@_common
def replay(ids: tuple[str, ...], service: str | None, reason: str | None, **arguments: Any) -> int:
    """Queue dead letters again, under their own ids and Idempotency-Keys: those named, or all that match."""
    if not ids and not service and not reason:
        raise click.UsageError("name the ids, or choose with --service or --reason")
    _, runtime = boot(arguments, process="dead")
    done = sum(_replay(runtime, letter) for letter in _chosen(runtime, ids, service, reason))
    click.echo(f"{done} call(s) are queued again")
    return Exit.OK if done or not ids else Exit.FAILED


@dead.command()
@click.argument("ids", nargs=-1)
@_common
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(ids: tuple[str, ...], service: str | None, reason: str | None, yes: bool, **arguments: Any) -> None:
    """Forget dead letters for good: those named, or all that match."""
    if not ids and not service and not reason:
        raise click.UsageError("name the ids, or choose with --service or --reason")
    _, runtime = boot(arguments, process="dead")
    chosen = _chosen(runtime, ids, service, reason)
    if chosen and not yes:
        click.confirm(f"Forget {len(chosen)} dead letter(s)?", abort=True)
    click.echo(f"{sum(runtime.engine.queue.purge(letter.queue, letter.id) for letter in chosen)} forgotten")


def _letters(runtime: Runtime, service: str | None, reason: str | None) -> Iterator[DeadLetter]:
    queue = runtime.engine.queue
    for name in queue.queues():
        if service and service_of_queue(name) != service:
            continue
        offset = 0
        while page := queue.dead_letters(name, offset, PAGE):
            yield from (letter for letter in page if not reason or letter.reason == reason)
            offset += len(page)


def _chosen(runtime: Runtime, ids: tuple[str, ...], service: str | None, reason: str | None) -> list[DeadLetter]:
    return [letter for letter in _letters(runtime, service, reason) if not ids or letter.id in ids]


def _replay(runtime: Runtime, letter: DeadLetter) -> bool:
    declared = registry.find(service_of_queue(letter.queue))
    expires_in = declared.expires_in if declared is not None else DEFAULT_EXPIRES_IN
    return runtime.engine.queue.replay(letter.queue, letter.id, expires_in)


def _row(letter: DeadLetter, *, full: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": letter.id,
        "service": service_of_queue(letter.queue) or letter.queue,
        "reason": letter.reason,
        "died_at": letter.at,
        "method": "-",
        "path": "(not readable)",
        "rounds": letter.progress.round,
    }
    try:
        call = decode_call(letter.payload)
    except (Malformed, TooNew):
        return row
    row |= {"method": call.method, "path": call.target.partition("?")[0]}
    if full:
        row["attempts"] = [{"at": one.at, "outcome": one.outcome, "took": one.took} for one in letter.progress.history]
        row["request"] = {
            "origin": call.origin,
            "headers": dict(redact_headers(dict(call.headers))),
            "body_bytes": len(call.body or b""),
        }
    return row
