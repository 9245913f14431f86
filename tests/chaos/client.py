"""A client of the chaos run, as a process: `python -m tests.chaos.client WHO SEED FOLDER`.

A few threads call the services and wait, one queues background calls; each notes in `<who>.asked` that it begins with a
call, and then how it ended: the checker knows of nothing else. On SIGTERM they finish the calls that they are at.
"""

from __future__ import annotations

import faulthandler
import itertools
import logging
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import requests

from seawall import ResilientServiceClient
from seawall.boot import import_modules
from tests.chaos.ledger import Ledger
from tests.chaos.letters import answer_to, body_of
from tests.chaos.life import end_with_parent
from tests.chaos.plan import SERVICES

#: Threads that wait for answers, and seconds between two calls of one thread, on average.
WAITERS, PAUSE = 3, 0.2
#: Seconds that a caller is willing to wait.
DEADLINES = (1.5, 3.0, 6.0)
#: Seconds after which a background call that is in a hurry is given up.
HURRY = 2.0
#: Seconds between two looks at callers that wait, and beyond its deadline after which a caller shows where it is.
LOOK_EVERY, LATE = 0.1, 0.8
JSON = {"Content-Type": "application/json"}


class Client:
    def __init__(self, who: str, seed: int, folder: Path) -> None:
        self.who = who
        self.seed = seed
        self.ledger = Ledger(folder / f"{who}.asked")
        self.stopping = threading.Event()
        self.numbers = itertools.count(1)
        self.waiting: dict[str, float] = {}
        """When each waiting caller should have its answer."""
        self.refused = _Refusals()
        logging.getLogger("seawall").addHandler(self.refused)

    def run(self) -> None:
        crew = [threading.Thread(target=self._wait_for_answers, args=(n,)) for n in range(WAITERS)]
        crew.append(threading.Thread(target=self._queue, args=(WAITERS,)))
        for thread in (*crew, threading.Thread(target=self._watch, daemon=True)):
            thread.start()
        for thread in crew:
            thread.join()

    def _watch(self) -> None:
        """Whoever is late leaves all stacks in the log, and so does the time for which nothing ran here."""
        while True:
            looked = time.monotonic()
            time.sleep(LOOK_EVERY)
            if (lag := time.monotonic() - looked - LOOK_EVERY) > LOOK_EVERY:
                print(f"{time.monotonic():.2f} nothing ran here for {lag:.2f} s", file=sys.stderr, flush=True)
            for number, due in list(self.waiting.items()):
                if time.monotonic() > due + LATE and self.waiting.pop(number, None):
                    print(f"{time.monotonic():.2f} {number} is late", file=sys.stderr, flush=True)
                    faulthandler.dump_traceback()

    def _dice(self, thread: int) -> random.Random:
        return random.Random(f"{self.seed} {self.who} {thread}")

    def _number(self) -> str:
        return f"{self.who}.{next(self.numbers)}"

    def _wait_for_answers(self, thread: int) -> None:
        dice = self._dice(thread)
        while not self.stopping.wait(dice.expovariate(1 / PAUSE)):
            kind, number, service = dice.choice(("get", "post")), self._number(), dice.choice(SERVICES)
            self._call(kind, number, service, dice.choice(DEADLINES))

    def _call(self, kind: str, number: str, service: str, deadline: float) -> None:
        body = body_of(number) if kind == "post" else b""
        path = f"/{kind}/{number}"
        self._start(kind, number, service, deadline)
        self.waiting[number] = time.monotonic() + deadline
        try:
            options: dict[str, Any] = {"data": body, "headers": JSON} if body else {}
            response = ResilientServiceClient.named(service).request(kind.upper(), path, deadline=deadline, **options)
        except Exception as error:
            self._failed(number, error)
            return
        finally:
            self.waiting.pop(number, None)
        sound = response.status_code == 200 and _json(response) == answer_to(service, path, body)
        self._end(
            number, "right" if sound else "wrong", "" if sound else f"{response.status_code} {response.text[:500]}"
        )

    def _queue(self, thread: int) -> None:
        dice = self._dice(thread)
        kinds = (self._enqueue, self._enqueue, self._fire, self._many)
        while not self.stopping.wait(dice.expovariate(1 / PAUSE)):
            dice.choice(kinds)(dice, dice.choice(SERVICES))

    def _enqueue(self, dice: random.Random, service: str) -> None:
        number = self._number()
        manner, options = _manner(dice)
        self._start(f"enqueue{manner}", number, service)
        try:
            client = ResilientServiceClient.named(service)
            handle = client.enqueue("POST", f"/enqueue/{number}", data=body_of(number), headers=JSON, **options)
        except Exception as error:
            self._failed(number, error)
            return
        self._end(number, "accepted", id=handle.id)

    def _fire(self, dice: random.Random, service: str) -> None:
        number = self._number()
        self._start("fire", number, service)
        self.refused.text = ""
        try:
            client = ResilientServiceClient.named(service)
            client.fire("POST", f"/fire/{number}", data=body_of(number), headers=JSON)
        except Exception as error:
            self._end(number, f"untyped {type(error).__name__}", str(error))  # it never raises for operational reasons
            return
        self._end(number, "not queued" if self.refused.text else "accepted", self.refused.text)

    def _many(self, dice: random.Random, service: str) -> None:
        numbers = [self._number() for _ in range(dice.randint(2, 6))]
        calls = []
        for number in numbers:
            manner, options = _manner(dice)
            self._start(f"many{manner}", number, service)
            calls.append(("POST", f"/many/{number}", {"data": body_of(number), "headers": JSON, **options}))
        for number, handle in zip(numbers, ResilientServiceClient.named(service).enqueue_many(calls), strict=True):
            if isinstance(handle, Exception):
                self._failed(number, handle)
            else:
                self._end(number, "accepted", id=handle.id)

    def _start(self, kind: str, number: str, service: str, deadline: float = 0.0) -> None:
        self.ledger.write("start", number, kind, service, time.monotonic(), deadline)

    def _failed(self, number: str, error: Exception) -> None:
        typed = isinstance(error, requests.RequestException)
        self._end(number, f"{'' if typed else 'untyped '}{type(error).__name__}", str(error)[:500])

    def _end(self, number: str, how: str, detail: str = "", id: str = "") -> None:
        self.ledger.write("end", number, time.monotonic(), how, detail, id)


class _Refusals(logging.Handler):
    """What `fire` could not queue is told in its log only, on the thread that fired."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._local = threading.local()

    @property
    def text(self) -> str:
        return getattr(self._local, "text", "")

    @text.setter
    def text(self, text: str) -> None:
        self._local.text = text

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def _manner(dice: random.Random) -> tuple[str, dict[str, Any]]:
    """Most background calls have all the time that they need; some are late, in a hurry, or not very important."""
    luck = dice.random()
    if luck < 0.10:
        return " late", {"delay": dice.uniform(0.1, 3.0)}
    if luck < 0.15:
        return " hurry", {"expires_in": HURRY}
    if luck < 0.20:
        return " once", {"rounds": 1}
    return "", {"keep_result": 0} if luck < 0.40 else {}


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def main() -> None:
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    who, seed, folder = sys.argv[1:]
    import_modules(["chaos_services"])
    client = Client(who, int(seed), Path(folder))
    end_with_parent(client.stopping.set)
    client.run()


if __name__ == "__main__":
    main()
