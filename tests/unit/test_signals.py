"""Noticing signals and a lost parent."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from seawall.signals import ParentWatch, Signals

#: Seconds that a wait would take if nothing ended it.
LONG = 10.0


@pytest.fixture(autouse=True)
def unchanged_handlers() -> Iterator[None]:
    """Whatever a test does, the runner's own handlers are back afterwards, and SIGHUP does not end it."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def open_ends(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The pipe ends that were made and not closed yet. Of all open files, some are other threads', which come and go."""
    pipe, close = os.pipe, os.close
    ends: set[int] = set()

    def make() -> tuple[int, int]:
        made = pipe()
        ends.update(made)
        return made

    def end(number: int) -> None:
        ends.discard(number)
        close(number)

    monkeypatch.setattr(os, "pipe", make)
    monkeypatch.setattr(os, "close", end)
    return ends


def took(signals: Signals) -> float:
    began = time.monotonic()
    signals.wait(LONG)
    return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signals_are_counted(number: signal.Signals) -> None:
    with Signals() as signals:
        assert not signals.stop_requested
        send(number)
        assert signals.stop_requested
        assert signals.stop_count == 1
        send(signal.SIGTERM)
        assert signals.stop_count == 2, "the second one means: now"
        assert not signals.reload_requested


def test_hangup_asks_once_for_a_reload() -> None:
    with Signals() as signals:
        send(signal.SIGHUP)
        assert not signals.stop_requested
        assert signals.reload_requested
        assert not signals.reload_requested, "reading it answers it"


def test_hangup_stops_a_program_whose_terminal_is_gone() -> None:
    with Signals(hangup_stops=True) as signals:
        send(signal.SIGHUP)
        assert signals.stop_requested
        assert not signals.reload_requested


def test_hangup_stays_ignored_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals(hangup_stops=True) as signals:
        send(signal.SIGHUP)
        assert not signals.stop_requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_earlier_handlers_and_files_are_as_before(open_ends: set[int]) -> None:
    def handler(*_: object) -> None: ...

    signal.signal(signal.SIGTERM, handler)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not handler
        assert open_ends
    assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.set_wakeup_fd(-1) == -1
    assert not open_ends


def test_wait_ends_with_a_signal() -> None:
    with Signals() as signals:
        sender = threading.Timer(0.05, send, [signal.SIGTERM])
        sender.start()
        assert took(signals) < LONG / 2
        assert signals.stop_requested
        sender.join()


def test_wait_counts_a_signal_that_came_before_it() -> None:
    with Signals() as signals:
        send(signal.SIGHUP)
        assert took(signals) < LONG / 2


def test_wait_ends_with_a_wake_from_another_thread() -> None:
    with Signals() as signals:
        waker = threading.Timer(0.05, signals.wake)
        waker.start()
        assert took(signals) < LONG / 2
        assert not signals.stop_requested
        waker.join()


def test_wait_on_another_thread_ends_with_a_signal_too() -> None:
    with Signals() as signals:
        waiting = threading.Thread(target=signals.wait, args=(LONG,))
        waiting.start()
        send(signal.SIGTERM)
        waiting.join(LONG / 2)
        assert not waiting.is_alive()


def test_wait_takes_its_time_when_nothing_comes() -> None:
    with Signals() as signals:
        began = time.monotonic()
        signals.wait(0.02)
        assert time.monotonic() - began >= 0.02


def test_thousands_of_wakes_block_nobody() -> None:
    with Signals() as signals:
        for _ in range(70_000):
            signals.wake()
        assert took(signals) < LONG / 2


def test_outside_of_with_there_is_nothing_to_wait_for() -> None:
    signals = Signals()
    signals.wake()
    with pytest.raises(RuntimeError, match="inside of `with`"):
        signals.wait(0)


def test_another_thread_cannot_install_handlers(open_ends: set[int]) -> None:
    errors: list[Exception] = []

    def enter() -> None:
        try:
            Signals().__enter__()
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert errors
    assert not open_ends


def test_parent_watch_knows_its_parent_from_a_stranger() -> None:
    assert not ParentWatch(os.getppid()).orphaned()
    assert ParentWatch(os.getpid()).orphaned(), "we are not our own child"


@pytest.mark.parametrize("nobody", [None, 0])
def test_without_a_parent_to_watch_nobody_is_orphaned(nobody: int | None) -> None:
    assert not ParentWatch(nobody).orphaned()
