"""Telling a scheduler that hangs from a process that was paused, on a clock of the test's own."""

from __future__ import annotations

from seawall.supervisor.watchdog import SILENT_AFTER, STUCK_AFTER, Watchdog


def look_for(watchdog: Watchdog, seconds: float, *, every: float = 0.5, start: float = 0.0) -> str:
    """Look regularly for so long; the first complaint."""
    for step in range(round(seconds / every) + 1):
        if wrong := watchdog.look(start + step * every):
            return wrong
    return ""


def test_regular_ticks_are_well() -> None:
    watchdog = Watchdog()
    for second in range(60):
        watchdog.began()
        watchdog.ended()
        assert look_for(watchdog, 0.5, start=float(second)) == ""


def test_silence_is_noticed_within_five_seconds() -> None:
    watchdog = Watchdog()
    watchdog.began()
    watchdog.ended()
    assert look_for(watchdog, SILENT_AFTER - 0.5) == ""
    assert look_for(watchdog, 5.0) == f"no tick has begun for {SILENT_AFTER:.1f} s"


def test_scheduler_that_never_ticked_is_noticed() -> None:
    assert look_for(Watchdog(), 5.0)


def test_tick_that_waits_for_the_broker_is_given_time() -> None:
    watchdog = Watchdog()
    watchdog.began()
    assert look_for(watchdog, 30.0) == ""
    assert look_for(watchdog, 30.0, start=30.0) == f"a tick has not ended for {STUCK_AFTER:.1f} s"


def test_process_that_was_paused_as_a_whole_is_not_blamed_on_its_scheduler() -> None:
    """SIGSTOP for a minute: the first look after SIGCONT may come before the first tick."""
    watchdog = Watchdog()
    watchdog.began()
    watchdog.ended()
    assert watchdog.look(10.0) == ""
    assert watchdog.look(70.0) == ""
    assert watchdog.look(70.5) == ""
