"""The settings of alerts: the `[alerts]` table of `seawall.toml`, and SEAWALL_ALERTS_* variables. A leaf module.

[alerts]
webhook = "https://ops.example.com/hooks/seawall"
secret_file = "/run/secrets/seawall-alerts"
queue_age = 600
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seawall.kinds import PATH, Kind, seconds, text, whole, words

__all__ = ["ALERT_KINDS", "AlertSettings"]

#: What there is to be told of.
ALERT_KINDS = ("open", "close", "queue_age", "queue_depth", "dead")


def _webhook() -> Kind:
    """An address; what is wrong with it is said without showing it, because it may hold a password."""
    says = "an http or https URL"
    plain = text(says)

    def check(value: object) -> str:
        url = str(plain.check(value))
        if not re.fullmatch(r"https?://[^\s#/]+[^\s#]*", url):
            raise ValueError(f"must be {says} without a fragment, such as https://ops.example.com/hooks/seawall")
        return url

    return Kind(says, check, plain.read)


def _about(kind: Kind, help_text: str, **more: bool) -> Mapping[str, Any]:
    return {"kind": kind, "help": help_text, "table": "alerts", **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """The part of `Settings` that is about alerts. Durations are seconds."""

    alerts_webhook: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            _webhook(),
            "Where alerts are POSTed to. All of it but the host stays in the worker.",
            expands=True,
        ),
    )
    alerts_secret: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            text("a secret"),
            "The key that alerts are signed with, by the worker that sends them. Never in the file, never in a message.",
            secret=True,
            environment_only=True,
        ),
    )
    alerts_secret_file: Path | None = field(
        default=None, metadata=_about(PATH, "A file that holds the key; it is read again when it changes.")
    )
    alerts_on: tuple[str, ...] = field(
        default=ALERT_KINDS, metadata=_about(words(*ALERT_KINDS), "What is worth an alert; by default all of it.")
    )
    alerts_queue_age: float | None = field(
        default=None,
        metadata=_about(seconds(), "Seconds that a service's oldest call may have been ready. By default no limit."),
    )
    alerts_queue_depth: int | None = field(
        default=None,
        metadata=_about(whole(1), "Calls of a service that may be ready, held ones too. By default no limit."),
    )
    alerts_dead: int = field(
        default=1, metadata=_about(whole(1), "New dead letters of a service within a minute that are worth an alert.")
    )
    alerts_settle: float | None = field(
        default=None,
        metadata=_about(
            seconds(zero=True),
            "Seconds that a breaker must have stayed closed for its outage to be over. By default the service's "
            "`slow_start`, or 10.",
        ),
    )
    alerts_callable: str | None = field(
        default=None,
        metadata=_about(
            text("module:function", pattern=r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", like="module:function"),
            "A function that the leading supervisor calls with each alert.",
        ),
    )
