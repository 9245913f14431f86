"""The one screen of `seawall up`, which says where everything is."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from seawall.embedded import EmbeddedServer
from seawall.fleet import Fleet
from seawall.redis_link import shown_url
from seawall.runtime import registry
from seawall.settings import Settings

__all__ = ["program", "screen"]


def screen(
    settings: Settings, fleet: Fleet, server: EmbeddedServer | None, modules: Sequence[str], *, web: bool
) -> str:
    """What runs where, how other programs find it, and a line to try."""
    lines = [click.style("Seawall is up.", fg="green", bold=True) + " ctrl-C stops it.", ""]
    for name, text in _rows(settings, fleet, server, web):
        lines.append(f"  {name:<11} {text}")
    if exports := _exports(settings, server):
        lines += ["", "Point other programs at it:", *(f"  export {line}" for line in exports)]
    lines += ["", "Try, in another terminal:", *(f"  {line}" for line in _lines_to_try(settings, server, modules)), ""]
    return "\n".join(lines)


def _rows(settings: Settings, fleet: Fleet, server: EmbeddedServer | None, web: bool) -> list[tuple[str, str]]:
    slots = sum(worker.get("slots", 0) for worker in fleet.workers)
    where = f"embedded Valkey, data in {_near(server.folder)}" if server is not None else shown_url(settings.broker_url)
    rows = [("broker", where), ("supervisor", f"{len(fleet.supervisors)}, one leads")]
    rows.append(("workers", f"{len(fleet.workers)}, for {slots} calls at once"))
    if web:
        from seawall.webserver import shown_address

        address = shown_address(settings.web_host, settings.web_port)
        rows.append(("status", f"http://{address}/"))
    services = registry.all()
    wide = max((len(service.key) for service in services), default=0)
    shown = [f"{service.key:<{wide}}  {service.origin}" for service in services]
    return [*rows, *zip(["services", *[""] * len(shown)], shown, strict=False)]


def _exports(settings: Settings, server: EmbeddedServer | None) -> list[str]:
    """What other programs must know that this one was not told by the environment or the file. No password of anybody."""
    given = {"SEAWALL_BROKER_URL": settings.broker_url} if server is not None else {}
    if settings.sources.get("namespace") == "argument":
        given["SEAWALL_NAMESPACE"] = settings.namespace
    return [f"{name}={shlex.quote(value)}" for name, value in given.items()]


def _lines_to_try(settings: Settings, server: EmbeddedServer | None, modules: Sequence[str]) -> list[str]:
    """Lines that work in this folder as they stand: the command finds the broker of the `seawall up` that runs here."""
    elsewhere = server is not None and settings.sources.get("data_dir") == "argument"
    start = f"SEAWALL_DATA_DIR={shlex.quote(_near(settings.data_dir))} " if elsewhere else ""
    lines = [f"{start}{program()} status --watch"]
    services = registry.own()
    if services:
        first = next((service for service in services if service.health_path), services[0])
        known_by = "".join(f" -m {module}" for module in modules)
        lines.insert(0, f"{start}{program()} call {first.key} GET {first.health_path or '/'}{known_by}")
    return lines


def program() -> str:
    """How this very program is called in a shell: `seawall` where that is found, else its path, or with python."""
    beside = Path(sys.executable).parent / "seawall"
    found = shutil.which("seawall")
    if found and os.path.realpath(found) == os.path.realpath(beside):
        return "seawall"
    return shlex.quote(_near(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m seawall"


def _near(path: Path) -> str:
    """The path as seen from the current folder, where it lies below."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
