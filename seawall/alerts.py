"""Alerts in Python: functions that hear of them, and the receiver's side of the webhook.

    @seawall.on_alert
    def page_somebody(alert):
        pager.send(alert["summary"])

Functions run in the leading supervisor, which imports the modules that it is started with, each on a thread of its own:
one that raises or hangs harms nobody. docs/alerts.md has the form of an alert.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from seawall.actors.signing import check_signature
from seawall.errors import ConfigurationError
from seawall.settings import Settings

__all__ = [
    "Listener",
    "callable_problem",
    "declared_functions",
    "is_wanted",
    "listeners",
    "named_callable",
    "on_alert",
    "restore",
    "verify_alert",
]

logger = logging.getLogger("seawall.alerts")

#: Seconds by which a signature's time may differ from the receiver's clock.
TOLERANCE = 300.0
#: Alerts that wait for a function which is still busy with another one; more are dropped.
MOST_WAITING = 100
#: Seconds that a process which ends waits for its functions.
FAREWELL_SECONDS = 2.0

Hears = Callable[[dict[str, Any]], object]
Function = TypeVar("Function", bound=Hears)

_functions: list[Hears] = []


def on_alert(function: Function) -> Function:
    """Have the leading supervisor call this function with each alert, a dict as docs/alerts.md has it. A decorator.

    Declare it in a module that the supervisor imports (`seawall supervisor MODULE`, `seawall up MODULE`); in any other
    process it has no effect. In memory mode, which has no supervisor, the process itself calls it.
    """
    if not callable(function):
        raise TypeError(f"on_alert needs a function of one argument, not {function!r}")
    if function not in _functions:
        _functions.append(function)
    return function


def verify_alert(
    body: bytes, header: str | None, secret: str, *, tolerance: float = TOLERANCE, now: float | None = None
) -> dict[str, Any]:
    """The alert in a webhook's body, once its signature is found to be good.

    `body` is the request's as it came, `header` its X-Seawall-Signature, `secret` the key that both sides know. A
    signature may be `tolerance` seconds old; whoever keeps the ids for so long is safe from one that is sent again.

    Raises ValueError that says what is wrong.
    """
    if not header:
        raise ValueError("the request has no X-Seawall-Signature")
    if not secret:
        raise ValueError("there is no key to check the signature with")
    check_signature(header, secret.strip(), body, now=time.time() if now is None else now, tolerance=tolerance)
    alert: dict[str, Any] = json.loads(body)
    return alert


def named_callable(name: str) -> Hears:
    """The function that `[alerts] callable` names as `module:function`. Raises ConfigurationError."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigurationError(f"alerts.callable {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigurationError(f"alerts.callable {name!r} is no function")
    hears: Hears = found
    return hears


def callable_problem(settings: Settings) -> str:
    """What is wrong with `[alerts] callable`; nothing where it can be called."""
    try:
        if settings.alerts_callable is not None:
            named_callable(settings.alerts_callable)
    except ConfigurationError as error:
        return str(error)
    return ""


def listeners(settings: Settings) -> list[Listener]:
    """One for every function that code and settings name. Raises ConfigurationError."""
    named = [named_callable(settings.alerts_callable)] if settings.alerts_callable is not None else []
    return [Listener(function) for function in dict.fromkeys([*_functions, *named])]


def is_wanted(settings: Settings) -> bool:
    """Somebody hears of alerts, beside the log."""
    return bool(_functions or settings.alerts_callable or settings.alerts_webhook)


def declared_functions() -> list[Hears]:
    return list(_functions)


def restore(functions: Iterable[Hears]) -> None:
    """Have exactly these functions declared; for tests."""
    _functions[:] = functions


class Listener:
    """Calls a function on a thread of its own, with one alert after the other. `tell` returns at once and never raises."""

    def __init__(self, function: Hears) -> None:
        self._function = function
        self._name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
        self._waiting: queue.Queue[Mapping[str, Any]] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def tell(self, alert: Mapping[str, Any]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._listen, name="seawall-alerts", daemon=True)
            self._thread.start()
            atexit.register(self.flush)
        try:
            self._waiting.put_nowait(alert)
        except queue.Full:
            logger.error(
                "alert %s was not given to %s, which is still busy with %d others",
                alert["id"],
                self._name,
                MOST_WAITING,
            )

    def flush(self, timeout: float = FAREWELL_SECONDS) -> None:
        """Wait until the function has had all alerts, for at most `timeout` seconds."""
        ends = time.monotonic() + timeout
        while self._waiting.unfinished_tasks and time.monotonic() < ends:
            time.sleep(0.01)

    def _listen(self) -> None:
        while True:
            alert = self._waiting.get()
            try:
                self._function(dict(alert))
            except BaseException:
                with contextlib.suppress(Exception):
                    logger.exception("alert %s: %s raised an error; it goes on", alert["id"], self._name)
            finally:
                self._waiting.task_done()
