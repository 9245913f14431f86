"""Every setting of Seawall: its name, meaning, default, and where its value came from.

A value is taken from the first of: an argument, the environment (`SEAWALL_<NAME>`), the file `seawall.toml`, the
default. The environment and the file are read when `load_settings` is called, never at import. A leaf module:
services that the file declares stay plain tables here, and `seawall.declared` makes services of them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from seawall.alert_settings import AlertSettings
from seawall.broker_url import shown_url
from seawall.errors import ConfigurationError
from seawall.kinds import PATH, Kind, Problem, Setting, choice, flag, nearest, seconds, text, whole
from seawall.schedule_tables import ScheduleTable
from seawall.service_tables import ServiceTable
from seawall.sources import Reading

__all__ = ["SETTINGS", "Problem", "ServiceTable", "Settings", "load_settings", "problems", "read_settings"]

MEMORY = "memory://"
BROKER_SCHEMES = ("memory", "redis", "rediss", "unix")

#: Seconds between SIGTERM and the exit of a process; most hosts send SIGKILL after 30.
DEFAULT_SHUTDOWN_TIMEOUT = 25.0
#: Seconds that memory mode goes on working at exit before what is left is logged as lost.
DEFAULT_EXIT_DRAIN = 5.0
DEFAULT_WEB_PORT = 8610
#: Worker processes under `seawall up`; two, so that one can be restarted while the other works.
DEFAULT_WORKERS = 2

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _about(kind: Kind, help_text: str, **more: bool) -> Mapping[str, Any]:
    return {"kind": kind, "help": help_text, **more}


def _broker_url() -> Kind:
    says = "a URL that starts with " + ", ".join(f"{scheme}://" for scheme in BROKER_SCHEMES)
    plain = text(says)

    def check(value: object) -> str:
        url = str(plain.check(value))
        scheme, separator, _ = url.partition("://")
        if not separator or scheme not in BROKER_SCHEMES:
            given = f"{scheme}://" if separator else "a URL without a scheme"
            raise ValueError(f"must be {says}; {given} is none of them{nearest(scheme, BROKER_SCHEMES)}")
        return url

    return Kind(says, check, plain.read)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(AlertSettings):
    """All settings of a process. Durations are seconds. Paths are absolute when they come from `load_settings`."""

    broker_url: str = field(
        default=MEMORY,
        repr=False,
        metadata=_about(
            _broker_url(),
            "Where calls, replies and breakers are kept. `memory://` keeps them in the importing process only.",
            secret=True,
            expands=True,
        ),
    )
    require_broker: bool = field(
        default=False,
        metadata=_about(flag(), "Memory mode is an error; for wherever calls must outlive a process."),
    )
    namespace: str = field(
        default="seawall",
        metadata=_about(
            text("a prefix", pattern=r"[a-z0-9_.-]{1,64}", like="at most 64 of a-z, 0-9, `_`, `.` and `-`"),
            "Prefix of every key on the server, so that several applications can share one.",
        ),
    )
    allow_eviction: bool = field(
        default=False,
        metadata=_about(flag(), "Accept a server that evicts keys when its memory is full, and so loses calls."),
    )
    internal_token: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            text("a token"),
            "The token that workers add to every call. Never in the file, never in a message.",
            secret=True,
            environment_only=True,
        ),
    )
    internal_token_file: Path | None = field(
        default=None, metadata=_about(PATH, "A file that holds the token; it is read again when it changes.")
    )
    internal_token_header: str = field(
        default="X-Internal-Token",
        metadata=_about(
            text("a header name", pattern=r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"), "The header that carries the token."
        ),
    )
    config: Path | None = field(
        default=None,
        metadata=_about(
            PATH, "The configuration file. By default `seawall.toml` of the current folder.", environment_only=True
        ),
    )
    data_dir: Path = field(
        default=Path(".seawall"), metadata=_about(PATH, "Where `seawall up` keeps the data of its embedded server.")
    )
    workers: int = field(
        default=DEFAULT_WORKERS, metadata=_about(whole(1, 256), "Worker processes that `seawall up` runs.")
    )
    web_host: str = field(
        default="127.0.0.1", metadata=_about(text("an address"), "The address that the web process listens on.")
    )
    web_port: int = field(
        default=DEFAULT_WEB_PORT,
        metadata=_about(whole(0, 65535), "The port that the web process listens on; 0 is any free one."),
    )
    web_token: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            text("a token"),
            "The token that the web process wants for everything but health, as `Authorization: Bearer TOKEN`.",
            secret=True,
            environment_only=True,
        ),
    )
    web_token_file: Path | None = field(
        default=None, metadata=_about(PATH, "A file that holds that token; it is read again when it changes.")
    )
    web_open: bool = field(
        default=False,
        metadata=_about(flag(), "Let the web process answer everybody, without a token, beyond this machine too."),
    )
    shutdown_timeout: float = field(
        default=DEFAULT_SHUTDOWN_TIMEOUT,
        metadata=_about(
            seconds(), "Seconds between SIGTERM and exit: running calls finish, the others go back to their queue."
        ),
    )
    exit_drain: float = field(
        default=DEFAULT_EXIT_DRAIN,
        metadata=_about(
            seconds(zero=True), "Seconds that memory mode works on at exit before it logs the rest as lost."
        ),
    )
    log_format: str = field(
        default="text", metadata=_about(choice("text", "json"), "How Seawall's own processes write their log.")
    )
    log_level: str = field(
        default="info",
        metadata=_about(
            choice("debug", "info", "warning", "error", "critical"), "How much Seawall's own processes log."
        ),
    )
    metrics: bool = field(
        default=True,
        metadata=_about(flag(), "Workers count attempts, ends and times of calls, for `/metrics` and the status page."),
    )
    services: tuple[ServiceTable, ...] = ()
    schedules: tuple[ScheduleTable, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each value came from: `argument`, `environment SEAWALL_X`, the file's name, or `default`."""

    @property
    def memory_mode(self) -> bool:
        """There is no broker, and everything runs inside the importing process."""
        return self.broker_url.startswith(MEMORY)

    def rows(self) -> list[tuple[str, str, str]]:
        """(setting, value, source) for people to read, in order; secrets are hidden."""
        found = [
            (name, _shown(setting, getattr(self, name)), self.sources.get(name, "default"))
            for name, setting in SETTINGS.items()
        ]
        for table in self.services:
            for key, value in table.values.items():
                found.append((f"services.{table.key}.{key}", _without_password(str(value)), table.source))
        for schedule in self.schedules:
            for key, value in schedule.values.items():
                shown = ", ".join(value) if key == "headers" else _without_password(str(value))
                found.append((f"schedules.{schedule.name}.{key}", shown, schedule.source))
        return found


#: Every setting by name, in the order of the documentation: those that stand in a table of the file come last.
SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        f.name: Setting(f.name, default=f.default, **f.metadata)
        for f in sorted(dataclasses.fields(Settings), key=lambda f: str(f.metadata.get("table", "")))
        if f.metadata
    }
)


def load_settings(
    arguments: Mapping[str, Any] = _NOTHING, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> Settings:
    """The settings of this process. An argument that is None counts as not given.

    `environ` is the process's own unless given, `folder` the current one. Raises ConfigurationError that lists
    everything that is wrong, and TypeError for an argument that is no setting.
    """
    settings, found = read_settings(arguments, environ, folder)
    errors = [problem for problem in found if problem.severity == "error"]
    if errors:
        listed = "".join(f"\n  {problem}" for problem in errors)
        raise ConfigurationError(str(errors[0]) if len(errors) == 1 else f"{len(errors)} settings are wrong:{listed}")
    return settings


def problems(
    arguments: Mapping[str, Any] = _NOTHING, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> list[Problem]:
    """Everything that is wrong with the settings that `load_settings` would load, warnings included."""
    return read_settings(arguments, environ, folder)[1]


def read_settings(
    arguments: Mapping[str, Any] = _NOTHING, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[Settings, list[Problem]]:
    """The settings as far as they can be understood, and everything that is wrong; for `seawall check`."""
    reading = Reading(SETTINGS, arguments, environ, folder)
    tables: dict[str, Any] = {"services": reading.services, "schedules": reading.schedules}
    settings = Settings(**reading.values, **tables, sources=MappingProxyType(reading.sources))
    return settings, reading.problems + _contradictions(settings)


def _contradictions(settings: Settings) -> list[Problem]:
    found = []
    if settings.require_broker and settings.memory_mode:
        why = f"must name a server, because {SETTINGS['require_broker'].variable} is set"
        found.append(Problem("error", SETTINGS["broker_url"].variable, why))
    for name in ("internal_token", "web_token", "alerts_secret"):
        if getattr(settings, name) and getattr(settings, f"{name}_file"):
            why = f"is not used, because {SETTINGS[name].variable} is set; give one of the two"
            found.append(Problem("warning", SETTINGS[f"{name}_file"].variable, why))
    if settings.alerts_webhook and not (settings.alerts_secret or settings.alerts_secret_file):
        text = f"is given without a key: alerts are not signed; set {SETTINGS['alerts_secret'].variable} or its file"
        found.append(Problem("warning", SETTINGS["alerts_webhook"].variable, text))
    return found


def _shown(setting: Setting, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(value)
    if setting.name == "alerts_webhook":
        return re.sub(r"\?.*", "?...", re.sub(r"//.*@", "//***@", value))
    if setting.secret:
        return _without_password(value) if setting.expands else "(hidden)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _without_password(value: str) -> str:
    return shown_url(re.sub(r"//.*@", "//***@", value))
