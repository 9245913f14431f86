"""A call that must not be sent twice, after its worker died with it: nobody knows whether it was sent."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from seawall import OutcomeUnknown
from seawall.actors.call_actor import CallActor
from seawall.actors.delivered import LocalCall, decode_delivery
from seawall.actors.queue_store import Bury, Delivery, Done, Settlement
from seawall.actors.record import Call, Progress
from seawall.actors.service import Service
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.view import BreakerView

SERVICE = Service(key="billing", name="Billing Server", base_url="http://billing:6004", idempotency="none")


def never(call: Call, *, original: dict[str, Any] | None = None) -> Any:
    pytest.fail("it was sent again")


def redelivered(*, waited: bool) -> Settlement:
    call = Call(
        id="c-1",
        service="billing",
        origin=SERVICE.origin,
        method="POST",
        target="/deduct",
        waited=waited,
        resend=False,
        reply_to="mailbox",
    )
    delivery = Delivery("billing.waited", "c-1", 1, 0, LocalCall(call, {}), Progress(), False, 0.0)
    delivered = decode_delivery(replace(delivery, token=2, deaths=1), lambda _: True)
    CallActor(SERVICE, never, BreakerView("billing", "Billing Server", MemoryStore()))(delivered)
    assert delivered.settlement is not None
    return delivered.settlement


def test_its_caller_is_told_that_the_outcome_is_unknown() -> None:
    settlement = redelivered(waited=True)
    assert isinstance(settlement, Done)
    assert settlement.mailbox == "mailbox"
    assert settlement.outcome is not None
    assert isinstance(settlement.outcome.error, OutcomeUnknown)


def test_in_the_background_it_becomes_a_dead_letter() -> None:
    settlement = redelivered(waited=False)
    assert isinstance(settlement, Bury)
    assert settlement.reason == "outcome unknown"
