"""What the endpoints of all frameworks answer."""

from __future__ import annotations

import time
from typing import Any

from seawall import runtime as runtimes

__all__ = ["PATH", "declared_status"]

#: Where the guide has it.
PATH = "/v1/api/status/services"
#: Seconds for all breakers' first answers from the broker together; a broker that is away costs no more than this.
STATUS_WAIT = 0.08


def declared_status() -> dict[str, dict[str, Any]]:
    """`get_status()` of every service that this process declares, by its key. Raises nothing while the broker is away."""
    ends = time.monotonic() + STATUS_WAIT
    views, services = runtimes.current().views, runtimes.registry.own()
    return {one.key: views.within(max(0.0, ends - time.monotonic()), one).status() for one in services}
