"""What the tables of several commands share."""

from __future__ import annotations

import sys
from typing import Any

from seawall.errors import ConfigurationError

__all__ = ["console", "duration"]

#: Columns of a table that no terminal limits.
UNLIMITED = 240


def console() -> Any:
    """A console on standard output; one that is no terminal gets whole lines. Raises ConfigurationError without rich."""
    try:
        from rich.console import Console
    except ModuleNotFoundError as error:
        raise ConfigurationError("tables need rich: pip install 'seawall[server]', or use --json") from error
    return Console(width=None if sys.stdout.isatty() else UNLIMITED, highlight=False, emoji=False)


def duration(seconds: float) -> str:
    """A length of time with two figures at the most.

    >>> [duration(seconds) for seconds in (0.4, 12.3, 75, 5400, 200_000)]
    ['0 s', '12 s', '75 s', '90 min', '56 h']
    """
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.0f} h"
