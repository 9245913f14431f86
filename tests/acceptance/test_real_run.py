"""A real run: `seawall up`, four services, two client processes, one of them killed half-way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance.harness import Caller, Fleet, Up, say
from tests.support import Answer, CountingService, Request, wait_until

#: Calls of each client process, and its threads.
CALLS, THREADS = 1000, 8
KEYS = ("plain", "slow", "flaky", "picky")


def echo(status: int = 200, delay: float = 0.0) -> Callable[[Request], Answer]:
    """Answers with the path, so that a caller sees whether the answer is its own."""
    return lambda request: Answer(status, {"path": request.path}, delay=delay)


def every_tenth_fails() -> Callable[[Request], Answer]:
    """A call's first attempt is answered with 503 when its number ends with 0."""
    seen: Counter[str] = Counter()

    def answer(request: Request) -> Answer:
        seen[request.path] += 1
        failing = request.path.endswith("0") and seen[request.path] == 1
        return Answer(503 if failing else 200, {"path": request.path})

    return answer


def scripted(services: dict[str, CountingService]) -> None:
    services["plain"].script("*", echo())
    services["slow"].script("*", echo(delay=0.02))
    services["flaky"].script("*", every_tenth_fails())
    services["picky"].script("*", echo(404))


def ledger(path: Path) -> list[tuple[str, str]]:
    """(service or "-" for a waited-for call, id) of every line."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], line.split()[1]) for line in lines]


def test_two_clients_make_2000_calls_and_one_is_killed_half_way(tmp_path: Path) -> None:
    services = {key: CountingService() for key in KEYS}
    for service in services.values():
        service.start()
    scripted(services)
    # One flaky call in five fails once: a budget of one retry for five calls would be used up now and then.
    options = {"concurrency": 16, "retry_budget": 0.5}
    declared = {key: {"url": service.url, **options} for key, service in services.items()}
    try:
        with Fleet(tmp_path, "", declared) as fleet:
            play(fleet, services)
    finally:
        for service in services.values():
            service.close()


def play(fleet: Fleet, services: dict[str, CountingService]) -> None:
    up: Up = fleet.up()
    fleet.use(up.url())
    survivor, victim = fleet.start(callers=2)
    books = {name: fleet.folder / f"{name}.ledger" for name in ("survivor", "victim")}
    answers = {
        name: caller.start("mixed", services=KEYS, total=CALLS, threads=THREADS, ledger=str(books[name]), name=name)
        for name, caller in (("survivor", survivor), ("victim", victim))
    }
    wait_until(lambda: len(ledger(books["victim"])) >= CALLS // 2, 60)
    victim.kill()
    assert answers["survivor"].result(60)
    wait_until(lambda: all(fleet.drained(key) for key in KEYS), 30)

    every_accepted_call_arrived(services, books)
    every_caller_was_answered(answers["survivor"].result(0))
    assert not survivor.lines("was not queued")
    assert stopped_in_order(up, survivor)


def every_accepted_call_arrived(services: dict[str, CountingService], books: dict[str, Path]) -> None:
    arrived = {
        key: Counter(request.path.rpartition("/")[2] for request in service.requests)
        for key, service in services.items()
    }
    accepted = [line for book in books.values() for line in ledger(book) if line[0] != "-"]
    lost = [(key, id) for key, id in accepted if not arrived[key][id]]
    total = sum(service.count() for service in services.values())
    say(f"real run: {len(accepted)} accepted background calls, {len(lost)} lost, {total} requests at the services")
    assert lost == []
    assert len([line for line in accepted if line[1].startswith("survivor")]) == CALLS // 2
    assert all(len({r.headers["idempotency-key"] for r in same}) == 1 for same in by_path(services) if len(same) > 1)


def by_path(services: dict[str, CountingService]) -> list[list[Request]]:
    """The POSTs of each call, all attempts of it."""
    found: dict[str, list[Request]] = {}
    for service in services.values():
        for request in service.matching(method="POST"):
            found.setdefault(request.path, []).append(request)
    return list(found.values())


def every_caller_was_answered(told: dict[str, Any]) -> None:
    """Each with the answer to its own call; here, where every service lives, without an error."""
    assert len(told["ends"]) == CALLS // 2
    errors = [end for end in told["ends"] if "error" in end]
    assert all("RequestException" in end["error"]["bases"] for end in errors), errors[:3]
    assert errors == []
    assert all(json.loads(end["text"])["path"].endswith(f"/{end['id']}") for end in told["ends"])
    assert Counter(end["status"] for end in told["ends"]) == {200: CALLS * 3 // 8, 404: CALLS // 8}


def stopped_in_order(up: Up, survivor: Caller) -> bool:
    """SIGTERM ends all of it, cleanly."""
    children = up.children("")
    up.terminate()
    return up.wait() == 0 and len(children) >= 5
