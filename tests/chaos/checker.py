"""Compares what clients were told with what services saw: pure functions of the evidence, a list of failures each."""

from __future__ import annotations

import itertools
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.chaos.evidence import Evidence
from tests.chaos.ledger import Asked, Visit
from tests.chaos.letters import body_of, digest, number_in
from tests.chaos.members import Life
from tests.chaos.plan import CLIENTS

__all__ = ["ANSWER_GRACE", "CHECKS", "Check", "check_all"]

#: Seconds after its deadline within which a waiting caller must have its answer.
ANSWER_GRACE = 1.0
#: Seconds by which two trials may seem closer in a record, whose times are floats.
ROUNDING = 0.001
#: Seconds by which they may seem closer from when they were announced here: this process is busy, and the clock by which a
#: process decides is the server's within a bound (CLOCK_TOLERANCE, and what the network adds).
HEARD_TOLERANCE = 0.5
#: Threads by which a process may differ from what it had at the start: some of them come and go.
SPARE_THREADS = 3
#: File descriptors likewise: a kept connection for each slot of each service, and those to the broker.
SPARE_FILES = 4 * 4 + 8
#: Seconds after its start in which a process may not have come as far as to its signal handlers, where nobody can tell.
BOOT_SECONDS = 2.0
#: Words by which a caller is told that nothing was sent, or queued, and nothing will be.
NEVER = ("it was not sent and never will be", "nothing was sent", "nothing was queued")
#: Dead letters that nothing in this game can lead to, and those that only calls of one manner can become.
NO_REASONS = frozenset({"rejected", "malformed", "no actor", "outcome unknown"})
OWN_REASONS = {"expired": " hurry", "rounds used up": " once"}

Failures = list[str]


@dataclass(frozen=True)
class Check:
    """What must not be. `failures` has a line for each case."""

    name: str
    failures: Failures

    @property
    def met(self) -> bool:
        return not self.failures


def check_all(evidence: Evidence) -> list[Check]:
    return [Check(name, check(evidence)) for name, check in CHECKS.items()]


def _without_end(evidence: Evidence) -> Failures:
    """Accepted, and neither carried out nor a dead letter."""
    carried_out = {number_in(visit.path) for visit in evidence.visits if visit.status == 200}
    over = carried_out | {burial.number for burial in evidence.burials}
    return [_shown(one) for one in evidence.asked if one.accepted and one.number not in over]


def _not_over(evidence: Evidence) -> Failures:
    """Still in a queue after all the time that the queues were given."""
    failures = [f"{service}: {id}" for service, ids in evidence.waiting.items() for id in ids]
    return failures if evidence.drained or failures else ["the queues do not drain"]


def _wrong_answers(evidence: Evidence) -> Failures:
    return [_shown(one) for one in evidence.asked if one.end.startswith("wrong")]


def _wrong_requests(evidence: Evidence) -> Failures:
    """A service has got what nobody has sent."""
    known = {one.number: one for one in evidence.asked}
    failures = []
    for visit in _calls(evidence.visits):
        one = known.get(number_in(visit.path))
        if one is None:
            failures.append(f"nobody has asked for {visit}")
        elif one.service != visit.service or visit.body != digest(_sent(one)):
            failures.append(f"{_shown(one)} came as {visit}")
    return failures


def _unanswered(evidence: Evidence) -> Failures:
    """No answer by the deadline and a second, not counting the time for which the caller itself stood still."""
    lives = {life.who: life for life in evidence.lives}
    failures = []
    for one in evidence.asked:
        if not one.waited:
            continue
        life = lives[one.who]
        ended = one.ended or life.ended
        late = ended - one.started - one.deadline - _stood_still(life, one.started, ended)
        if late > ANSWER_GRACE:
            failures.append(f"{late:.2f} s late: {_shown(one)}")
        elif not one.ended and life.how != "killed":
            failures.append(f"its caller ended first: {_shown(one)}")
    return failures


def _untyped(evidence: Evidence) -> Failures:
    return [_shown(one) for one in evidence.asked if one.end.startswith("untyped")]


def _untrue(evidence: Evidence) -> Failures:
    """Its caller was told that it never left, and a service saw it."""
    seen = {number_in(visit.path) for visit in evidence.visits}
    told = (one for one in evidence.asked if not one.accepted and any(words in one.detail for words in NEVER))
    return [_shown(one) for one in told if one.number in seen]


def _wrong_burials(evidence: Evidence) -> Failures:
    """Dead for a reason that cannot be."""
    kinds = {one.number: one.kind for one in evidence.asked}
    failures = []
    for burial in evidence.burials:
        manner = OWN_REASONS.get(burial.reason, "")
        if burial.reason in NO_REASONS or manner not in kinds.get(burial.number, manner):
            failures.append(str(burial))
    return failures


def _different_bodies(evidence: Evidence) -> Failures:
    """One Idempotency-Key with more than one request under it."""
    under: dict[tuple[str, str], set[tuple[str, str, str]]] = defaultdict(set)
    for visit in evidence.visits:
        if visit.key:
            under[visit.service, visit.key].add((visit.method, visit.path, visit.body))
    return [f"{key}: {sorted(requests)}" for key, requests in under.items() if len(requests) > 1]


def _trials_too_close(evidence: Evidence) -> Failures:
    """By their records, on the server's clock; and, within what this process can tell, by when they were announced."""
    failures = []
    for service, followed in evidence.breakers.items():
        least = evidence.recovery[service]
        for first, second in itertools.pairwise(followed.trials):
            apart, heard = second.began - first.began, second.heard - first.heard
            if apart < least - ROUNDING or heard < least - HEARD_TOLERANCE:
                failures.append(f"{service}: {apart:.3f} s apart, heard {heard:.3f} s: {first} {second}")
    return failures


def _two_trials(evidence: Evidence) -> Failures:
    return [str(trial) for followed in evidence.breakers.values() for trial in followed.trials if not trial.alone]


def _forgotten(evidence: Evidence) -> Failures:
    """A durable server takes back nothing that it has announced."""
    return [f"{key}: {one.went_back} times" for key, one in evidence.breakers.items() if one.went_back]


def _bad_ends(evidence: Evidence) -> Failures:
    """A process that ended by itself, or on SIGTERM not with 0."""
    return [
        f"{life.who} ended {life.how} with {life.code} after {life.ended - life.started:.1f} s"
        for life in evidence.lives
        if life.how != "killed" and not _obeyed(life)
    ]


def _obeyed(life: Life) -> bool:
    """It ended well on SIGTERM, or got it before Python had come as far as to Seawall."""
    early = life.code == -signal.SIGTERM and (not life.listened or life.asked - life.started < BOOT_SECONDS)
    return life.how == "terminated" and (life.code == 0 or early)


def _lifeless(evidence: Evidence) -> Failures:
    """Clients that got no right answer once everything was well again."""
    well = {
        one.who.rpartition(".")[0] for one in evidence.asked if one.end == "right" and one.started > evidence.calm_from
    }
    return [name for name in CLIENTS if name not in well]


def _leaks(evidence: Evidence) -> Failures:
    found = [
        f"{what}: {name}" for what in ("keys", "processes", "sockets") for name in getattr(evidence, f"{what}_left")
    ]
    for name, after in evidence.sizes_after.items():
        before = evidence.sizes_before[name]
        if after.threads > before.threads + SPARE_THREADS:
            found.append(f"threads: {name} had {before.threads}, has {after.threads}")
        if after.files > before.files + SPARE_FILES:
            found.append(f"file descriptors: {name} had {before.files}, has {after.files}")
    return found


#: What must not be, in the order of the table.
CHECKS: Mapping[str, Callable[[Evidence], Failures]] = {
    "accepted calls without a terminal state": _without_end,
    "calls that never ended": _not_over,
    "wrong answers": _wrong_answers,
    "wrong requests": _wrong_requests,
    "waiting callers without an answer": _unanswered,
    "errors without a type": _untyped,
    "callers told an untruth": _untrue,
    "dead letters for a wrong reason": _wrong_burials,
    "keys with different requests": _different_bodies,
    "trials too close": _trials_too_close,
    "two trials at once": _two_trials,
    "announced, then forgotten": _forgotten,
    "processes that ended badly": _bad_ends,
    "clients that did not recover": _lifeless,
    "leaks": _leaks,
}


def _calls(visits: Iterable[Visit]) -> Iterable[Visit]:
    """Without the supervisor's own requests."""
    return (visit for visit in visits if visit.path != "/health")


def _sent(one: Asked) -> bytes:
    return b"" if one.kind == "get" else body_of(one.number)


def _stood_still(life: Life, since: float, until: float) -> float:
    return sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in life.stops)


def _shown(one: Asked) -> str:
    took = f"{one.ended - one.started:.2f} s" if one.ended else "no end"
    deadline = f" within {one.deadline:g} s" if one.waited else ""
    return f"{one.who} {one.kind} {one.number} to {one.service}{deadline} at {one.started:.3f}: {one.end or '?'} ({took}) {one.detail} {one.id}"
