"""A fetched message on its way through Dramatiq's worker, and what shall become of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.encoder import JSONEncoder

from seawall.actors.queue_store import Delivery, Settlement
from seawall.actors.record import Call, Malformed, decode_call

__all__ = ["Delivered", "LocalCall", "decode_delivery", "encode_message"]

#: Our own encoder: the host application may have changed Dramatiq's global one.
_encoder = JSONEncoder()


class LocalCall:
    """A call that never leaves its process, with the caller's own keywords and the objects that cannot be encoded."""

    __slots__ = ("call", "original")

    def __init__(self, call: Call, original: dict[str, Any]) -> None:
        self.call = call
        self.original = original


class Delivered(MessageProxy):
    """Dramatiq's view of a delivery. Without a settlement, acknowledging it gives it back.

    A call is its own message: what Dramatiq asks for are attributes, and a Message is made of it only when one is needed.
    """

    def __init__(
        self,
        delivery: Delivery,
        message: Any = None,
        *,
        call: Call | None = None,
        original: dict[str, Any] | None = None,
    ) -> None:
        self.failed = False
        self._exception: BaseException | None = None
        self.delivery = delivery
        self.call = call
        self.original = original
        self.settlement: Settlement | None = None
        self.reason = "rejected"
        self.ran: tuple[float, float] | None = None
        """When its attempt started, on the breaker's clock, and how many seconds it took; None without an attempt."""
        if message is not None:
            self._message = message
        else:
            self.queue_name = self.actor_name = delivery.queue
            self.message_id = delivery.id
            self.args, self.kwargs, self.options = (self,), {}, {}

    def __getattr__(self, name: str) -> Any:
        if name == "_message":
            self._message = dramatiq.Message(
                queue_name=self.queue_name,
                actor_name=self.actor_name,
                args=self.args,
                kwargs=self.kwargs,
                options=self.options,
                message_id=self.message_id,
            )
            return self._message
        return super().__getattr__(name)

    @property
    def message(self) -> Delivered:
        """Itself: for Dramatiq's threads, whose queue has items with a message each."""
        return self

    def let_go(self) -> None:
        """It is settled. Dramatiq's thread keeps the message until its next one; what it carried is not kept with it."""
        self.settlement = self.original = self._exception = None
        if self.call is not None:
            self.args = ()

    # A delivery equals itself only. Dramatiq compares messages, and a call's message has the delivery among its arguments.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<call {self.delivery.id} on {self.delivery.queue}>"

    __str__ = __repr__


def decode_delivery(delivery: Delivery, known: Callable[[str], bool]) -> Delivered:
    """The message of a delivery. `known` says whether an actor exists. Raises Malformed or TooNew.

    A payload that starts with `{` is a Dramatiq message as its own encoder writes it; everything else is a call record,
    whose actor is the one that serves its queue. The queue is the one that it was fetched from, whatever the message says.
    """
    payload = delivery.payload
    if isinstance(payload, LocalCall):
        return Delivered(delivery, call=payload.call, original=payload.original)
    if payload[:1] == b"{":
        return Delivered(delivery, _dramatiq_message(delivery))
    if not known(delivery.queue):
        raise Malformed("a call record on a queue that serves no service")
    return Delivered(delivery, call=decode_call(payload))


def _dramatiq_message(delivery: Delivery) -> dramatiq.Message[Any]:
    try:
        fields = _encoder.decode(delivery.payload)
        options = {name: value for name, value in fields["options"].items() if name != "eta"}
        return dramatiq.Message(
            queue_name=delivery.queue,
            actor_name=str(fields["actor_name"]),
            args=tuple(fields["args"]),
            kwargs=dict(fields["kwargs"]),
            options=options,
            message_id=delivery.id,
            message_timestamp=int(fields["message_timestamp"]),
        )
    except Exception as error:
        raise Malformed(f"not a Dramatiq message: {type(error).__name__}") from None  # its text quotes the message


def encode_message(message: dramatiq.Message[Any]) -> bytes:
    return bytes(_encoder.encode(message.asdict()))
