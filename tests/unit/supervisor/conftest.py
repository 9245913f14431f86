"""The system's clock at a stand, and what a test's own thread has logged."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, tzinfo
from typing import Self

import pytest

from seawall.supervisor import schedules, trials

__all__ = ["STOPPED_AT", "logged"]

#: The time by the stopped clock; not that of any test's own clock.
STOPPED_AT = 1_800_000_000.0


class _StoppedDatetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(STOPPED_AT, tz)


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """For rooms that set timers: a timer of 60 s is one of 60 s, however long the machine stands still meanwhile."""
    for room in (schedules, trials):
        monkeypatch.setattr(room, "datetime", _StoppedDatetime)


def logged(caplog: pytest.LogCaptureFixture, logger: str) -> list[logging.LogRecord]:
    """What this logger was told by the test's own thread; those of other tests may still say something at any time."""
    here = threading.get_ident()
    return [record for record in caplog.records if record.name == logger and record.thread == here]
