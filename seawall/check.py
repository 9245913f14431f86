"""The checks behind `seawall check`: what would go wrong, found before anything starts.

settings, found = read_settings()
found += run_checks(settings, ["app.services"])
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from seawall.actors.service import Service, origin_of
from seawall.alert_hook import hook_problem
from seawall.alerts import callable_problem
from seawall.broker_check import broker_problems
from seawall.declared import table_problems
from seawall.errors import ConfigurationError
from seawall.kinds import Problem
from seawall.runtime import registry
from seawall.schedules import registry as schedules
from seawall.scheduling import schedule_problems
from seawall.service_tables import ServiceTable
from seawall.settings import SETTINGS, Settings

__all__ = ["run_checks"]

#: What each of our names means to a program that finds another file under it first.
_ADVICE = {
    "seawall": "rename it",
    "service_utils": "remove the old file: Seawall installs a module of this name",
}


def run_checks(
    settings: Settings,
    modules: Sequence[str] = (),
    *,
    declared: Callable[[], Iterable[Service]] = registry.all,
    folder: Path | None = None,
) -> list[Problem]:
    """Everything that is wrong beyond the settings themselves (`read_settings` finds that); never raises for it.

    `modules` are imported, with `folder` (the current one) at the end of the path; `declared` answers the services
    that importing them declared.
    """
    folder = Path.cwd() if folder is None else folder
    found = _shadows(folder) + table_problems(settings.services)
    found += (
        _token_problems(settings, "internal_token") + _token_problems(settings, "web_token") + _web_problems(settings)
    )
    found += _token_problems(settings, "alerts_secret") + _alert_problems(settings)
    for name in modules:
        found += _import_problems(name, folder)
    found += _two_origins(settings.services, declared())
    found += schedule_problems(settings, declared(), unknown="error" if modules else "warning")
    if not settings.memory_mode:
        found += broker_problems(settings)
    return found


def _shadows(folder: Path) -> list[Problem]:
    """Files that a program started in the folder would import in place of ours."""
    package = Path(__file__).resolve().parent
    ours = {"seawall": package / "__init__.py", "service_utils": package.parent / "service_utils.py"}
    found = []
    for name, own_file in ours.items():
        other = _first_on_path(name, folder)
        if other is not None and other.resolve() != own_file:
            found.append(Problem("error", str(other), f"hides Seawall's own `{name}`; {_ADVICE[name]}"))
    return found


def _first_on_path(name: str, folder: Path) -> Path | None:
    for entry in [str(folder), *sys.path]:
        spec = PathFinder.find_spec(name, [entry or str(folder)])
        if spec is not None and spec.origin is not None:
            return Path(spec.origin)
    return None


def _token_problems(settings: Settings, name: str) -> list[Problem]:
    file: Path | None = getattr(settings, f"{name}_file")
    if file is None or getattr(settings, name):
        return []
    where = SETTINGS[f"{name}_file"].variable
    try:
        empty = not file.read_bytes().strip()
    except OSError as error:
        return [Problem("error", where, f"names {file}, which cannot be read: {error.strerror}")]
    return [Problem("error", where, f"names {file}, which is empty")] if empty else []


def _web_problems(settings: Settings) -> list[Problem]:
    """Only a warning: the token may be known where the web process runs, and nowhere else."""
    if settings.web_token or settings.web_token_file or settings.web_open:
        return []
    with contextlib.suppress(ValueError):
        if not ipaddress.ip_address(settings.web_host).is_loopback:
            text = "is beyond this machine: the web process does not start there without a token"
            return [Problem("warning", SETTINGS["web_host"].variable, f"{text}, see {SETTINGS['web_token'].variable}")]
    return []


def _alert_problems(settings: Settings) -> list[Problem]:
    problems = (("alerts_webhook", hook_problem(settings)), ("alerts_callable", callable_problem(settings)))
    return [Problem("error", SETTINGS[name].variable, f"cannot be used: {text}") for name, text in problems if text]


def _import_problems(name: str, folder: Path) -> list[Problem]:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        with schedules.without_broker():
            importlib.import_module(name)
    except ConfigurationError as error:
        return [Problem("error", f"module {name}", f"declares what cannot be used: {error}")]
    except (Exception, SystemExit) as error:
        return [Problem("error", f"module {name}", f"cannot be imported: {type(error).__name__}: {error}")]
    return []


def _two_origins(tables: Iterable[ServiceTable], declared: Iterable[Service]) -> list[Problem]:
    """Keys that the file and the code send to different places."""
    in_code = {service.key: service.origin for service in declared}
    found = []
    for table in tables:
        origin = _origin(table)
        other = in_code.get(table.key, origin)
        if origin is not None and other != origin:
            text = f"goes to {origin} here and to {other} in code; one key has one origin"
            found.append(Problem("error", f"{table.source}: services.{table.key}.url", text))
    return found


def _origin(table: ServiceTable) -> str | None:
    try:
        return origin_of(table.values.get("url", ""))
    except ConfigurationError:
        return None
