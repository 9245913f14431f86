"""The watcher shuts sockets down from outside, and only those of its own deadline."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from seawall.actors import deadline
from seawall.actors.deadline import Deadline, until
from seawall.actors.wire import POOLS, Exchange
from tests.support import wait_until

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected sockets that would wait for each other for seconds."""
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(5)
        yield near, far


def test_a_guarded_socket_is_shut_down_when_the_time_is_over(pair: Pair) -> None:
    with until(0.05) as limit:
        limit.guard(pair[0])
        assert pair[0].recv(1) == b""
        assert limit.passed
        assert limit.remaining == 0


def test_a_socket_guarded_too_late_is_shut_down_at_once(pair: Pair) -> None:
    with until(10) as limit:
        limit.expire()
        limit.guard(pair[0])
        assert pair[0].recv(1) == b""


def test_a_released_socket_is_left_alone(pair: Pair) -> None:
    with until(10) as limit:
        limit.guard(pair[0])
        limit.release()
        limit.expire()
        pair[1].send(b"x")
        assert pair[0].recv(1) == b"x"


def test_what_was_left_in_time_is_left_alone(pair: Pair) -> None:
    limit = until(10)
    with limit:
        limit.guard(pair[0])
    limit.expire()
    assert not limit.passed
    pair[1].send(b"x")
    assert pair[0].recv(1) == b"x"


def test_only_the_latest_socket_is_guarded(pair: Pair) -> None:
    other, its_end = socket.socketpair()
    with other, its_end, until(10) as limit:
        limit.guard(pair[0])
        limit.guard(other)
        limit.expire()
        assert other.recv(1) == b""
        pair[1].send(b"x")
        assert pair[0].recv(1) == b"x"


def test_a_guarded_descriptor_stays_open_until_it_is_released() -> None:
    """Its number must not belong to another socket while the watcher may still use it."""
    near, far = socket.socketpair()
    number = near.fileno()
    with far:
        with until(10) as limit:
            limit.guard(near)
            near.close()
            os.fstat(number)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_deadlines_fire_in_their_order_and_not_in_that_of_their_making(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher's own order, on this thread: those that it wakes may come in any other."""
    monkeypatch.setattr(deadline, "_started", lambda run: threading.current_thread())
    watcher, now = deadline._Watcher(), time.monotonic()
    made = [Deadline(now + seconds) for seconds in (0.03, 0.01, 0.02)]
    for limit in made:
        watcher.add(limit)
    fired: list[Deadline] = []
    while len(fired) < len(made):
        with watcher._changed:
            fired += watcher._wait_for_expired()
    assert [made.index(limit) for limit in fired] == [1, 2, 0]


def test_an_earlier_deadline_wakes_the_watcher(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = deadline._Watcher()
    monkeypatch.setattr(deadline, "_watcher", watcher)
    other, its_end = socket.socketpair()
    with other, its_end, until(60) as late:
        late.guard(other)
        wait_until(lambda: watcher._wakes_at == late.monotonic_end)
        with until(0.05) as limit:
            limit.guard(pair[0])
            assert pair[0].recv(1) == b""


def test_finished_deadlines_do_not_pile_up(pair: Pair) -> None:
    with until(500) as earlier:  # the watcher sleeps until then, and is not woken by later ones
        earlier.guard(pair[0])
        for _ in range(1000):
            with until(1000) as limit:
                limit.guard(pair[1])
        assert len(deadline._watcher._heap) < 200


def test_a_connection_is_out_of_reach_before_it_goes_back_to_its_pool(pair: Pair) -> None:
    """Another thread may take it the moment it is back, while the deadline's owner has not left yet."""
    pool = POOLS["http"]("127.0.0.1", 1, maxsize=1)
    connection = pool._get_conn()
    connection.sock = pair[0]
    with until(10) as limit, Exchange(limit):
        limit.guard(pair[0])
        pool._put_conn(connection)
        limit.expire()
        pair[1].send(b"x")
        assert pair[0].recv(1) == b"x"
    pool.close()


def test_no_thread_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the watcher a socket would be unguarded, so it is not used."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(deadline, "_watcher", deadline._Watcher())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    one, other = socket.socketpair()
    with one, other, until(1) as limit, pytest.raises(OSError, match="no thread can be started"):
        limit.guard(one)


def test_a_deadline_in_the_past() -> None:
    with Deadline(0.0) as limit:
        assert limit.passed
