"""Charts that the server draws."""

from __future__ import annotations

import re

from seawall.supervisor.page.charts import HOUR, POINTS, meter, sparkline, strip, timeline

NOW = 10_000.0


def step(ago: float, old: str, new: str) -> dict[str, object]:
    return {"at": NOW - ago, "from": old, "to": new}


def segments(drawn: str) -> list[tuple[str, float, float]]:
    found = re.findall(r'class="was-(\w+)" x="([\d.]+)" width="([\d.]+)"', drawn)
    return sorted((state, float(left), float(wide)) for state, left, wide in found)


def test_a_timeline_averages_what_falls_together_and_leaves_out_what_is_older() -> None:
    values = timeline([NOW - HOUR - 100, NOW - 5, NOW - 4], [9.0, 1.0, 3.0], NOW)
    assert len(values) == POINTS
    assert (sum(values), values[-1]) == (2.0, 2.0)


def test_a_chart_says_what_it_shows() -> None:
    drawn = sparkline([0, 1], "calls", "<now>")
    assert 'role="img" aria-label="&lt;now&gt;"' in drawn
    assert "style=" not in drawn
    assert 'class="spark calls none"' in sparkline([0, 0], "calls", "")
    assert 'width="50"' in meter(4, 8, "")
    assert "full" in meter(9, 8, "")


def test_a_strip_has_each_state_at_its_time() -> None:
    newest_first = [step(900, "half_open", "closed"), step(1000, "open", "half_open"), step(1800, "closed", "open")]
    assert segments(strip(newest_first, "closed", NOW)) == [
        ("closed", 0.0, 500.0),
        ("closed", 750.0, 250.0),
        ("half_open", 722.2, 27.8),
        ("open", 500.0, 222.2),
    ]


def test_a_strip_without_transitions_shows_the_state_of_now() -> None:
    assert segments(strip([], "open", NOW)) == [("open", 0.0, 1000.0)]
    assert segments(strip([step(5000, "closed", "open")], "open", NOW)) == [("open", 0.0, 1000.0)]


def test_a_short_outage_does_not_vanish() -> None:
    drawn = segments(strip([step(1, "open", "closed"), step(2, "closed", "open")], "closed", NOW))
    assert [wide for state, _, wide in drawn if state == "open"] == [5.0]
