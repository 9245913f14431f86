"""The page's view of the fleet and its hands, put together from the rooms that know how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seawall import observing
from seawall.actors.queue_store import DeadLetter
from seawall.cli.breakers import breaker_view, require_known
from seawall.cli.dead_letters import Filter, chosen, letters
from seawall.cli.dead_rows import letter_details, letter_row, replay_letter
from seawall.cli.pacing import Pace
from seawall.cli.replaying import send_again
from seawall.exposition import exposition_of
from seawall.fleet import Fleet, read_fleet
from seawall.runtime import Runtime, registry
from seawall.supervisor.breaker import Event, ForceClose, ForceOpen, Reset
from seawall.supervisor.page.desk import Progress, Wanted
from seawall.supervisor.view import BreakerView

__all__ = ["FleetDesk"]

_EVENTS: dict[str, Event] = {"open": ForceOpen(), "close": ForceClose(), "reset": Reset()}
_SWITCHES = {"pause": observing.pause, "resume": observing.resume}


class FleetDesk:
    """A Desk over one runtime; supervisor/page/desk.py says what each verb does."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._views: dict[str, BreakerView] = {}
        self._latest: Fleet | None = None

    def fleet(self) -> dict[str, Any]:
        return self._read().as_json()

    def fleet_and_outages(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        found = self._read()
        return found.as_json(), found.outages

    def latest(self) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        found = self._latest
        return (found.as_json(), found.outages) if found is not None else None

    def history(self) -> dict[str, Any]:
        return observing.read_history(self._runtime)

    def transitions(self) -> list[dict[str, Any]]:
        return observing.read_transitions(self._runtime)

    def actions(self) -> list[dict[str, Any]]:
        return observing.read_actions(self._runtime)

    def exposition(self) -> str:
        return exposition_of(self._read())

    def note(self, who: str, what: str, service: str, detail: str) -> None:
        observing.note_action(self._runtime, who, what, service, detail)

    def act(self, verb: str, key: str) -> None:
        if verb in _SWITCHES:
            require_known(self._runtime, key)
            _SWITCHES[verb](self._runtime, key)
            return
        if key not in self._views:
            self._views[key] = breaker_view(self._runtime, key)
        self._views[key].by_hand(_EVENTS[verb])

    def letters(self, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        ids = set(wanted.ids)
        for letter in letters(self._runtime.engine.queue, _filter(wanted)):
            if not ids or letter.id in ids:
                found.append(self._shown(letter))
                if len(found) == (min(limit, len(ids)) if ids else limit):
                    break
        return found

    def replay(self, wanted: Wanted, rate: float, progress: Progress, stopped: Callable[[float], bool]) -> None:
        found = chosen(self._runtime.engine.queue, _filter(wanted), wanted.ids)
        progress.total = len(found)

        def wait(seconds: float) -> None:
            stopped(seconds)

        send_again(
            found,
            progress,
            lambda letter: replay_letter(self._runtime, letter),
            pace=Pace(rate, sleep=wait),
            stopped=lambda: stopped(0.0),
            step=lambda: None,
        )

    def purge(self, wanted: Wanted) -> int:
        found = chosen(self._runtime.engine.queue, _filter(wanted), wanted.ids)
        return sum(self._runtime.engine.queue.purge(letter.queue, letter.id) for letter in found)

    def _read(self) -> Fleet:
        found = self._latest = read_fleet(self._runtime, registry)
        return found

    def _shown(self, letter: DeadLetter) -> dict[str, Any]:
        return letter_row(letter) | letter_details(letter, self._runtime)


def _filter(wanted: Wanted) -> Filter:
    return Filter(service=wanted.service or None, reason=wanted.reason or None)
