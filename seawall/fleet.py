"""The fleet as the broker knows it: services, breakers, queues, workers, supervisors. For status, web and checks."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
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
from seawall.registry import Registry
from seawall.runtime import Runtime
from seawall.supervisor.breaker import Record
from seawall.supervisor.leader import leader_info
from seawall.supervisor.view import describe

__all__ = ["COUNTED", "Fleet", "ServiceLine", "read_fleet"]

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

    @property
    def waiting(self) -> int:
        """Calls that a worker could start now."""
        return self.waited.ready + self.background.ready - self.held

    @property
    def held(self) -> int:
        """Background calls that wait for an open breaker."""
        return self.background.ready if self.breaker["state"] != "closed" else 0

    def as_json(self) -> dict[str, Any]:
        return self.breaker | {
            "queued": self.waiting,
            "held": self.held,
            "due_later": self.waited.due + self.background.due,
            "running": self.waited.leased + self.background.leased,
            "dead": self.waited.dead + self.background.dead,
            "workers": self.waited.workers,
            "oldest_waiting": self.background.oldest,
            "counts": {what: self.tally.get(what, 0) for what in COUNTED},
        }


@dataclass(frozen=True, slots=True)
class Fleet:
    services: list[ServiceLine] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
    supervisors: list[dict[str, Any]] = field(default_factory=list)
    leader: str = ""

    def as_json(self) -> dict[str, Any]:
        """The form of `seawall status --json`, documented in docs/commands.md."""
        return {
            "services": {line.key: line.as_json() for line in self.services},
            "workers": self.workers,
            "supervisors": self.supervisors,
            "leader": self.leader or None,
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
    tally: dict[str, dict[str, int]] = {}
    for (key, what), times in queue.tally().items():
        tally.setdefault(key, {})[what] = times
    lines = []
    for key in order:
        about = _About.of(registry.find(key), key, served.get(key))
        breaker = _status(about, key, records.get(key), breakers.now())
        lines.append(ServiceLine(key, breaker, next(counts), next(counts), tally.get(key, {})))
    supervisors, leader = _supervisors(runtime)
    return Fleet(lines, sorted(reports, key=lambda report: str(report.get("id"))), supervisors, leader)


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
