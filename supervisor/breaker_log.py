"""The guide's log lines about breakers, written by the process whose event made the change."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from seawall.supervisor.breaker import AttemptFailed, Record, State, TrialFailed, TrialInconclusive, TrialSucceeded
from seawall.supervisor.folding import Step

__all__ = ["log_steps"]


def log_steps(logger: logging.Logger, name: str, steps: Iterable[Step]) -> None:
    """One line for every change of state among the steps; opening is a warning."""
    for step in steps:
        if step.new.generation == step.old.generation:
            continue
        level = logging.WARNING if step.new.state is State.OPEN else logging.INFO
        logger.log(level, "[%s] Circuit breaker %s", name, _said(step))


def _said(step: Step) -> str:
    if step.new.state is State.HALF_OPEN:
        return "entering HALF_OPEN state"
    if step.new.state is State.CLOSED:
        return "CLOSED (service recovered)" if isinstance(step.event, TrialSucceeded) else "CLOSED (by hand)"
    return f"OPEN ({_why_open(step, step.new)})"


def _why_open(step: Step, record: Record) -> str:
    if record.forced:
        return "held open by hand"
    if isinstance(step.event, TrialFailed):
        return f"trial failed, next one in {record.recovery_timeout:g}s: {record.last_error}"
    if isinstance(step.event, TrialInconclusive):
        return f"trial was inconclusive, next one in {record.recovery_timeout:g}s"
    if isinstance(step.event, AttemptFailed):
        return f"failed again right after its recovery: {record.last_error}"
    return f"threshold reached: {record.failures}/{record.failure_threshold}"
