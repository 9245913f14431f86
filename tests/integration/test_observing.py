"""What the fleet remembers of itself: transitions, outages, samples, actions by hand, and the text for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from seawall import ResilientServiceClient, observing
from seawall.cli.desk import FleetDesk
from seawall.errors import NoWorker
from seawall.exposition import exposition
from seawall.fleet import ServiceLine, read_fleet
from seawall.history import keep_sample, totals_of
from seawall.observing import (
    note_action,
    outages_of,
    pause,
    read_actions,
    read_history,
    read_outages,
    read_transitions,
    resume,
)
from seawall.runtime import Runtime, registry
from seawall.supervisor.breaker import ForceClose, ForceOpen, Policy
from seawall.supervisor.page.scene import read_scene
from seawall.supervisor.view import BreakerView
from tests.support import Answer, CountingService, wait_until
from tests.support.house import RemoteHouse, caller


@pytest.fixture
def runtime(redis_url: str) -> Iterator[Runtime]:
    with caller(redis_url) as runtime:
        yield runtime


def view_of(runtime: Runtime, key: str = "chroma") -> BreakerView:
    policy = Policy(failure_threshold=1, recovery_timeout=0.01)
    view = BreakerView(key, key, runtime.engine.breakers, policy, count=runtime.engine.tally.add)
    view.start()
    return view


def play_an_outage(view: BreakerView, *, failed_trials: int = 0) -> None:
    view.failed(view._store.now(), view.generation, "connection refused")
    for number in range(failed_trials + 1):
        assert wait_until(lambda number=number: view.take_trial(f"trial-{number}"))
        if number < failed_trials:
            view.trial_failed(f"trial-{number}", "still refused")
    view.trial_succeeded(f"trial-{failed_trials}")


def line_of(runtime: Runtime, key: str = "chroma") -> ServiceLine:
    return next(line for line in read_fleet(runtime, registry).services if line.key == key)


class TestTransitions:
    def test_each_change_is_noted_once_whoever_made_it(self, runtime: Runtime) -> None:
        play_an_outage(view_of(runtime), failed_trials=1)
        found = list(reversed(read_transitions(runtime)))
        assert [(one["from"], one["to"]) for one in found] == [
            ("closed", "open"),
            ("open", "half_open"),
            ("half_open", "open"),
            ("open", "half_open"),
            ("half_open", "closed"),
        ]
        assert len({one["began"] for one in found}) == 1
        assert found[0]["why"] == "connection refused"
        assert not any(one["forced"] for one in found)

    def test_an_outage_lasts_until_it_is_closed_however_many_trials_fail(self, runtime: Runtime) -> None:
        view = view_of(runtime)
        play_an_outage(view, failed_trials=2)
        play_an_outage(view)
        view.failed(view._store.now(), view.generation, "gone again")
        now, last, first = read_outages(runtime)
        assert now["ended"] is None
        assert now["why"] == "gone again"
        assert first["ended"] <= last["began"]
        assert first["seconds"] == pytest.approx(first["ended"] - first["began"])
        line = line_of(runtime)
        assert line.last_outage is not None
        assert line.last_outage["ended"] is None
        assert line.mttr == pytest.approx((first["seconds"] + last["seconds"]) / 2, abs=0.002)

    def test_one_look_at_the_page_derives_outages_once(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        play_an_outage(view_of(runtime))
        derived = []
        monkeypatch.setattr(observing, "outages_of", lambda *given: derived.append(outages_of(*given)) or derived[-1])
        scene = read_scene(FleetDesk(runtime), None)
        assert derived == [scene.outages]
        assert scene.outages[0]["service"] == "chroma"
        assert scene.fleet["services"]["chroma"]["last_outage"]["ended"] is not None

    def test_trials_are_counted_by_their_end(self, runtime: Runtime) -> None:
        play_an_outage(view_of(runtime), failed_trials=2)
        runtime.engine.tally.flush()
        tally = line_of(runtime).tally
        assert (tally["trials.failed"], tally["trials.succeeded"], tally["to.open"]) == (2, 1, 3)

    def test_an_outage_whose_end_an_older_release_did_not_note_ended_with_the_record(self, runtime: Runtime) -> None:
        view = view_of(runtime)
        play_an_outage(view)
        transitions, records = read_transitions(runtime), runtime.engine.breakers.read_all()
        (outage,) = outages_of(transitions[1:], records, now=transitions[0]["at"] + 1000)
        assert outage["ended"] == pytest.approx(transitions[0]["at"], abs=0.1)

    def test_an_outage_whose_beginning_an_older_release_did_not_note_is_no_part_of_the_one_before(
        self, runtime: Runtime
    ) -> None:
        view = view_of(runtime)
        play_an_outage(view)
        assert runtime.engine.link is not None
        assert runtime.engine.link.command("HGET", "seawall:breaker:chroma", "began") is None

    def test_by_hand(self, runtime: Runtime) -> None:
        view = view_of(runtime)
        view.by_hand(ForceOpen())
        view.by_hand(ForceClose())
        closed, opened = read_transitions(runtime)
        assert opened["forced"]
        assert (closed["from"], closed["to"]) == ("open", "closed")


class TestSamples:
    def test_charts_are_the_differences_of_totals(self, runtime: Runtime) -> None:
        link, namespace = runtime.engine.link, runtime.settings.namespace
        assert link is not None
        for calls, failed in ((10, 0), (25, 5), (25, 5)):
            tally = {("chroma", "calls.waited.succeeded"): calls, ("chroma", "calls.waited.failed"): failed}
            keep_sample(link, namespace, tally)
        series = read_history(runtime)["chroma"]
        assert (series["calls"], series["failed"]) == ([20, 0], [5, 0])
        assert len(series["at"]) == 2

    def test_what_another_release_wrote_is_no_chart(self, runtime: Runtime) -> None:
        assert runtime.engine.link is not None
        runtime.engine.link.command("XADD", "seawall:history", "*", "other", "form")
        assert read_history(runtime) == {}


class TestActions:
    def test_who_did_what_and_when_newest_first(self, runtime: Runtime) -> None:
        note_action(runtime, "mira", "open", "chroma")
        note_action(runtime, "jo", "replay", "git", "12 dead letters" + "!" * 1000)
        newest, oldest = read_actions(runtime)
        assert (oldest["who"], oldest["what"], oldest["service"]) == ("mira", "open", "chroma")
        assert newest["detail"].startswith("12 dead letters")
        assert len(newest["detail"]) == 200


class TestPauses:
    def test_a_paused_service_holds_its_background_calls_while_others_wait_for_answers(
        self, runtime: Runtime, redis_url: str
    ) -> None:
        with CountingService() as service:
            client = ResilientServiceClient(service.url, key="chroma")
            with RemoteHouse(redis_url):
                pause(runtime, "chroma")
                handle = client.enqueue("POST", "/held", json={})
                assert client.get("/now").status_code == 200
                line = line_of(runtime)
                assert (line.paused, line.held, service.count("/held")) == (True, 1, 0)
                resume(runtime, "chroma")
                service.wait_for(path="/held")
                wait_until(handle.done)


class TestExposition:
    def test_every_number_of_a_run_in_prometheus_form(self, runtime: Runtime, redis_url: str) -> None:
        with CountingService() as service:
            service.script("/gone", Answer(404))
            service.script("/sick", Answer(500), Answer(200))
            client = ResilientServiceClient(service.url, key="chroma", max_retries=2)
            with RemoteHouse(redis_url):
                for path in ("/a", "/b", "/gone", "/sick"):
                    client.get(path)
                handle = client.enqueue("POST", "/later", json={})
                wait_until(handle.done)
            numbers = _read(exposition(runtime, registry))  # the worker has stopped, and added what it had counted
        ends = {
            (labels["kind"], labels["outcome"]): value
            for labels, value in numbers["seawall_calls_total"]
            if value and labels["service"] == "chroma"
        }
        assert ends == {
            ("waited", "succeeded"): 3,
            ("waited", "answered_4xx"): 1,
            ("background", "succeeded"): 1,
        }
        assert _value(numbers, "seawall_attempts_total") == service.count() == 6
        assert _value(numbers, "seawall_retries_total") == 1
        assert _value(numbers, "seawall_call_duration_seconds_count") == 6
        assert 0 < _value(numbers, "seawall_call_duration_seconds_sum") < 5
        assert _value(numbers, "seawall_queue_wait_seconds_count") == 6
        assert {labels["state"]: value for labels, value in numbers["seawall_breaker_state"]} == {
            "closed": 1,
            "open": 0,
            "half_open": 0,
        }
        paths = [path for path in ("/gone", "/sick", "/later") if path in exposition(runtime, registry)]
        assert paths == []

    def test_a_caller_whom_nobody_served_counts_among_the_failures(self, runtime: Runtime) -> None:
        client = ResilientServiceClient("http://127.0.0.1:9", key="chroma")
        with pytest.raises(NoWorker):
            client.get("/a", deadline=5)
        tally = runtime.engine.queue.tally()
        assert tally["chroma", "calls.waited.expired"] == 1
        assert totals_of(tally)["chroma"].failed == 1

    def test_names_follow_prometheus_rules(self, runtime: Runtime) -> None:
        view_of(runtime).failed(1.0, 0, "refused")
        for family in text_string_to_metric_families(exposition(runtime, registry)):
            assert family.name.startswith("seawall_")
            assert family.documentation
            assert not family.name.endswith(("_total", "_milliseconds", "_ms"))
            names = {sample.name for sample in family.samples}
            assert family.type != "counter" or names <= {f"{family.name}_total"}

    def test_nothing_is_counted_where_metrics_are_off(self, redis_url: str) -> None:
        with caller(redis_url, metrics=False) as runtime, CountingService() as service:
            client = ResilientServiceClient(service.url, key="chroma")
            assert runtime.engine.link is not None
            keep_sample(runtime.engine.link, runtime.settings.namespace, {})
            with RemoteHouse(redis_url, metered=False):
                assert client.get("/a").status_code == 200
                line = line_of(runtime)
                assert (line.rate, line.error_share, line.latency) == (None, None, None)
            assert not [what for _, what in runtime.engine.queue.tally() if what.startswith(("calls.", "took."))]


def _read(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _value(numbers: dict[str, list[tuple[dict[str, str], float]]], name: str) -> float:
    (found,) = [value for labels, value in numbers[name] if labels.get("service") == "chroma"]
    return found
