"""Row 18: a redirect to another origin. Stock: X-Internal-Token and X-Api-Key go along, and a 307 sends the body again.

Here redirects are followed on the service's own origin only; the other one never hears of the call.
"""

from __future__ import annotations

import pytest

from seawall import ResilientServiceClient
from seawall.actors.token import TokenSource
from tests.resilience.scene import calling
from tests.support import Answer, CountingService

TOKEN = "tok-18"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_another_origin_sees_nothing(status: int, host: str, redis_url: str, service: CountingService) -> None:
    """Another port of the same host, and another name of it."""
    with CountingService() as sink, calling(redis_url, token=TokenSource(value=TOKEN)):
        away = f"{sink.url.replace('127.0.0.1', host)}/take"
        service.script("/leave", Answer(status, headers={"Location": away}))
        service.script("/stay", Answer(status, headers={"Location": "/there"}))
        client = ResilientServiceClient(service.url, "Moved", key="moved")
        headers = {"X-Api-Key": "key-18"}
        left = client.post("/leave", data=b"body-18", headers=headers)
        stayed = client.post("/stay", data=b"body-18", headers=headers)
        assert sink.connections == 0
    assert (left.status_code, left.headers["Location"]) == (status, away)
    assert (stayed.status_code, stayed.url) == (200, f"{service.url}/there")
    (there,) = service.matching("/there")
    assert there.headers["x-internal-token"] == TOKEN
