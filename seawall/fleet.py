"""The fleet as the broker knows it: services, breakers, queues, workers, supervisors. For status, web and checks."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from seawall.actors.queue_store import Counts
from seawall.actors.service import Service, queue_names, service_of_queue
from seawall.actors.views import policy_of
from seawall.registry import Registry
from seawall.runtime import Runtime
from seawall.supervisor.breaker import Record, State, effective_state

__all__ = ["Fleet", "ServiceLine", "read_fleet"]


@dataclass(frozen=True, slots=True)
class ServiceLine:
    """One service: its breaker as in `get_status()`, and its two queues."""

    key: str
    breaker: dict[str, Any]
    waited: Counts
    background: Counts

    @property
    def held(self) -> int:
        """Background calls that wait for an open breaker."""
        return self.background.ready if self.breaker["state"] != "closed" else 0

    def as_json(self) -> dict[str, Any]:
        return self.breaker | {
            "queued": self.waited.ready + self.background.ready - self.held,
            "held": self.held,
            "due_later": self.waited.due + self.background.due,
            "running": self.waited.leased + self.background.leased,
            "dead": self.waited.dead + self.background.dead,
            "workers": self.waited.workers,
            "oldest_waiting": self.background.oldest,
        }


@dataclass(frozen=True, slots=True)
class Fleet:
    services: list[ServiceLine] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
    supervisors: list[dict[str, Any]] = field(default_factory=list)
    leader: str = ""

    def as_json(self) -> dict[str, Any]:
        """The documented form of `seawall status --json`."""
        return {
            "services": {line.key: line.as_json() for line in self.services},
            "workers": self.workers,
            "supervisors": self.supervisors,
            "leader": self.leader or None,
        }


def read_fleet(runtime: Runtime, registry: Registry) -> Fleet:
    """The fleet now, in a handful of round trips. Raises BrokerUnavailable."""
    queue, breakers = runtime.engine.queue, runtime.engine.breakers
    records = breakers.read_all()
    reports = [json.loads(report) for report in queue.workers()]
    keys = {service.key for service in registry.all()} | set(records)
    keys |= {key for name in queue.queues() if (key := service_of_queue(name))}
    names = {key: about for report in reports for key, about in report.get("services", {}).items()}
    order = sorted(keys)
    counts = iter(queue.counts([name for key in order for name in queue_names(key)]))
    lines = []
    for key in order:
        status = _status(registry.find(key), key, names.get(key, key), records.get(key), breakers.now())
        lines.append(ServiceLine(key, status, next(counts), next(counts)))
    supervisors, leader = _supervisors(runtime)
    return Fleet(lines, sorted(reports, key=lambda report: str(report.get("id"))), supervisors, leader)


def _status(service: Service | None, key: str, name: str, record: Record | None, now: float) -> dict[str, Any]:
    """The fields of `get_status()`, from the stored record rather than from a process's view."""
    record = record or _untouched(service)
    return {
        "service": service.name if service is not None else name,
        "key": key,
        "state": effective_state(record, now).value,
        "consecutive_failures": record.failures,
        "failure_threshold": record.failure_threshold,
        "recovery_timeout": record.recovery_timeout,
        "opened_at": record.opened_at or None,
        "retry_after": 0.0 if record.state is State.CLOSED else max(0.0, record.next_trial_at - now),
        "last_error": record.last_error or None,
        "as_of": now or time.time(),
    }


def _untouched(service: Service | None) -> Record:
    if service is None:
        return Record()
    policy = policy_of(service)
    return Record(failure_threshold=policy.failure_threshold, recovery_timeout=policy.recovery_timeout)


def _supervisors(runtime: Runtime) -> tuple[list[dict[str, Any]], str]:
    """Those that have reported lately, and which of them leads."""
    link = runtime.engine.link
    if link is None:
        return [], ""
    prefix = runtime.settings.namespace
    names = link.command("ZRANGE", f"{prefix}:supervisors", 0, -1)
    reports = link.command("MGET", *[f"{prefix}:supervisor:{name.decode()}" for name in names]) if names else []
    found = [json.loads(report) for report in reports if report is not None]
    leader = next((str(report["id"]) for report in found if report.get("leads")), "")
    return found, leader
