"""A user's program, as a strict type checker sees it with nothing but the installed wheel."""

from __future__ import annotations

import requests

from seawall import ResilientServiceClient, ServiceUnavailable, State

chroma = ResilientServiceClient("http://chroma:6003", service_name="Chroma Server", max_retries=3, timeout=15)


def search(text: str) -> list[str]:
    try:
        response: requests.Response = chroma.post("/query", json={"query_texts": [text]})
    except ServiceUnavailable as error:
        seconds: float = error.retry_after
        return [f"later: {seconds}"]
    state: State = chroma.state
    return [response.text, state.value]
