"""Rates and percentiles from totals and samples of them."""

from __future__ import annotations

from seawall.actors.meter import BUCKETS
from seawall.history import Sample, Totals, percentile, since, totals_of

WIDTH = len(BUCKETS) + 1


def took(**buckets: int) -> tuple[int, ...]:
    return tuple(buckets.get(f"b{number}", 0) for number in range(WIDTH))


class TestTotals:
    def test_what_a_caller_took_back_or_was_refused_is_no_call_of_the_service(self) -> None:
        ends = {"succeeded": 5, "answered_4xx": 1, "failed": 2, "dead": 1, "cancelled": 7, "refused": 9}
        tally = {("chroma", f"calls.waited.{outcome}"): times for outcome, times in ends.items()}
        assert totals_of(tally)["chroma"] == Totals(calls=9, failed=3)

    def test_attempts_are_told_by_their_bucket_and_buckets_of_another_release_are_left_out(self) -> None:
        tally = {("chroma", "took.2"): 4, ("chroma", "took.us"): 99, ("chroma", f"took.{WIDTH}"): 8}
        assert totals_of(tally)["chroma"].took == took(b2=4)

    def test_counts_that_somebody_emptied_make_no_negative_numbers(self) -> None:
        assert Totals(3, 1, took(b0=1)) - Totals(10, 4, took(b0=2)) == Totals()


class TestSince:
    samples = tuple(Sample(at) for at in (100.0, 110.0, 120.0, 130.0))

    def test_the_youngest_sample_that_is_old_enough(self) -> None:
        found = since(self.samples, 135.0, 20)
        assert found is not None
        assert found.at == 110.0

    def test_the_oldest_one_where_none_is(self) -> None:
        found = since(self.samples, 135.0, 60)
        assert found is not None
        assert found.at == 100.0
        assert since([], 135.0, 60) is None

    def test_none_where_the_one_before_is_of_another_time(self) -> None:
        assert since(self.samples, 1000.0, 60) is None


class TestPercentile:
    def test_attempts_lie_evenly_in_their_bucket(self) -> None:
        spread = took(b3=50, b4=50)  # 5 to 10 ms, 10 to 20 ms
        assert percentile(spread, 0.5) == 0.01
        assert percentile(spread, 0.75) == 0.015
        assert percentile(spread, 0.25) == 0.0075

    def test_what_took_longest_has_no_upper_bound(self) -> None:
        assert percentile(took(**{f"b{WIDTH - 1}": 3}), 0.99) == BUCKETS[-1]

    def test_nothing_is_not_quick(self) -> None:
        assert percentile(took(), 0.5) is None
