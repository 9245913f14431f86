"""Values of options that are no settings: what may be written, and what is answered to anything else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import click

__all__ = ["age", "calls_a_second", "reads"]

#: Seconds in each unit of an age.
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
#: Calls a second of the slowest pace: one in a quarter of an hour. What is slower is a slip of the keyboard.
SLOWEST = 0.001


def reads(read: Callable[[str], float]) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """An option's callback that reads its text; a ValueError of `read` is a usage error, and says what is allowed."""

    def check(ctx: click.Context, parameter: click.Parameter, given: str | None) -> float | None:
        if given is None:
            return None
        try:
            return read(given)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return check


def age(text: str) -> float:
    """Seconds of an age. Raises ValueError that says what is allowed.

    >>> [age(text) for text in ("90", "90s", "1.5m", "2h", "7d")]
    [90.0, 90.0, 90.0, 7200.0, 604800.0]
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if found is None:
        raise ValueError(f"must be an age such as 90s, 15m, 2h or 7d (a plain number is seconds), not {text!r}")
    return float(found[1]) * UNITS[found[2]]


def calls_a_second(text: str) -> float:
    """Calls a second. Raises ValueError that says what is allowed."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (value != 0 and value < SLOWEST):
        raise ValueError(f"must be {SLOWEST} calls a second or more, or 0 for as fast as possible, not {text!r}")
    return value
