"""The fleet's numbers as Prometheus reads them: one text for the whole fleet, whichever web process is asked.

The counts lie in the broker, so a counter never goes back when a process dies. Labels are services, and words from short
fixed lists; a path or a call's id never becomes one. docs/operations.md says what each number means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily as Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from seawall.actors.meter import BUCKETS, OUTCOMES
from seawall.fleet import COUNTED, Fleet, read_fleet
from seawall.registry import Registry
from seawall.runtime import Runtime

__all__ = ["exposition", "exposition_of"]

_Value = Callable[[Mapping[str, int]], float]

_KINDS = ("waited", "background")
_STATES = ("closed", "open", "half_open")
_TRIALS = ("succeeded", "failed", "inconclusive")


def exposition(runtime: Runtime, registry: Registry) -> str:
    """The text of `GET /metrics`, in Prometheus' text format. Raises BrokerUnavailable."""
    return exposition_of(read_fleet(runtime, registry))


def exposition_of(fleet: Fleet) -> str:
    """The same for a fleet that was read already."""
    numbers = CollectorRegistry()
    numbers.register(_Numbers(fleet))
    return generate_latest(numbers).decode()


class _Numbers(Collector):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        yield from self._calls()
        yield from self._breakers()
        yield from self._outages()
        yield from self._queues()
        yield from self._processes()

    def _calls(self) -> Iterator[Metric]:
        lines = self._fleet.services
        calls = Counter("seawall_calls", "Calls that have ended.", labels=("service", "kind", "outcome"))
        for line in lines:
            for kind in _KINDS:
                for outcome in OUTCOMES:
                    calls.add_metric((line.key, kind, outcome), line.tally.get(f"calls.{kind}.{outcome}", 0))
        yield calls
        yield self._counter("attempts", "Requests that were made of services.", lambda tally: sum(_took(tally)))
        yield self._counter("retries", "Attempts that were scheduled again.", lambda tally: tally.get("retries", 0))
        yield self._histogram("call_duration_seconds", "How long attempts took.", "took")
        yield self._histogram("queue_wait_seconds", "How long calls waited for a free slot before an attempt.", "wait")
        events = Counter("seawall_background_events", "What happened to background calls.", labels=("service", "event"))
        for line in lines:
            for event in COUNTED:
                events.add_metric((line.key, event), line.tally.get(event, 0))
        yield events
        dead = Counter("seawall_dead_letters", "Calls that became dead letters.", labels=("service", "reason"))
        for line in lines:
            for what, times in line.tally.items():
                if what.startswith("dead."):
                    dead.add_metric((line.key, what.removeprefix("dead.")), times)
        yield dead

    def _breakers(self) -> Iterator[Metric]:
        state = Gauge("seawall_breaker_state", "1 for the state that a breaker is in.", labels=("service", "state"))
        entered = Counter(
            "seawall_breaker_transitions", "Times that a breaker entered a state.", labels=("service", "state")
        )
        trials = Counter("seawall_breaker_trials", "Trials of open breakers.", labels=("service", "outcome"))
        for line in self._fleet.services:
            for name in _STATES:
                state.add_metric((line.key, name), line.breaker["state"] == name)
                entered.add_metric((line.key, name), line.tally.get(f"to.{name}", 0))
            for outcome in _TRIALS:
                trials.add_metric((line.key, outcome), line.tally.get(f"trials.{outcome}", 0))
        yield from (state, entered, trials)
        text = "Calls that an open breaker refused, in their callers' processes."
        yield self._counter("breaker_refusals", text, lambda tally: tally.get("refused", 0))

    def _outages(self) -> Iterator[Metric]:
        yield self._counter("outages", "Outages that have ended.", lambda tally: tally.get("outages", 0))
        text = "How long all outages that have ended lasted, in seconds."
        yield self._counter("outage_seconds", text, lambda tally: tally.get("outage.ms", 0) / 1000)
        began = Gauge(
            "seawall_last_outage_timestamp_seconds", "When the last outage began, Unix time.", labels=("service",)
        )
        mean = Gauge(
            "seawall_mean_time_to_recovery_seconds", "Mean length of the outages that have ended.", labels=("service",)
        )
        for line in self._fleet.services:
            if line.last_outage is not None:
                began.add_metric((line.key,), line.last_outage["began"])
            if line.mttr is not None:
                mean.add_metric((line.key,), line.mttr)
        yield from (began, mean)

    def _queues(self) -> Iterator[Metric]:
        ready = Gauge("seawall_queue_ready", "Calls that a worker could start now.", labels=("service", "kind"))
        for line in self._fleet.services:
            ready.add_metric((line.key, "waited"), line.waited.ready)
            ready.add_metric((line.key, "background"), line.background.ready - line.held)
        yield ready
        gauges: tuple[tuple[str, str, str], ...] = (
            ("queue_held", "Background calls that wait for an open breaker, or are paused.", "held"),
            ("queue_due_later", "Calls that wait for their next attempt or their time.", "due_later"),
            ("queue_oldest_age_seconds", "Age of the background call that has been ready longest.", "oldest_waiting"),
            ("in_flight", "Calls that are being made.", "running"),
            ("in_flight_bound", "Calls that may be made at once.", "slots"),
            ("dead_letter_count", "Dead letters that are kept now.", "dead"),
            ("service_paused", "1 while the service's background calls are paused by hand.", "paused"),
            ("service_workers", "Workers that serve the service.", "workers"),
        )
        rows = {line.key: line.as_json() for line in self._fleet.services}
        for name, text, field in gauges:
            gauge = Gauge(f"seawall_{name}", text, labels=("service",))
            for key, row in rows.items():
                gauge.add_metric((key,), row[field])
            yield gauge
        left = Gauge("seawall_retry_budget_left", "Retries that all workers may make now.", labels=("service",))
        for line in self._fleet.services:
            if line.retries_left is not None:
                left.add_metric((line.key,), line.retries_left)
        yield left

    def _processes(self) -> Iterator[Metric]:
        fleet = self._fleet
        yield Gauge("seawall_workers", "Workers that report.", len(fleet.workers))
        yield Gauge("seawall_supervisors", "Supervisors that report.", len(fleet.supervisors))
        yield Gauge("seawall_leader", "1 while a supervisor leads.", bool(fleet.leader))
        slots, busy = (sum(worker.get(name, 0) for worker in fleet.workers) for name in ("slots", "busy"))
        yield Gauge("seawall_worker_slots", "Calls that all workers can make at once.", slots)
        yield Gauge("seawall_worker_busy", "Slots in use at the last heartbeats.", busy)

    def _counter(self, name: str, text: str, value: _Value) -> Metric:
        family = Counter(f"seawall_{name}", text, labels=("service",))
        for line in self._fleet.services:
            family.add_metric((line.key,), value(line.tally))
        return family

    def _histogram(self, name: str, text: str, what: str) -> Metric:
        family = Histogram(f"seawall_{name}", text, labels=("service",))
        for line in self._fleet.services:
            seen, buckets = 0, []
            for bound, number in zip((*map(str, BUCKETS), "+Inf"), _took(line.tally, what), strict=True):
                seen += number
                buckets.append((bound, float(seen)))
            family.add_metric((line.key,), buckets, line.tally.get(f"{what}.us", 0) / 1e6)
        return family


def _took(tally: Mapping[str, int], what: str = "took") -> list[int]:
    return [tally.get(f"{what}.{bucket}", 0) for bucket in range(len(BUCKETS) + 1)]
