"""What travels on a queue: it comes back as it was, and whatever else comes is told apart."""

from __future__ import annotations

import contextlib
import uuid

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.actors.record import (
    HISTORY_LENGTH,
    RECORD_VERSION,
    Attempt,
    Call,
    Malformed,
    Progress,
    Reply,
    TooNew,
    decode_call,
    decode_progress,
    decode_reply,
    encode,
    new_call_id,
)
from seawall.supervisor.breaker import Record, State

CALL = Call(
    id="018f",
    service="chroma",
    origin="http://chroma:6003",
    method="POST",
    target="/x?y=1",
    headers=(("Accept", "*/*"), ("X-Twice", "a"), ("X-Twice", "b")),
    body=b"\x00\xff",
    waited=True,
    reply_to="box",
    on_open="skip",
    keep_result=60.0,
    rounds=2,
    trial=True,
    created=1.5,
)


def raw(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def fields_of(record: Call | Progress | Reply) -> dict:
    return msgspec.msgpack.decode(encode(record))


class TestCall:
    def test_comes_back_as_it_was(self) -> None:
        assert decode_call(encode(CALL)) == CALL

    def test_an_empty_body_is_not_no_body(self) -> None:
        for body in (None, b""):
            assert decode_call(encode(msgspec.structs.replace(CALL, body=body))).body == body

    def test_unknown_fields_of_a_newer_release_are_ignored(self) -> None:
        assert decode_call(raw(fields_of(CALL) | {"colour": "blue", "deep": {"a": [1]}})) == CALL

    def test_fields_that_an_older_release_did_not_write_have_their_defaults(self) -> None:
        old = {"id": "1", "service": "s", "origin": "http://h:80", "method": "GET", "target": "/"}
        assert decode_call(raw(old)) == Call(**old)

    def test_a_newer_version_is_left_for_a_newer_worker(self) -> None:
        with pytest.raises(TooNew, match=f"version {RECORD_VERSION + 1}"):
            decode_call(raw(fields_of(CALL) | {"v": RECORD_VERSION + 1}))

    def test_even_if_its_fields_have_changed_their_types(self) -> None:
        with pytest.raises(TooNew):
            decode_call(raw({"v": 99, "id": 7, "target": ["/", "x"]}))

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"\x00",
            b"garbage",
            b"\xff" * 100,
            b"{",
            raw([]),
            raw({}),
            raw({"v": "2"}),
            raw({"v": True, "id": 1}),
            raw({"id": "\u00e9", "service": 1}),
            encode(CALL)[:-1],
            encode(CALL) + b"\x00",
            b"\x91" * 5000,
            b"\x81\xa1a" * 5000,
            raw({"v": 2**63}),
        ],
        ids=lambda payload: payload[:6].hex() or "nothing",
    )
    def test_garbage_is_told_apart(self, payload: bytes) -> None:
        with pytest.raises((Malformed, TooNew)):
            decode_call(payload)

    @given(st.binary(max_size=300))
    def test_no_bytes_raise_anything_else(self, payload: bytes) -> None:
        with contextlib.suppress(Malformed, TooNew):
            decode_call(payload)

    @given(st.data())
    @settings(max_examples=150)
    def test_nor_does_a_record_that_was_damaged(self, data: st.DataObject) -> None:
        payload = bytearray(encode(CALL))
        for _ in range(data.draw(st.integers(1, 4))):
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(Malformed, TooNew):
            decode_call(bytes(payload))

    _json = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )

    @given(st.dictionaries(st.sampled_from([*Call.__struct_fields__, "other"]), _json))
    def test_nor_do_fields_of_any_type(self, fields: dict) -> None:
        with contextlib.suppress(Malformed, TooNew):
            decode_call(raw(fields))


class TestProgress:
    def test_comes_back_as_it_was(self) -> None:
        progress = Progress(attempt=2, round=1, history=(Attempt(1.0, "Timeout", 0.5),))
        assert decode_progress(encode(progress)) == progress

    def test_attempts_and_rounds_are_counted_apart(self) -> None:
        attempt = Attempt(1.0, "Timeout", 0.5)
        progress = Progress().failed_attempt(attempt).failed_attempt(attempt)
        assert (progress.attempt, progress.round, len(progress.history)) == (2, 0, 2)
        progress = progress.failed_round(attempt)
        assert (progress.attempt, progress.round, len(progress.history)) == (0, 1, 3)

    def test_its_memory_is_bounded(self) -> None:
        progress = Progress()
        for number in range(HISTORY_LENGTH + 20):
            progress = progress.failed_attempt(Attempt(float(number), "Timeout", 0.1))
        assert len(progress.history) == HISTORY_LENGTH
        assert progress.history[-1].at == HISTORY_LENGTH + 19

    def test_nothing_is_a_fresh_start(self) -> None:
        assert decode_progress(None) == decode_progress(b"") == Progress()

    @given(st.binary(max_size=100) | st.sampled_from([b"\x81\xa7history" + b"\x91" * 5000, b"\x91" * 100_000]))
    def test_what_cannot_be_read_is_a_fresh_start(self, payload: bytes) -> None:
        assert isinstance(decode_progress(payload), Progress)


class TestReply:
    def test_comes_back_as_it_was(self) -> None:
        reply = Reply(
            id="1",
            status=503,
            headers=(("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")),
            body=b"\x00",
            error="unavailable",
            cause=Reply(id="", error="timeout"),
            breaker=Record(state=State.OPEN, failures=5, version=3),
        )
        assert decode_reply(encode(reply)) == reply

    def test_unknown_fields_are_ignored(self) -> None:
        assert decode_reply(raw(fields_of(Reply(id="1")) | {"colour": "blue"})) == Reply(id="1")

    @given(st.binary(max_size=300))
    def test_no_bytes_raise_anything_but_malformed(self, payload: bytes) -> None:
        with contextlib.suppress(Malformed):
            decode_reply(payload)

    def test_nor_does_a_reply_without_a_bottom(self) -> None:
        with pytest.raises(Malformed):
            decode_reply(b"\x82\xa2id\xa1x\xa5cause" * 20_000)


class TestCallId:
    def test_is_a_uuid_of_version_7(self) -> None:
        made = uuid.UUID(new_call_id())
        assert made.version == 7
        assert made.variant == uuid.RFC_4122

    def test_is_unique_and_sorts_by_age(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = []
        for millisecond in range(100):
            monkeypatch.setattr("time.time_ns", lambda now=millisecond: (1_800_000_000_000 + now) * 1_000_000)
            ids.append(new_call_id())
        assert ids == sorted(ids)
        assert len({new_call_id() for _ in range(1000)}) == 1000
