"""`seawall alerts`: does an alert reach its webhook?"""

from __future__ import annotations

import time
from typing import Any

import click
import requests

from seawall.actors.record import new_call_id
from seawall.actors.service import queue_names
from seawall.alert_hook import ALERTS_KEY
from seawall.alerting import send
from seawall.boot import boot
from seawall.cli.groups import Group
from seawall.cli.options import settings_options
from seawall.errors import DeadlineExceeded
from seawall.exits import Exit
from seawall.handles import Handle
from seawall.runtime import Runtime, registry
from seawall.settings import Settings
from seawall.supervisor.alert_words import Alert, summary_of

__all__ = ["alerts"]

#: Seconds that a test waits by default: one round of three attempts fits, each up to its timeout.
PATIENCE = 40.0


@click.command(short_help="Send a test alert, and wait for what becomes of it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=PATIENCE,
    metavar="SECONDS",
    help="Wait so long for the answer.",
)
@settings_options
def test(timeout: float, **arguments: Any) -> int:
    """Send a test alert the whole way: into the queue, to a worker, to the webhook; and tell what became of it.

    Exits with 0 when the webhook took it, with 1 when it did not, and with 69 when no worker or no broker did its part.
    """
    settings, runtime = boot(arguments, process="alerts test", for_people=True)
    now = runtime.engine.breakers.now() or time.time()
    alert = Alert(id=f"test.{new_call_id()}", kind="test", service=ALERTS_KEY, service_name="Seawall", at=now)
    started = time.monotonic()
    handle = send(settings, Alert(**_fields(alert), summary=summary_of(alert)), rounds=1, keep_result=60.0)
    click.echo(f"queued as call {handle.id} for {registry.get(ALERTS_KEY).origin}, {_signed(settings)}")
    try:
        response: requests.Response = handle.result(timeout)
    except DeadlineExceeded:
        return _not_over(runtime, handle, timeout)
    except requests.RequestException as error:
        click.echo(f"{_word('not delivered', 'red')}: {error}")
        return Exit.FAILED
    if response.status_code >= 400:
        click.echo(f"{_word('refused', 'red')}: the webhook answered {response.status_code} {response.reason}")
        return Exit.FAILED
    took = time.monotonic() - started
    click.echo(
        f"{_word('delivered', 'green')}: the webhook answered {response.status_code}, {took:.2f} s after all began"
    )
    return Exit.OK


@click.group(cls=Group, sections={"Commands": (test,)}, short_help="Send a test alert to the webhook.")
def alerts() -> None:
    """Alerts: on an outage, on its end, on a queue that grows, on dead letters. docs/alerts.md has them all."""


def _not_over(runtime: Runtime, handle: Handle, timeout: float) -> int:
    """Why there is no answer, as far as the queue tells; the call goes, if it has not run."""
    status = handle.status()
    taken_back = handle.cancel()
    if not runtime.engine.queue.workers_serving(queue_names(ALERTS_KEY)[1]):
        why = "no worker serves the webhook: start one with the same [alerts] settings"
    elif status == "held":
        why = (
            "the webhook's breaker is open, because it could not be reached lately; `seawall status` has its last error"
        )
    else:
        why = f"the call is {status} after {timeout:g} s" + "".join(
            f"; {one.outcome}" for one in handle.attempts()[-1:]
        )
    fate = "; the test alert was taken back" if taken_back else ""
    click.echo(f"{_word('no answer', 'red')}: {why}{fate}")
    return Exit.UNAVAILABLE


def _fields(alert: Alert) -> dict[str, Any]:
    return {name: getattr(alert, name) for name in ("id", "kind", "service", "service_name", "at")}


def _signed(settings: Settings) -> str:
    keyed = settings.alerts_secret or settings.alerts_secret_file
    return "signed" if keyed else "not signed: there is no key"


def _word(text: str, color: str) -> str:
    return click.style(text, fg=color, bold=True)
