"""An outage of which several threads learn is told once, by whoever learns first."""

from __future__ import annotations

import logging
import time

import pytest

from seawall.outage import Outage

logger = logging.getLogger("seawall.test_outage")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage().split(",")[0].split(" after ")[0] for record in caplog.records if record.name == logger.name
    ]


@pytest.fixture
def outage() -> Outage:
    return Outage(logger, "the broker")


def test_it_is_told_once_at_its_beginning_and_once_at_its_end(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        outage.over()
        for _ in range(3):
            outage.begins(OSError("refused"), time.monotonic())
        outage.over()
        outage.over()
    assert told(caplog) == ["the broker is away", "the broker is back"] * 2


def test_an_attempt_of_before_its_end_that_fails_late_begins_no_other(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    asked_at = time.monotonic()
    outage.begins(OSError("refused"), asked_at)
    outage.over()
    outage.begins(OSError("refused"), asked_at)
    assert told(caplog) == ["the broker is away", "the broker is back"]
    outage.begins(OSError("refused"), time.monotonic())
    assert told(caplog)[2:] == ["the broker is away"]
