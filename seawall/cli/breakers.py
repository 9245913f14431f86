"""`seawall breaker`: open, close and reset by hand."""

from __future__ import annotations

from typing import Any

import click

from seawall.boot import boot
from seawall.cli.options import settings_options
from seawall.errors import ConfigurationError
from seawall.runtime import Runtime, registry
from seawall.supervisor.breaker import Event, ForceClose, ForceOpen, Reset
from seawall.supervisor.view import BreakerView

__all__ = ["breaker"]

_EVENTS: dict[str, type[ForceOpen] | type[ForceClose] | type[Reset]] = {
    "open": ForceOpen,
    "close": ForceClose,
    "reset": Reset,
}


@click.command()
@click.argument("verb", type=click.Choice(list(_EVENTS)))
@click.argument("service")
@click.option("--module", "modules", multiple=True, help="A module that declares the service.")
@settings_options
def breaker(verb: str, service: str, modules: tuple[str, ...], **arguments: Any) -> None:
    """Open a service's breaker until it is closed by hand, close it, or reset it to its first state.

    The whole fleet follows within milliseconds.
    """
    _, runtime = boot(arguments, modules, process="breaker")
    view = _view(runtime, service)
    event: Event = _EVENTS[verb]()
    view.by_hand(event)
    click.echo(f"{service}: {view.state.value}" + (", until it is closed by hand" if verb == "open" else ""))


def _view(runtime: Runtime, key: str) -> BreakerView:
    """The view of a service that is declared here, or that the fleet knows."""
    declared = registry.find(key)
    if declared is not None:
        return runtime.views.of(declared)
    known = {name.rpartition(".")[0] for name in runtime.engine.queue.queues()} | set(
        runtime.engine.breakers.read_all()
    )
    if key not in known:
        raise ConfigurationError(f"no service {key!r} is known; known: {', '.join(sorted(known)) or 'none'}")
    view = BreakerView(key, key, runtime.engine.breakers)
    view.start()
    return view
