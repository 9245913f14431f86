"""Scenarios that take long and do little begin with the first acceptance test, and are over when their own test comes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest

from tests.acceptance.harness import Stage, playing
from tests.acceptance.poison import deadly_call
from tests.acceptance.redis_outage import outage_of

#: Seconds of the long outage of the broker. `OUTAGE_SECONDS=30 make test` plays the promised one.
LONG_OUTAGE = float(os.environ.get("OUTAGE_SECONDS", "12"))


@pytest.fixture(scope="session")
def early(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with playing(
        tmp_path_factory.mktemp("early"),
        deadly_call=deadly_call,
        long_outage=partial(outage_of, LONG_OUTAGE, "killed"),
    ) as stage:
        yield stage


@pytest.fixture(scope="session", autouse=True)
def _begin_early(request: pytest.FixtureRequest) -> None:
    if any("early" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("early")
