"""When schedules are due: intervals from the epoch, crontab expressions in a time zone, and the days when clocks change."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall import ticks
from seawall.ticks import LEAST_EVERY, Cron, Every, Ticks, every_kind, zone_kind

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def at(text: str, zone: str = "UTC", *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def walk(ticks: Ticks, start: str, zone: str, count: int) -> list[str]:
    """The next ticks from this local time on, as the clock on the wall shows them."""
    moment, shown = at(start, zone), []
    for _ in range(count):
        found = ticks.after(moment)
        assert found is not None
        assert found > moment
        moment = found
        shown.append(f"{datetime.fromtimestamp(moment, ZoneInfo(zone)):%d %H:%M %Z}")
    return shown


class TestEvery:
    def test_ticks_are_multiples_counted_from_the_epoch(self) -> None:
        minutes = Every(60)
        assert minutes.after(at("2026-11-24T20:06:43.5")) == at("2026-11-24T20:07:00")
        assert minutes.after(at("2026-11-24T20:07:00")) == at("2026-11-24T20:08:00")
        assert Every(0.25).after(1000.0) == 1000.25

    def test_latest_is_the_last_one_that_is_over_and_stands_for_all_before(self) -> None:
        minutes = Every(60)
        assert minutes.latest(600.0, after=0.0) == 600.0
        assert minutes.latest(659.9, after=0.0) == 600.0
        assert minutes.latest(659.9, after=600.0) is None

    @given(st.floats(LEAST_EVERY, 1e7), st.floats(0, 4e9))
    def test_every_process_finds_the_same_ticks(self, seconds: float, moment: float) -> None:
        """From wherever it looks, and though a store keeps milliseconds."""
        every = Every(seconds)
        tick = every.after(moment)
        assert moment < tick <= moment + seconds + 0.001
        assert tick == round(tick, 3)
        assert every.after(tick) > tick
        assert every.latest(tick, after=moment) == tick
        assert every.latest(every.after(tick) - 0.0005, after=moment) == tick
        assert every.latest(tick, after=tick) is None


class TestCron:
    def test_is_read_in_utc_unless_told_otherwise(self) -> None:
        assert walk(Cron("30 3 * * *"), "2026-11-24T12:00", "UTC", 2) == ["25 03:30 UTC", "26 03:30 UTC"]
        assert Cron("30 3 * * *", BERLIN).after(at("2026-11-24T12:00")) == at("2026-11-25T02:30")

    def test_latest_stands_for_all_that_were_missed(self) -> None:
        minutes = Cron("* * * * *", BERLIN)
        now = at("2026-11-24T20:06:43")
        assert minutes.latest(now, after=now - 5 * 365 * 86400) == at("2026-11-24T20:06")
        assert minutes.latest(now, after=at("2026-11-24T20:05")) == at("2026-11-24T20:06")
        assert minutes.latest(now, after=at("2026-11-24T20:06")) is None
        assert minutes.latest(at("2026-11-24T20:07"), after=at("2026-11-24T20:06")) == at("2026-11-24T20:07")
        assert Cron("0 0 29 2 *").latest(now, after=0.0) == at("2024-02-29T00:00")

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(["30 2 * * *", "15,45 1,2,3 * * *", "0 * * * *", "*/20 2 * * *", "7 */2 * * *", "0 0 * * 1"]),
        st.sampled_from([BERLIN, NEW_YORK, "Australia/Lord_Howe", "America/Santiago", "UTC"]),
        st.sampled_from(
            ["2026-03-08", "2026-03-29", "2026-04-04", "2026-09-05", "2026-10-03", "2026-10-25", "2026-11-01"]
        ),
        st.integers(-2 * 86400, 2 * 86400),
        st.integers(0, 3 * 86400),
    )
    def test_latest_is_what_going_on_tick_by_tick_ends_at(
        self, expression: str, zone: str, day: str, offset: int, passed: int
    ) -> None:
        cron, start = Cron(expression, zone), at(f"{day}T02:00", "UTC") + offset
        latest, moment = None, cron.after(start)
        while moment is not None and moment <= start + passed:
            latest, moment = moment, cron.after(moment)
        assert cron.latest(start + passed, after=start) == latest


class TestClockChanges:
    """Europe: 2026-03-29 02:00 is 03:00, 2026-10-25 03:00 is 02:00. New York: 03-08 and 11-01, at 02:00."""

    @pytest.mark.parametrize(
        ("expression", "zone", "start", "expected"),
        [
            ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["29 03:00 CEST", "30 02:30 CEST"]),
            ("15,45 2 * * *", BERLIN, "2026-03-28T12:00", ["29 03:00 CEST", "30 02:15 CEST"]),
            ("0,30 2,3 * * *", BERLIN, "2026-03-28T12:00", ["29 03:00 CEST", "29 03:30 CEST", "30 02:00 CEST"]),
            ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["08 03:00 EDT", "09 02:30 EDT"]),
        ],
    )
    def test_fixed_time_in_the_gap_runs_once_right_after_it(
        self, expression: str, zone: str, start: str, expected: list[str]
    ) -> None:
        assert walk(Cron(expression, zone), start, zone, len(expected)) == expected

    @pytest.mark.parametrize(
        ("zone", "hour", "start", "expected"),
        [
            (BERLIN, 2, "2026-10-24T12:00", ["25 02:30 CEST", "26 02:30 CET"]),
            (NEW_YORK, 1, "2026-10-31T12:00", ["01 01:30 EDT", "02 01:30 EST"]),
        ],
    )
    def test_fixed_time_that_comes_twice_runs_the_first_time(
        self, zone: str, hour: int, start: str, expected: list[str]
    ) -> None:
        assert walk(Cron(f"30 {hour} * * *", zone), start, zone, 2) == expected

    def test_who_looks_in_the_second_of_two_equal_hours_finds_no_tick_again(self) -> None:
        daily = Cron("30 2 * * *", BERLIN)
        second = at("2026-10-25T02:10", BERLIN, fold=1)
        assert daily.after(second) == at("2026-10-26T02:30", BERLIN)
        first = at("2026-10-25T02:30", BERLIN)
        assert daily.latest(second, after=first - 3600) == first
        assert daily.latest(second, after=first) is None

    def test_hourly_job_runs_in_each_real_hour(self) -> None:
        hourly = Cron("0 * * * *", BERLIN)
        assert walk(hourly, "2026-03-29T00:30", BERLIN, 3) == ["29 01:00 CET", "29 03:00 CEST", "29 04:00 CEST"]
        twice = ["25 01:00 CEST", "25 02:00 CEST", "25 02:00 CET", "25 03:00 CET"]
        assert walk(hourly, "2026-10-25T00:30", BERLIN, 4) == twice
        there = ["01 01:00 EDT", "01 01:00 EST", "01 02:00 EST"]
        assert walk(Cron("0 * * * *", NEW_YORK), "2026-11-01T00:30", NEW_YORK, 3) == there

    def test_job_of_some_minutes_follows_the_clock_on_the_wall(self) -> None:
        """As in Debian's cron: no such hour, no run; twice the hour, twice the runs."""
        halves = Cron("*/30 2 * * *", BERLIN)
        assert walk(halves, "2026-03-29T00:30", BERLIN, 1) == ["30 02:00 CEST"]
        twice = ["25 02:00 CEST", "25 02:30 CEST", "25 02:00 CET", "25 02:30 CET", "26 02:00 CET"]
        assert walk(halves, "2026-10-25T00:30", BERLIN, 5) == twice

    def test_interval_knows_no_clock_changes(self) -> None:
        ends = at("2026-03-29T05:00", BERLIN)
        assert Every(3600).after(ends - 3600) == ends


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("expression", "said"),
        [
            ("@daily", "must be five fields of crontab, such as '30 3 * * *', not '@daily'"),
            ("* * * * * *", "must be five fields"),
            ("61 * * * *", "not '61 * * * *': bad minute"),
            ("0 24 * * *", "bad hour"),
            ("0 0 * * 8", "bad day-of-week"),
            ("*/0 * * * *", "bad minute"),
            ("0 0 30 2 *", "bad day-of-month"),
            ("", "must not be empty"),
        ],
    )
    def test_expression_that_is_none(self, expression: str, said: str) -> None:
        with pytest.raises(ValueError, match="must") as caught:
            Cron(expression)
        assert said in str(caught.value)

    def test_expression_that_never_comes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ticks, "_after", lambda *_: None)
        with pytest.raises(ValueError, match="names a time that never comes"):
            Cron("0 0 1 1 *")

    @pytest.mark.parametrize(
        ("zone", "said"),
        [
            (
                "Europe/Berln",
                "must be a time zone, such as Europe/Berlin, not 'Europe/Berln'; did you mean 'Europe/Berlin'?",
            ),
            ("../etc/passwd", "must be a time zone"),
            ("Europe", "must be a time zone"),
            ("", "must not be empty"),
        ],
    )
    def test_time_zone_that_is_none(self, zone: str, said: str) -> None:
        with pytest.raises(ValueError, match="must") as caught:
            Cron("* * * * *", zone)
        assert said in str(caught.value)

    def test_machine_without_time_zone_data_is_told_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing() -> set[str]:
            return set()

        monkeypatch.setattr(zoneinfo, "available_timezones", nothing)
        with pytest.raises(ValueError, match="pip install tzdata"):
            zone_kind().check("Nowhere/Here")

    @pytest.mark.parametrize("seconds", [0, -1, 0.05, True, "60", float("inf"), float("nan")])
    def test_interval_that_is_none(self, seconds: object) -> None:
        with pytest.raises(ValueError, match=r"must be a number of seconds, 0\.1 or more"):
            every_kind().check(seconds)


def test_ticks_say_how_they_tick() -> None:
    assert str(Every(0.5)) == "every 0.5 s"
    assert str(Cron("30 3 * * *", BERLIN)) == "cron '30 3 * * *' in Europe/Berlin"
    assert datetime.fromtimestamp(Every(86400).after(0.0), UTC).hour == 0
