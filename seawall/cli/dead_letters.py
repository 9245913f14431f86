"""Which dead letters are meant: the options that choose among them, and the look at the broker that finds them."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import click
from click import Context, Parameter
from click.shell_completion import CompletionItem

from seawall.actors.queue_store import DeadLetter, QueueStore
from seawall.actors.record import Malformed, TooNew, decode_call
from seawall.actors.redact import path_only
from seawall.actors.service import service_of_queue
from seawall.cli.completion import complete_service
from seawall.cli.values import age, reads
from seawall.errors import ConfigurationError
from seawall.kinds import nearest
from seawall.supervisor.page.desk import REASONS

__all__ = ["Chosen", "Filter", "check_known", "chosen", "exact", "filter_options", "find", "letters", "take_filter"]

Command = TypeVar("Command", bound=Callable[..., Any])

#: Dead letters read from the broker at once, if they are small.
PAGE = 100
#: Characters of a call's id (a UUID); what is shorter is the beginning of one.
ID_CHARACTERS = 36


@dataclass(frozen=True, slots=True)
class Filter:
    """What a dead letter must be like. Ages are seconds since it died; None leaves a thing open."""

    service: str | None = None
    reason: str | None = None
    path: str | None = None
    """A shell-style pattern of the request's path without its query; `*` matches `/` too."""
    older_than: float | None = None
    newer_than: float | None = None

    @property
    def narrows(self) -> bool:
        """Whether anything is asked for."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    def wants_queue(self, queue: str) -> bool:
        return self.service is None or service_of_queue(queue) == self.service

    def matches(self, letter: DeadLetter, now: float) -> bool:
        """`now` is the time in seconds since 1970. What cannot be read has no path, and matches no pattern."""
        ago = now - letter.at
        return (
            self.wants_queue(letter.queue)
            and self.reason in (None, letter.reason)
            and (self.older_than is None or ago >= self.older_than)
            and (self.newer_than is None or ago < self.newer_than)
            and (self.path is None or _path_matches(letter, self.path))
        )


def _path_matches(letter: DeadLetter, pattern: str) -> bool:
    try:
        call = decode_call(letter.payload)
    except (Malformed, TooNew):
        return False
    return fnmatch.fnmatchcase(path_only(call.target), pattern)


class Chosen(NamedTuple):
    """A dead letter by its name alone, so that very many of them fit into memory. An empty one holds no request."""

    queue: str
    id: str
    empty: bool


def _complete_reason(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(reason) for reason in sorted(REASONS) if reason.startswith(incomplete)]


def filter_options(command: Command) -> Command:
    """The options of a Filter; the command hands its keywords to `take_filter`."""
    for add in (
        click.option(
            "--newer-than", callback=reads(age), metavar="AGE", help="Only those that died less than AGE ago."
        ),
        click.option(
            "--older-than",
            callback=reads(age),
            metavar="AGE",
            help="Only those that died AGE ago or before: 90s, 15m, 2h, 7d.",
        ),
        click.option(
            "--path", metavar="PATTERN", help="Only those whose path, without its query, matches: '/items/*'."
        ),
        click.option(
            "--reason",
            metavar="REASON",
            shell_complete=_complete_reason,
            help=f"Only those with this reason: {', '.join(sorted(REASONS))}.",
        ),
        click.option("--service", metavar="KEY", shell_complete=complete_service, help="Only those of this service."),
    ):
        command = add(command)
    return command


def take_filter(arguments: dict[str, Any]) -> Filter:
    """The filter that was asked for, taken out of a command's keywords. Raises click's usage errors."""
    wanted = Filter(**{field.name: arguments.pop(field.name) for field in fields(Filter)})
    # Another release may know further reasons, so that a word like none of these may be asked for.
    if wanted.reason is not None and wanted.reason not in REASONS and (hint := nearest(wanted.reason, REASONS)):
        raise click.UsageError(f"no dead letter has the reason {wanted.reason!r}{hint}")
    if wanted.older_than is not None and wanted.newer_than is not None and wanted.older_than >= wanted.newer_than:
        raise click.UsageError("nothing can match: --older-than must be a shorter time than --newer-than")
    return wanted


def letters(store: QueueStore, wanted: Filter = Filter(), now: float | None = None) -> Iterator[DeadLetter]:
    """Those that match, queue by queue, the oldest first; read in pages, so nothing may be taken away meanwhile.

    What others take away meanwhile may hide as many further ones from this look. Raises BrokerUnavailable.
    """
    now = time.time() if now is None else now
    for queue in filter(wanted.wants_queue, sorted(store.queues())):
        offset: int | None = 0
        while offset is not None:
            page = store.dead_page(queue, offset, PAGE, wanted.reason or "")
            yield from (letter for letter in page.letters if wanted.matches(letter, now))
            offset = page.next


def find(store: QueueStore, id: str) -> DeadLetter | None:
    """The one with this id, else the only one whose id begins so. Raises click's usage errors where there are several."""
    begins = []
    for letter in letters(store):
        if letter.id == id:
            return letter
        if letter.id.startswith(id):
            begins.append(letter)
    if len(begins) > 1:
        listed = ", ".join(letter.id for letter in begins[:3]) + (", ..." if len(begins) > 3 else "")
        raise click.UsageError(f"{len(begins)} dead letters begin with {id!r}: {listed}")
    return begins[0] if begins else None


def exact(store: QueueStore, ids: Collection[str]) -> list[str]:
    """These ids, beginnings of ids made whole where one letter alone begins so. Raises click's usage errors."""
    whole = []
    for id in ids:
        letter = find(store, id) if len(id) < ID_CHARACTERS else None
        whole.append(letter.id if letter is not None else id)
    return whole


def check_known(store: QueueStore, wanted: Filter) -> None:
    """For a filter that nothing matches. Raises ConfigurationError where it names a service or a reason that nobody knows."""
    known = sorted({service_of_queue(queue) for queue in store.queues()} - {""})
    if wanted.service is not None and wanted.service not in known:
        listed = ", ".join(known) or "none"
        raise ConfigurationError(
            f"no service {wanted.service!r} is known{nearest(wanted.service, known)} (known: {listed})"
        )
    if wanted.reason is not None and wanted.reason not in REASONS:
        raise ConfigurationError(
            f"no dead letter has the reason {wanted.reason!r} (known: {', '.join(sorted(REASONS))})"
        )


def chosen(store: QueueStore, wanted: Filter, ids: Collection[str] = ()) -> list[Chosen]:
    """The names of those that match; with `ids` at most these, and the look ends with the last of them."""
    left, found = set(ids), []
    for letter in letters(store, wanted):
        if not ids or letter.id in left:
            found.append(Chosen(letter.queue, letter.id, not letter.payload))
            left.discard(letter.id)
            if ids and not left:
                break
    return found
