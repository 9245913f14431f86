"""Row 19: netrc and proxies of the environment. Stock: netrc replaces an explicit Authorization, a proxy sees the token.

Here a worker's process looks at neither, unless the service was declared with trust_env=True.
"""

from __future__ import annotations

from pathlib import Path

from seawall import ResilientServiceClient
from tests.acceptance.harness import Fleet
from tests.support import CountingService
from tests.support.house import caller

PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY")


def test_a_worker_in_a_hostile_environment(tmp_path: Path, redis_url: str, service: CountingService) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login eve password stolen\n")
    netrc.chmod(0o600)
    with CountingService() as proxy:
        hostile = dict.fromkeys(PROXIES, proxy.url)
        hostile |= {"NETRC": str(netrc), "no_proxy": "", "NO_PROXY": "", "SEAWALL_INTERNAL_TOKEN": "tok-19"}
        options = {"allow_headers": ("Authorization",)}
        declared = {"api": {"url": service.url, **options}}
        with Fleet(tmp_path, redis_url, declared, environ=hostile) as fleet:
            fleet.start(workers=1)
            with caller(redis_url, namespace=fleet.namespace):
                client = ResilientServiceClient(service.url, "Api", key="api", **options)
                client.get("/mine", headers={"Authorization": "Bearer mine"})
                client.get("/nobodys")
        assert proxy.connections == 0
    mine, nobodys = service.requests
    assert (mine.path, mine.headers["authorization"]) == ("/mine", "Bearer mine")
    assert (nobodys.path, nobodys.headers.get("authorization")) == ("/nobodys", None)
    assert mine.headers["x-internal-token"] == nobodys.headers["x-internal-token"] == "tok-19"
