"""The four services, declared once: by the backend, and by `seawall worker examples.caudex.services`.

Settings are the guide's for each service. CAUDEX_RECOVERY_SECONDS shortens every recovery timeout, for a demo that
shall not take minutes. Addresses come from CHROMA_SERVER_URL and its like, see `addresses`.
"""

from __future__ import annotations

import os

from examples.caudex.addresses import service_url
from seawall import ResilientServiceClient

__all__ = ["billing", "chroma", "filesystem", "git"]


def _recovery(seconds: float) -> float:
    """The guide's recovery timeout, unless the environment asks for another one. ValueError for nonsense."""
    text = os.environ.get("CAUDEX_RECOVERY_SECONDS") or str(seconds)
    try:
        wanted = float(text)
    except ValueError:
        wanted = 0.0
    if not 0 < wanted < float("inf"):
        raise ValueError(f"CAUDEX_RECOVERY_SECONDS must be a positive number of seconds, not {text!r}")
    return wanted


chroma = ResilientServiceClient(
    service_url("chroma", os.environ),
    service_name="Chroma Server",
    key="chroma",
    health_path="/health",
    max_retries=3,
    timeout=15,
    failure_threshold=5,
    recovery_timeout=_recovery(60),
)

filesystem = ResilientServiceClient(
    service_url("filesystem", os.environ),
    service_name="Filesystem Server",
    key="filesystem",
    health_path="/health",
    max_retries=3,
    timeout=20,
    failure_threshold=5,
    recovery_timeout=_recovery(60),
)

# Fast, and in the way of every answer: few attempts, a short timeout, more patience before it is given up.
billing = ResilientServiceClient(
    service_url("billing", os.environ),
    service_name="Billing Server",
    key="billing",
    health_path="/health",
    max_retries=2,
    timeout=5,
    failure_threshold=10,
    recovery_timeout=_recovery(30),
)

git = ResilientServiceClient(
    service_url("git", os.environ),
    service_name="Git Server",
    key="git",
    health_path="/health",
    max_retries=3,
    timeout=30,
    failure_threshold=5,
    recovery_timeout=_recovery(90),
)
