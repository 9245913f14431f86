"""`seawall breaker`: open, close and reset by hand. `seawall pause` and `seawall resume`: a service's background calls."""

from __future__ import annotations

import json
from typing import Any

import click

from seawall.actors.service import service_of_queue
from seawall.boot import boot
from seawall.cli.completion import complete_service
from seawall.cli.groups import Group
from seawall.cli.noting import note
from seawall.cli.options import json_option, module_option, settings_options
from seawall.errors import ConfigurationError
from seawall.kinds import nearest
from seawall.observing import pause as pause_service
from seawall.observing import resume as resume_service
from seawall.runtime import Runtime, registry
from seawall.supervisor.breaker import Event, ForceClose, ForceOpen, Reset
from seawall.supervisor.view import BreakerView

__all__ = ["breaker", "breaker_view", "pause", "require_known", "resume"]


@click.command("open", short_help="Open it, until it is closed by hand.")
@click.argument("service", shell_complete=complete_service)
@module_option
@json_option
@settings_options
def open_(service: str, modules: tuple[str, ...], as_json: bool, **arguments: Any) -> None:
    """Open the breaker of SERVICE, and keep it open until it is closed or reset by hand.

    Callers are refused and background calls wait, as if the service were down; no trial is made.
    """
    _by_hand("open", service, ForceOpen(), modules, as_json, arguments)


@click.command("close", short_help="Close it: calls go out again.")
@click.argument("service", shell_complete=complete_service)
@module_option
@json_option
@settings_options
def close(service: str, modules: tuple[str, ...], as_json: bool, **arguments: Any) -> None:
    """Close the breaker of SERVICE: calls go out again, and held ones are delivered."""
    _by_hand("close", service, ForceClose(), modules, as_json, arguments)


@click.command("reset", short_help="Close it, and forget its failures.")
@click.argument("service", shell_complete=complete_service)
@module_option
@json_option
@settings_options
def reset(service: str, modules: tuple[str, ...], as_json: bool, **arguments: Any) -> None:
    """Put the breaker of SERVICE back into its first state: closed, and no failure counted."""
    _by_hand("reset", service, Reset(), modules, as_json, arguments)


@click.group(cls=Group, sections={"Commands": (open_, close, reset)})
def breaker() -> None:
    """Open, close or reset a breaker by hand.

    SERVICE is a service's key, as `seawall status` shows it. The whole fleet follows within milliseconds.
    """


@click.command(short_help="Hold a service's background calls.")
@click.argument("service", shell_complete=complete_service)
@module_option
@json_option
@settings_options
def pause(service: str, modules: tuple[str, ...], as_json: bool, **arguments: Any) -> None:
    """Hold the background calls of SERVICE until `seawall resume`.

    They are accepted and kept, and none is started; no attempt is used up. Calls that somebody waits for go on.
    """
    _, runtime = boot(arguments, modules, process="pause", for_people=True)
    require_known(runtime, service)
    pause_service(runtime, service)
    words = click.style("paused", fg="yellow") + f"; `seawall resume {service}` lets its calls go on"
    _tell(as_json, service, words, paused=True)
    note(runtime, "pause", service)


@click.command(short_help="Let them go on.")
@click.argument("service", shell_complete=complete_service)
@module_option
@json_option
@settings_options
def resume(service: str, modules: tuple[str, ...], as_json: bool, **arguments: Any) -> None:
    """Let the background calls of SERVICE go on, as far as its breaker lets them."""
    _, runtime = boot(arguments, modules, process="resume", for_people=True)
    require_known(runtime, service)
    resume_service(runtime, service)
    _tell(as_json, service, click.style("resumed", fg="green"), paused=False)
    note(runtime, "resume", service)


def _by_hand(
    what: str, key: str, event: Event, modules: tuple[str, ...], as_json: bool, arguments: dict[str, Any]
) -> None:
    _, runtime = boot(arguments, modules, process="breaker", for_people=True)
    view = breaker_view(runtime, key)
    record = view.by_hand(event)
    state = view.state.value
    color = "green" if state == "closed" else "red"
    words = click.style(state, fg=color) + (", until it is closed by hand" if record.forced else "")
    _tell(as_json, key, words, state=state, forced=record.forced)
    note(runtime, what, key)


def _tell(as_json: bool, key: str, words: str, **about: Any) -> None:
    click.echo(json.dumps({"service": key, **about}) if as_json else f"{key}: {words}")


def breaker_view(runtime: Runtime, key: str) -> BreakerView:
    """The view of a service that is declared here, or that the fleet knows. Raises ConfigurationError."""
    declared = registry.find(key)
    if declared is not None and not declared.breaker:
        raise ConfigurationError(f"service {key!r} is declared without a breaker")
    if declared is not None:
        return runtime.views.of(declared)
    require_known(runtime, key)
    view = BreakerView(key, key, runtime.engine.breakers)
    view.start()
    return view


def require_known(runtime: Runtime, key: str) -> None:
    """Raises ConfigurationError for a service that is neither declared here nor known to the fleet."""
    if registry.find(key) is not None:
        return
    queues = (service_of_queue(name) for name in runtime.engine.queue.queues())
    known = {name for name in queues if name} | set(runtime.engine.breakers.read_all())
    if key not in known:
        listed = ", ".join(sorted(known)) or "none; its workers have not started yet"
        raise ConfigurationError(f"no service {key!r} is known{nearest(key, known)} (known: {listed})")
