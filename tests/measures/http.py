"""What services do to their callers: redirects, drips, bombs; and what the environment does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import requests

from seawall import ResilientServiceClient, ResponseTooLarge
from tests.measures.figures import Figure, at_most, exactly, measure
from tests.measures.stand import Stand
from tests.resilience import test_r17_drip as drips
from tests.resilience import test_r19_environment as environment
from tests.resilience import test_r20_bombs as bombs
from tests.support import Answer
from tests.support.loopback import Loopback, Peer, answer

REDIRECTS = (301, 302, 303, 307, 308)
TOKEN = "token-of-measure-b4"
#: Seconds of X6's limit, by which an end may be late, and after which the slow service would answer.
LIMIT, LATE, SLOW = 3.0, 0.3, 20.0
#: Drips at once in one worker, and how often each bomb is sent again.
DRIPS, AGAIN = 8, 5


@measure("B4")
def leaks(stand: Stand) -> Iterator[Figure]:
    """A service that redirects everywhere, and a worker whose environment has proxies and a netrc."""
    service, sink, proxy = stand.service(), stand.service(), stand.service()
    netrc = stand.folder / "netrc"
    netrc.write_text("default login eve password stolen\n")
    netrc.chmod(0o600)
    hostile = dict.fromkeys(environment.PROXIES, proxy.url)
    hostile |= {"NETRC": str(netrc), "no_proxy": "", "NO_PROXY": "", "SEAWALL_INTERNAL_TOKEN": TOKEN}
    declared = {"api": {"url": service.url, "allow_headers": ("Authorization",)}}
    fleet = stand.fleet(stand.server().url, declared, **hostile)
    fleet.start(workers=1)
    client = stand.client(fleet, "api")
    for status in REDIRECTS:
        for host in ("127.0.0.1", "localhost"):
            path = f"/{status}/{host}"
            service.script(path, Answer(status, headers={"Location": f"{sink.url.replace('127.0.0.1', host)}/take"}))
            left = client.post(path, data=b"body", headers={"X-Api-Key": "key", "Authorization": "Bearer mine"})
            assert left.status_code == status
    client.get("/nobodys")
    asked = service.requests
    what = f"{2 * len(REDIRECTS)} redirects to another origin: connections there"
    yield exactly(what, sink.connections, 0, stock="token, API key and body leaked")
    kept = sum(request.headers.get("authorization") == "Bearer mine" for request in asked)
    yield exactly("netrc: callers' Authorization kept", kept, 2 * len(REDIRECTS), stock="replaced")
    yield exactly("netrc: given to a call without any", asked[-1].headers.get("authorization"), None, stock="yes")
    yield exactly("http_proxy: connections", proxy.connections, 0, stock="saw the token")
    sent = sum(request.headers.get("x-internal-token") == TOKEN for request in asked)
    yield exactly("the service itself got the token", sent, len(asked), stock="-")


@measure("B5")
def drip(stand: Stand) -> Iterator[Figure]:
    """Silence and drips against timeout=2, each in the same worker at the same time."""
    behaviours = {
        "silence": (drips.silence, "2.01 s"),
        "headers": (drips.drip_of_headers, "30.12 s"),
        "body": (drips.drip_of_body, "30.07 to 120.19 s"),
        "chunks": (drips.drip_of_chunks, "-"),
    }
    took = _against(stand, drips.LIMIT, {name: behaviour for name, (behaviour, _) in behaviours.items()})
    for name, seconds in took.items():
        what = f"timeout=2: {name}" + ("" if name == "silence" else " that drip")
        yield at_most(what, seconds, drips.LIMIT + drips.LATE, stock=behaviours[name][1])


@measure("X6")
def time_limits(stand: Stand) -> Iterator[Figure]:
    """A limit of 3 s on what blocks. A CPU loop has no counterpart here: a call is sent, and nothing of the user's runs."""

    def slow(peer: Peer) -> None:
        peer.read()
        peer.ended.wait(SLOW)
        peer.write(answer())

    stock = {"silent": "60.1 s", "slow": "20.0 s", "drip": "4.0 s"}
    took = _against(stand, LIMIT, {"silent": drips.silence, "slow": slow, "drip": drips.drip_of_body})
    for name, seconds in took.items():
        yield at_most(f"limit of 3 s: {name} service", seconds, LIMIT + LATE, stock=stock[name])


@measure("X19")
def many_drips(stand: Stand) -> Iterator[Figure]:
    """As many drips at once as a service has slots: each is ended from outside."""
    took = _against(stand, drips.LIMIT, {f"drip{number}": drips.drip_of_body for number in range(DRIPS)})
    what = f"timeout=2: {DRIPS} drips at once, the longest"
    yield at_most(what, max(took.values()), drips.LIMIT + drips.LATE, stock="2.00 s (Timer, shutdown)")


def _against(stand: Stand, limit: float, behaviours: dict[str, Callable[[Peer], None]]) -> dict[str, float]:
    """Seconds that a waited-for call to a service of each behaviour took; all at once. Each must be a ReadTimeout."""
    urls = {name: stand.enter(Loopback(behaviour)).url for name, behaviour in behaviours.items()}
    declared = {name: {"url": url, "timeout": limit, "max_retries": 1} for name, url in urls.items()}
    fleet = stand.fleet(stand.server().url, declared)
    fleet.start(workers=1)
    clients = [stand.client(fleet, name) for name in behaviours]

    def call(client: ResilientServiceClient) -> float:
        started = time.monotonic()
        with suppress(requests.ReadTimeout):
            client.get("/")
            raise AssertionError("it was answered")
        return time.monotonic() - started

    with ThreadPoolExecutor(len(clients)) as pool:
        return dict(zip(behaviours, pool.map(call, clients), strict=True))


@measure("B6")
def bomb(stand: Stand) -> Iterator[Figure]:
    """Bodies without an end, and a bomb: the peak of a real worker's memory."""
    server = stand.enter(Loopback(bombs.greedy))
    fleet = stand.fleet(stand.server().url, {"greedy": {"url": server.url, "timeout": 60, "max_retries": 1}})
    (worker,) = fleet.start(workers=1)
    client = stand.client(fleet, "greedy")
    client.get("/good", deadline=60)
    stock = {
        "/plain": ("200 MB plain", "385 MB"),
        "/endless": ("200 MB in chunks", "-"),
        "/bomb": ("a gzip of 1 MB, 1 GB unpacked", "1,921 MB"),
    }
    promised = bombs.PROMISED / bombs.MEGABYTE

    def grown_by(*targets: str) -> float:
        """Megabytes by which the worker's peak grew."""
        before = _peak(worker.pid)
        for target in targets:
            with suppress(ResponseTooLarge):
                client.get(target, deadline=60)
                raise AssertionError("it was answered")
        return (_peak(worker.pid) - before) / bombs.MEGABYTE

    for target, (what, grown) in stock.items():
        yield at_most(f"{what}: the worker's peak grew by", grown_by(target), promised, unit="MB", stock=grown)
    what = f"{len(stock) * AGAIN} more of these: the peak grew by"
    yield at_most(what, grown_by(*(list(stock) * AGAIN)), promised, unit="MB", stock="-")


def _peak(pid: int) -> int:
    """Bytes of memory that the process has had at the most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024
