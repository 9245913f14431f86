"""The fleet as the broker knows it: services, breakers, queues, workers, supervisors. For status, web and checks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from redis.exceptions import ResponseError

from seawall.actors.queue_store import Counts
from seawall.actors.service import (
    DEFAULT_FAILURE_THRESHOLD,
    DEFAULT_RECOVERY_TIMEOUT,
    Service,
    queue_names,
    service_of_queue,
)
from seawall.errors import BrokerUnavailable
from seawall.history import Sample, Totals, percentile, since, totals_of, window
from seawall.observing import read_outages
from seawall.registry import Registry
from seawall.runtime import Runtime
from seawall.supervisor.breaker import Record
from seawall.supervisor.leader import leader_info
from seawall.supervisor.view import describe

__all__ = ["COUNTED", "Fleet", "ServiceLine", "read_fleet"]

#: Seconds that the percentiles look back, and the fewest that a rate is told of.
LATENCY_SECONDS = 300
LEAST_SECONDS = 5.0
#: What is counted of a service's background calls, since its namespace began.
COUNTED = ("coalesced", "deduped", "skipped", "unqueued", "retries_denied")


@dataclass(frozen=True, slots=True)
class ServiceLine:
    """One service: its breaker as in `get_status()`, with `forced` (opened by hand) beside it, and its two queues."""

    key: str
    breaker: dict[str, Any]
    waited: Counts
    background: Counts
    tally: Mapping[str, int]
    paused: bool = False
    slots: int = 0
    """Calls that may be in flight at once in the whole fleet."""
    retries_left: int | None = None
    """Retries that all workers together may make now; None where nobody says."""
    rate: float | None = None
    error_share: float | None = None
    """Calls that ended a second, and the share of them that failed, in the last minute."""
    latency: dict[str, float] | None = None
    """p50, p95 and p99 of attempts in seconds, of the last five minutes."""
    last_outage: dict[str, Any] | None = None

    @property
    def mttr(self) -> float | None:
        """Mean time to recovery in seconds; None before the first outage has ended."""
        ended = self.tally.get("outages", 0)
        return self.tally.get("outage.ms", 0) / ended / 1000 if ended else None

    @property
    def waiting(self) -> int:
        """Calls that a worker could start now."""
        return self.waited.ready + self.background.ready - self.held

    @property
    def held(self) -> int:
        """Background calls that wait for an open breaker, or for whoever paused them."""
        return self.background.ready if self.paused or self.breaker["state"] != "closed" else 0

    def as_json(self) -> dict[str, Any]:
        return self.breaker | {
            "queued": self.waiting,
            "held": self.held,
            "due_later": self.waited.due + self.background.due,
            "running": self.waited.leased + self.background.leased,
            "dead": self.waited.dead + self.background.dead,
            "workers": self.waited.workers,
            "oldest_waiting": self.background.oldest,
            "paused": self.paused,
            "slots": self.slots,
            "rate": self.rate,
            "error_share": self.error_share,
            "latency": self.latency,
            "mttr": self.mttr,
            "last_outage": self.last_outage,
            "counts": {what: self.tally.get(what, 0) for what in COUNTED},
        }


@dataclass(frozen=True, slots=True)
class Fleet:
    services: list[ServiceLine] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
    supervisors: list[dict[str, Any]] = field(default_factory=list)
    leader: str = ""
    schedules: list[dict[str, Any]] = field(default_factory=list)
    as_of: float = 0.0
    outages: list[dict[str, Any]] = field(default_factory=list)
    """Of all services, newest first, as `read_outages` has them; no part of the documented form."""

    def as_json(self) -> dict[str, Any]:
        """The form of `seawall status --json`, documented in docs/commands.md."""
        return {
            "services": {line.key: line.as_json() for line in self.services},
            "workers": self.workers,
            "supervisors": self.supervisors,
            "leader": self.leader or None,
            "schedules": self.schedules,
            "as_of": self.as_of,
        }


def read_fleet(runtime: Runtime, registry: Registry) -> Fleet:
    """The fleet now, in a handful of round trips. Raises BrokerUnavailable, also for a broker that refuses to tell."""
    try:
        return _read_fleet(runtime, registry)
    except ResponseError as error:
        raise BrokerUnavailable(f"the broker refused a command: {error}") from error


def _read_fleet(runtime: Runtime, registry: Registry) -> Fleet:
    queue, breakers = runtime.engine.queue, runtime.engine.breakers
    records = breakers.read_all()
    reports = [json.loads(report) for report in queue.workers()]
    keys = {service.key for service in registry.all()} | set(records)
    keys |= {key for name in queue.queues() if (key := service_of_queue(name))}
    served = {key: about for report in reports for key, about in report.get("services", {}).items()}
    order = sorted(keys)
    counts = iter(queue.counts([name for key in order for name in queue_names(key)]))
    tallied = queue.tally()
    tally: dict[str, dict[str, int]] = {}
    for (key, what), times in tallied.items():
        tally.setdefault(key, {})[what] = times
    paused = queue.paused(order)
    recent = _Recent.read(runtime, tallied, records)
    lines = []
    for key, is_paused in zip(order, paused, strict=True):
        service = registry.find(key)
        about = _About.of(service, key, served.get(key))
        breaker = _status(about, key, records.get(key), breakers.now())
        reporting = [report for report in reports if key in report.get("services", {})]
        serving = [report["services"][key] for report in reporting]
        is_counted = all(report.get("metered") for report in reporting)  # else only what is no success is
        line = ServiceLine(
            key,
            breaker,
            next(counts),
            next(counts),
            tally.get(key, {}),
            paused=is_paused,
            slots=_slots(service, serving),
            retries_left=_sum(about.get("retries_left") for about in serving),
            last_outage=recent.last_outage(key),
            **(recent.rates(key) if is_counted else {}),
        )
        lines.append(line)
    supervisors, leader = _supervisors(runtime)
    schedules: list[dict[str, Any]] = next(
        (one.pop("schedules", []) for one in supervisors if one.get("id") == leader), []
    )
    workers = sorted(reports, key=lambda report: str(report.get("id")))
    return Fleet(lines, workers, supervisors, leader, schedules, breakers.now(), recent.outages)


@dataclass(frozen=True, slots=True)
class _Recent:
    """The last minutes, from the samples of the leading supervisor; nothing where there are none."""

    now: float
    samples: Sequence[Sample]
    totals: Mapping[str, Totals]
    outages: list[dict[str, Any]]

    @classmethod
    def read(cls, runtime: Runtime, tally: Mapping[tuple[str, str], int], records: Mapping[str, Record]) -> _Recent:
        link, now = runtime.engine.link, runtime.engine.breakers.now()
        if link is None:
            return cls(now, (), {}, [])
        samples = window(link, runtime.settings.namespace, LATENCY_SECONDS)
        return cls(now, samples, totals_of(tally), read_outages(runtime, records=records))

    def last_outage(self, key: str) -> dict[str, Any] | None:
        last = next((outage for outage in self.outages if outage["service"] == key), None)
        return last and {name: value for name, value in last.items() if name != "service"}

    def rates(self, key: str) -> dict[str, Any]:
        """Rate, share of errors and percentiles of a service."""
        found: dict[str, Any] = {}
        last_minute, last_minutes = (since(self.samples, self.now, seconds) for seconds in (60, LATENCY_SECONDS))
        if last_minute is None or last_minutes is None:
            return found
        totals = self.totals.get(key, Totals())
        part, seconds = totals - last_minute.of(key), self.now - last_minute.at
        if seconds >= LEAST_SECONDS:
            found["rate"] = round(part.calls / seconds, 3)
            found["error_share"] = round(part.failed / part.calls, 4) if part.calls else None
        took = (totals - last_minutes.of(key)).took
        if sum(took):
            found["latency"] = {f"p{share}": percentile(took, share / 100) for share in (50, 95, 99)}
        return found


def _slots(service: Service | None, serving: Sequence[Mapping[str, Any]]) -> int:
    """What its workers can run at once, within the bound across workers if it has one."""
    slots: int = sum(about.get("concurrency", 0) for about in serving)
    bound = (
        service.max_in_flight if service is not None else max((a.get("max_in_flight", 0) for a in serving), default=0)
    )
    return min(slots, bound) if bound else slots


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class _About:
    """What is known of a service beside its breaker's record: from its declaration, else from a worker that serves it."""

    name: str
    failure_threshold: int = DEFAULT_FAILURE_THRESHOLD
    recovery_timeout: float = DEFAULT_RECOVERY_TIMEOUT

    @classmethod
    def of(cls, service: Service | None, key: str, reported: Mapping[str, Any] | None) -> _About:
        if service is not None:
            return cls(service.name, service.failure_threshold, service.recovery_timeout)
        reported = reported or {}
        known = {field.name: reported[field.name] for field in fields(cls) if field.name in reported}
        return cls(**{"name": key, **known})


def _status(about: _About, key: str, record: Record | None, now: float) -> dict[str, Any]:
    """The form of `get_status()`, from the stored record rather than from a process's view."""
    found = record or Record(failure_threshold=about.failure_threshold, recovery_timeout=about.recovery_timeout)
    status = describe(found, name=about.name, key=key, policy=found, now=now, as_of=now or time.time())
    return status | {"forced": found.forced}


def _supervisors(runtime: Runtime) -> tuple[list[dict[str, Any]], str]:
    """Those that have reported lately, and which one leads: by its lease, which a killed leader's report outlives."""
    link = runtime.engine.link
    if link is None:
        return [], ""
    prefix = runtime.settings.namespace
    names = link.command("ZRANGE", f"{prefix}:supervisors", 0, -1)
    reports = link.command("MGET", *[f"{prefix}:supervisor:{name.decode()}" for name in names]) if names else []
    found = [json.loads(report) for report in reports if report is not None]
    return found, leader_info(link, prefix).owner
