"""What every process of Seawall does first: settings, logging, the user's modules, and its runtime."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from seawall import runtime as runtimes
from seawall.broker_check import BrokerWatch
from seawall.embedded import EmbeddedServer
from seawall.errors import ConfigurationError
from seawall.logs import setup_logging
from seawall.redis_link import shown_url
from seawall.runtime import Runtime
from seawall.settings import Settings, load_settings

__all__ = ["boot", "import_modules", "refuse_gevent", "url_of_up"]


def boot(
    arguments: Mapping[str, Any],
    modules: Iterable[str] = (),
    *,
    process: str,
    name: str | None = None,
    durable: bool = True,
    for_people: bool = False,
    watch: BrokerWatch | None = None,
    importing: AbstractContextManager[None] | None = None,
) -> tuple[Settings, Runtime]:
    """Settings from the arguments and the environment, and a runtime that the user's modules have declared services in.

    A command `for_people` logs nothing unless it is told to, because it speaks itself, and with no broker URL anywhere
    it looks at the `seawall up` which runs in this folder. `watch` looks at the broker of a process that runs on,
    unless it has a `name`: then it is a child of `seawall up`, which has looked itself. `importing` is entered while
    the user's modules are imported, which may take any time.

    Raises ConfigurationError; with `durable`, also for memory mode, which has nothing to offer to a second process, and
    with `watch` for a broker that cannot be trusted with calls. One that is away may come.
    """
    settings = load_settings(arguments)
    quiet = for_people and settings.sources["log_level"] != "argument"
    setup_logging(settings.log_format, "critical" if quiet else settings.log_level, process=name or process)
    looked = for_people and settings.sources["broker_url"] == "default"
    url = url_of_up(settings.data_dir) if looked else ""
    if url:
        settings = replace(settings, broker_url=url)
    if durable and settings.memory_mode:
        nobody = f", and no `seawall up` runs in {_folder(settings.data_dir)}" if looked else ""
        raise ConfigurationError(
            f"`seawall {process}` needs a broker that it shares with others{nobody}: set SEAWALL_BROKER_URL, such as "
            "redis://localhost:6379/0, or run everything with `seawall up`"
        )
    if watch is not None and name is None:
        watch.begin(settings)
    runtime = Runtime(settings)
    if url and runtime.engine.link is not None:
        runtime.engine.link.where = f"{shown_url(url)}, of the `seawall up` in {_folder(settings.data_dir)},"
    runtimes.replace(runtime)
    with importing or contextlib.nullcontext():
        import_modules(modules)
    if not for_people:
        refuse_gevent(process)
    return settings, runtime


def url_of_up(data_dir: Path) -> str:
    """The broker URL of the `seawall up` that keeps its data in this folder, whether it answers or hangs; empty when none
    runs.
    """
    if not (data_dir / "broker").is_dir():
        return ""
    with contextlib.suppress(ConfigurationError):
        server = EmbeddedServer(data_dir)
        return server.url if server.in_use else ""
    return ""


def _folder(data_dir: Path) -> Path:
    """Where people think that a `seawall up` runs: in the folder around its data, unless they have set another one."""
    folder = data_dir.absolute()
    return folder.parent if folder.name == ".seawall" else folder


def import_modules(modules: Iterable[str]) -> None:
    """Import the user's modules, the current folder last on the path. Raises ConfigurationError with the module's name."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigurationError(f"{name!r} is not the name of a module, such as app.services")
        try:
            importlib.import_module(name)
        except ConfigurationError as error:
            raise ConfigurationError(f"module {name!r} declares what cannot be used: {error}") from error
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"module {name!r} cannot be imported: {error}") from error
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"module {name!r} failed while it was imported: {type(error).__name__}: {error}{_place(error)}"
            ) from error


def refuse_gevent(process: str) -> None:
    """Raises ConfigurationError when a module has had gevent patch the standard library.

    Those who call may be patched: a client waits as well as greenlet code does. A worker runs on threads of its own and tells
    time by them; as greenlets in one thread, a call that computes would starve heartbeats and leases.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise ConfigurationError(
            f"`seawall {process}` runs on threads, and a module that it imports has gevent patch them away; call "
            "gevent.monkey.patch_all() in your web application only, or declare the services in seawall.toml"
        )


def _place(error: BaseException) -> str:
    """Where in the user's code it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or isinstance(error, SyntaxError):
        return ""
    return f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
