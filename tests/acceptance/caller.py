"""A client process that does what a test tells it, a JSON object a line; run as `python caller.py MODULE...`.

Asked: {"n": 1, "do": "call", ...}; answered, in any order: {"n": 1, "answer": ...} or {"n": 1, "error": {...}}.
Everything is done on a thread of its own. It ends when its standard input does.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from seawall import ResilientServiceClient

_speaking = threading.Lock()
_output = sys.stdout
_hammers: dict[str, threading.Event] = {}

#: Seconds between two calls of a hammering thread: a busy application, not a busy loop.
PACE = 0.01


def main() -> None:
    logging.basicConfig(level=logging.ERROR)  # what `fire` could not queue is told in its log only
    sys.path.append(os.getcwd())
    for module in sys.argv[1:]:
        importlib.import_module(module)
    with ThreadPoolExecutor(64) as pool:
        for line in sys.stdin:
            pool.submit(_serve, json.loads(line))
        for stop in _hammers.values():
            stop.set()


def _serve(asked: dict[str, Any]) -> None:
    number, do = asked.pop("n"), asked.pop("do")
    told: dict[str, Any] = {"n": number}
    try:
        told["answer"] = _COMMANDS[do](**asked)
    except Exception as error:
        told["error"] = _described(error)
    with _speaking:
        _output.write(json.dumps(told) + "\n")
        _output.flush()


def _described(error: BaseException) -> dict[str, Any]:
    """Everything that a program could print about it."""
    request = getattr(error, "request", None)
    shown = [*traceback.format_exception(error), repr(error), repr(vars(error))]
    if request is not None:
        shown += [repr(request.url), repr(dict(request.headers))]
    bases = [kind.__name__ for kind in type(error).__mro__]
    return {"kind": type(error).__name__, "bases": bases, "text": str(error), "shown": "\n".join(shown)}


def ready() -> bool:
    return True


def call(service: str, method: str, path: str, **options: Any) -> dict[str, Any]:
    """A waited-for call."""
    started = time.monotonic()
    response = ResilientServiceClient.named(service).request(method, path, **options)
    shown = f"{response.url} {dict(response.headers)} {response.request.url} {dict(response.request.headers)}"
    took = time.monotonic() - started
    return {"status": response.status_code, "text": response.text, "shown": shown, "took": took}


def enqueue(service: str, calls: list[list[Any]]) -> list[str]:
    """Background calls, [method, path] or [method, path, keywords] each; their ids, all accepted."""
    handles = ResilientServiceClient.named(service).enqueue_many([tuple(call) for call in calls])
    for handle in handles:
        if isinstance(handle, Exception):
            raise handle
    return [handle.id for handle in handles]  # type: ignore[union-attr]  # the exceptions are out


def fire(service: str, method: str, path: str, **options: Any) -> None:
    ResilientServiceClient.named(service).fire(method, path, **options)


def result(service: str, id: str, within: float) -> dict[str, Any]:
    """The result of a background call."""
    response = ResilientServiceClient.named(service).handle(id).result(within)
    return {"status": response.status_code, "text": response.text, "shown": str(dict(response.request.headers))}


def status(service: str) -> dict[str, Any]:
    return ResilientServiceClient.named(service).get_status()


def hammer(service: str, path: str, threads: int) -> dict[str, int]:
    """Waited-for calls without end from so many threads, until `rest`; how many ended how."""
    stop = _hammers.setdefault(service, threading.Event())
    client = ResilientServiceClient.named(service)
    ends: Counter[str] = Counter()

    def strike() -> None:
        while not stop.wait(PACE):
            try:
                ends[str(client.get(path).status_code)] += 1
            except Exception as error:
                ends[type(error).__name__] += 1

    crew = [threading.Thread(target=strike) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return dict(ends)


def rest(service: str) -> None:
    _hammers.setdefault(service, threading.Event()).set()


def mixed(services: list[str], total: int, threads: int, ledger: str, name: str) -> dict[str, Any]:
    """`total` calls of every kind. Accepted background calls are written to the file `ledger`, once they are accepted.

    Answers how many were made of each kind, and how the waited-for ones ended.
    """
    numbers = iter(range(total))
    picking = threading.Lock()
    made: Counter[str] = Counter()
    ends: list[dict[str, Any]] = []
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def work() -> None:
        while True:
            with picking:
                number = next(numbers, None)
            if number is None:
                return
            kind = ("get", "post", "enqueue", "fire")[(number + number // 4) % 4]
            made[kind] += 1
            end = _one(ResilientServiceClient.named(services[number % len(services)]), kind, f"{name}-{number}", file)
            if end is not None:
                ends.append(end)

    crew = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    os.close(file)
    return {"made": dict(made), "ends": ends}


def _one(client: ResilientServiceClient, kind: str, id: str, ledger: int) -> dict[str, Any] | None:
    path, body = f"/{kind}/{id}", {"id": id}
    if kind in ("enqueue", "fire"):
        getattr(client, kind)("POST", path, json=body)
        os.write(ledger, f"{client.key} {id}\n".encode())
        return None
    try:
        response = client.get(path) if kind == "get" else client.post(path, json=body)
    except Exception as error:
        return {"id": id, "error": _described(error)}
    finally:
        os.write(ledger, f"- {id}\n".encode())
    return {"id": id, "status": response.status_code, "text": response.text}


_COMMANDS = {what.__name__: what for what in (ready, call, enqueue, fire, result, status, hammer, rest, mixed)}

if __name__ == "__main__":
    main()
