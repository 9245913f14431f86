"""Start the whole example and keep it running: `python -m examples.caudex.run [--seconds N] [--data DIR]`.

`make run` starts it under `seawall up examples.caudex.services -- ...`; alone it works too, with everything of
Seawall inside the backend's process. A program that dies is started again, up to a budget.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests

from examples.caudex.addresses import SERVICES, backend_port, local_port, url_variable
from examples.caudex.fleet import DEMO_PROJECT, Fleet
from examples.caudex.processes import ProcessDied, ServiceProcess
from examples.caudex.stopping import StopSignals

__all__ = ["Restarts", "main", "supervise"]

#: Seconds before the first restart; doubles with each further one inside the window.
FIRST_DELAY = 0.2
#: Restarts of one program inside the window; one more, and something is wrong that a restart does not cure.
RESTART_BUDGET = 5
RESTART_WINDOW = 60.0
#: Seconds in which the documents must get in: workers that start beside us may not be there yet.
SEED_SECONDS = 30.0
SEED_PAUSE = 0.5

EXIT_OK = 0
EXIT_DIED = 1
EXIT_CANNOT_START = 2

_SCREEN = """
Caudex runs on {broker}. ctrl-C ends it.

{programs}
  data and logs {data}

Try this in another terminal:
  curl -s {backend}/v1/api/chat -H 'Content-Type: application/json' \\
       -d '{{"project_id": "{project}", "query": "When does the breaker close again?"}}'
Take Chroma away for 20 seconds, search five times at once, and look at the breakers:
  curl -s -X POST {token}'{chroma}/admin/fail?seconds=20'
  for n in 1 2 3 4 5; do
    curl -s {backend}/v1/api/search -H 'Content-Type: application/json' -d '{{"query": "How do I water it?"}}' &
  done; wait
  curl -s {backend}/v1/api/status/services
"""


class Restarts:
    """When to restart one program after each of its deaths."""

    def __init__(self) -> None:
        self._deaths: list[float] = []

    def after_death(self, now: float) -> float | None:
        """The monotonic time to start it again; None when the budget is used up."""
        self._deaths = [*(death for death in self._deaths if death > now - RESTART_WINDOW), now]
        if len(self._deaths) > RESTART_BUDGET:
            return None
        return now + FIRST_DELAY * 2.0 ** (len(self._deaths) - 1)


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    try:
        ports = _free_ports(os.environ)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_CANNOT_START
    with StopSignals() as stop:
        try:
            with Fleet(options.data, ports=ports) as fleet:
                return _serve(fleet, stop, options)
        except ProcessDied as error:
            print(error, file=sys.stderr)
            return EXIT_CANNOT_START


def _serve(fleet: Fleet, stop: StopSignals, options: argparse.Namespace) -> int:
    ends_at = time.monotonic() + options.seconds if options.seconds else None
    if _seed(fleet, stop):
        print(_screen(fleet, options.data), flush=True)
    return supervise(fleet.processes, stop, ends_at=ends_at)


def supervise(processes: Sequence[ServiceProcess], stop: StopSignals, *, ends_at: float | None = None) -> int:
    """Restart what dies, until a stop signal or `ends_at` (monotonic). The exit code."""
    restarts = {process.name: Restarts() for process in processes}
    due: dict[ServiceProcess, float] = {}
    while True:
        now = time.monotonic()
        if ends_at is not None and now >= ends_at:
            return EXIT_OK
        for process in [process for process, when in due.items() if when <= now]:
            del due[process]
            process.launch()
        moments = [*due.values(), *([ends_at] if ends_at is not None else [])]
        outputs = {process.output: process for process in processes if process not in due}
        stopped, speaking = stop.wait(min(moments) - now if moments else None, list(outputs))
        if stopped:
            return EXIT_OK
        for process in [outputs[output] for output in speaking if not outputs[output].hear()]:
            again = restarts[process.name].after_death(time.monotonic())
            if again is None:
                print(f"{process.name} died {RESTART_BUDGET + 1} times, see {process.log}", file=sys.stderr)
                return EXIT_DIED
            print(f"{process.name} died and starts again", file=sys.stderr)
            due[process] = again


def _seed(fleet: Fleet, stop: StopSignals) -> bool:
    """Put the documents in; False when a stop was asked for meanwhile. Goes on without them after a while."""
    ends_at = time.monotonic() + SEED_SECONDS
    while True:
        try:
            fleet.seed()
            return True
        except requests.RequestException as error:
            if time.monotonic() >= ends_at:
                print(f"no documents to search, the project stays empty: {error}", file=sys.stderr)
                return True
        if stop.wait(SEED_PAUSE)[0]:
            return False


def _screen(fleet: Fleet, data: Path) -> str:
    broker = os.environ.get("SEAWALL_BROKER_URL")
    guarded = "SEAWALL_INTERNAL_TOKEN" in os.environ
    addresses = {process.name: process.url for process in fleet.processes}
    return _SCREEN.format(
        broker="the broker of SEAWALL_BROKER_URL" if broker else "memory: its queue dies with the backend",
        programs="\n".join(f"  {name:<13} {url}" for name, url in addresses.items()),
        token='-H "X-Internal-Token: $SEAWALL_INTERNAL_TOKEN" ' if guarded else "",
        project=DEMO_PROJECT,
        data=data,
        backend=addresses["backend"],
        chroma=addresses["chroma"],
    )


def _free_ports(environ: Mapping[str, str]) -> dict[str, int]:
    """Every program's port. ValueError for a wrong address, OSError with advice for a port that is taken."""
    ports = {name: local_port(name, environ) for name in SERVICES} | {"backend": backend_port(environ)}
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise OSError(f"port {port} for {name} is taken: {_way_out(name, port)}") from None
    return ports


def _way_out(name: str, port: int) -> str:
    free = port + 1000
    setting = f"CAUDEX_BACKEND_PORT={free}" if name == "backend" else f"{url_variable(name)}=http://127.0.0.1:{free}"
    return f"stop what listens there, or set {setting} for this and for the workers"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.caudex.run", description="Caudex: backend and services")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so many seconds (default: at ctrl-C)")
    parser.add_argument("--data", type=Path, default=Path(".seawall/caudex"), help="data folder (%(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
