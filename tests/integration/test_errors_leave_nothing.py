"""An attempt that fails is gone when it is settled: no cycle keeps its error, with all that was read, until a collection."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator

import pytest
import requests

from seawall.actors.call_actor import CallActor
from seawall.actors.delivered import Delivered, LocalCall, decode_delivery
from seawall.actors.queue_store import Delivery, Done
from seawall.actors.record import Progress
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.view import BreakerView
from tests.support.loopback import Loopback, call_to, once, transport_to

ENDS = {
    "no answer": b"",
    "a body over the cap": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + b"x" * 2048 + b"\r\n",
    "a body that ends early": b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nabc",
}


@pytest.fixture
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("end", ENDS)
def test_a_failed_attempt_is_gone_when_it_is_settled(end: str) -> None:
    with Loopback(once(ENDS[end])) as server:
        transport = transport_to(server.url, max_response_bytes=1024)
        delivered = delivery_to(server.url)
        CallActor(transport.service, transport.send, BreakerView("chroma", "Chroma", MemoryStore()))(delivered)
        error = error_of(delivered)
        delivered.let_go()
    assert error() is None


def delivery_to(url: str) -> Delivered:
    call = call_to(transport_to(url), max_attempts=1, waited=True)
    delivery = Delivery("chroma.waited", call.id, 1, 0, LocalCall(call, {}), Progress(), False, time.time())
    return decode_delivery(delivery, lambda _: True)


def error_of(delivered: Delivered) -> weakref.ref[Exception]:
    assert isinstance(delivered.settlement, Done)
    assert delivered.settlement.outcome is not None
    error = delivered.settlement.outcome.error
    assert isinstance(error, requests.RequestException)
    return weakref.ref(error)
