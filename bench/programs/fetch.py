"""The HTTP call that every contender makes: a GET with a session per thread, as its users would."""

from __future__ import annotations

import os
import threading

import requests

URL = os.environ.get("BENCH_UPSTREAM", "") + "/item"
_local = threading.local()


def fetch() -> str:
    session = getattr(_local, "session", None)
    if session is None:
        session = _local.session = requests.Session()
    response = session.get(URL, timeout=10)
    response.raise_for_status()
    return response.text
