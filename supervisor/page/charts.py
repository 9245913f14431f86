"""Charts as inline SVG: no script, no style but classes, and a sentence for whoever does not see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

__all__ = ["HOUR", "meter", "sparkline", "strip", "timeline"]

#: Seconds that charts look back.
HOUR = 3600.0
#: Points of a small chart: one for each 40 seconds.
POINTS = 90
#: Units of its box; the page stretches it.
WIDTH, HEIGHT = 180, 36
#: Width of the strip's box, and of its narrowest segment: a short outage must not vanish.
STRIP, NARROWEST = 1000.0, 5.0


def timeline(times: Sequence[float], values: Sequence[float], now: float) -> list[float]:
    """The values as POINTS averages over the last hour, 0 where nothing was noted."""
    sums, counts = [0.0] * POINTS, [0] * POINTS
    for at, value in zip(times, values, strict=True):
        index = int((at - now + HOUR) / HOUR * POINTS)
        if 0 <= index <= POINTS:
            index = min(index, POINTS - 1)
            sums[index] += value
            counts[index] += 1
    return [total / number if number else 0.0 for total, number in zip(sums, counts, strict=True)]


def sparkline(values: Sequence[float], kind: str, label: str, *, top: float = 0.0) -> Markup:
    """An area under a line. `top` is at least the value at the upper edge; else it is the highest one."""
    highest = max([top, *values]) or 1.0
    step = WIDTH / max(1, len(values) - 1)
    points = [f"{at * step:.0f} {HEIGHT - 2 - value / highest * (HEIGHT - 5):.1f}" for at, value in enumerate(values)]
    line = "L".join(points)
    return Markup(
        '<svg class="spark {}" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="area" d="M0 {}L{}L{} {}Z"/><path class="line" d="M{}"/></svg>'
    ).format(kind if any(values) else f"{kind} none", WIDTH, HEIGHT, label, HEIGHT, line, WIDTH, HEIGHT, line)


def meter(part: float, whole: float, label: str) -> Markup:
    """A thin bar, full where `part` has reached `whole`."""
    filled = 100 * min(1.0, part / whole) if whole > 0 else 0.0
    return Markup(
        '<svg class="meter{}" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="all" width="100" height="6"/><rect class="part" width="{}" height="6"/></svg>'
    ).format(" full" if filled >= 100 else "", label, f"{filled:.0f}")


def strip(transitions: Sequence[Mapping[str, Any]], state: str, now: float) -> Markup:
    """A breaker's states in the last hour, from its transitions, the newest first; `state` is the one of now."""
    begins = now - HOUR
    pieces, until = [], now
    for step in transitions:
        pieces.append((max(begins, step["at"]), until, step["to"]))
        until = step["at"]
        if until <= begins:
            break
    else:
        pieces.append((begins, max(begins, until), transitions[-1]["from"] if transitions else state))
    pieces.sort(key=lambda piece: piece[2] != "closed")  # the others are drawn over it
    drawn = [_segment(start, end, what, begins) for start, end, what in pieces if end > start]
    changes = sum(1 for step in transitions if step["at"] > begins)
    label = (
        f"The last hour: {changes} change{'' if changes == 1 else 's'} of state"
        if changes
        else "No change in the last hour"
    )
    return Markup(
        '<svg class="strip" viewBox="0 0 {} 10" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(f"{STRIP:.0f}", label, Markup("").join(drawn))


def _segment(start: float, end: float, state: str, begins: float) -> Markup:
    left, right = ((at - begins) / HOUR * STRIP for at in (start, end))
    wide = right - left if state == "closed" else max(NARROWEST, right - left)
    return Markup('<rect class="was-{}" x="{}" width="{}" y="{}" height="{}"/>').format(
        escape(state),
        f"{min(left, STRIP - wide):.1f}",
        f"{wide:.1f}",
        *((3, 4) if state == "closed" else (0, 10)),
    )
