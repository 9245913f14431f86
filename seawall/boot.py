"""What every process of Seawall does first: settings, logging, the user's modules, and its runtime."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from seawall import runtime as runtimes
from seawall.errors import ConfigurationError
from seawall.logs import setup_logging
from seawall.runtime import Runtime
from seawall.settings import Settings, load_settings

__all__ = ["boot", "import_modules"]


def boot(
    arguments: Mapping[str, Any],
    modules: Iterable[str] = (),
    *,
    process: str,
    name: str | None = None,
    durable: bool = True,
) -> tuple[Settings, Runtime]:
    """Settings from the arguments and the environment, and a runtime that the user's modules have declared services in.

    Raises ConfigurationError; with `durable`, also for memory mode, which has nothing to offer to a second process.
    """
    settings = load_settings(arguments)
    setup_logging(settings.log_format, settings.log_level, process=name or process)
    runtime = Runtime(settings)
    if durable and runtime.memory:
        raise ConfigurationError(
            f"`seawall {process}` needs a broker that it shares with others: set SEAWALL_BROKER_URL, such as "
            "redis://localhost:6379/0, or run everything with `seawall up`"
        )
    runtimes.replace(runtime)
    import_modules(modules)
    return settings, runtime


def import_modules(modules: Iterable[str]) -> None:
    """Import the user's modules, the current folder last on the path. Raises ConfigurationError with the module's name."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    for name in modules:
        try:
            importlib.import_module(name)
        except ConfigurationError:
            raise
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"module {name!r} cannot be imported: {error}") from error
        except Exception as error:
            raise ConfigurationError(
                f"module {name!r} failed while it was imported: {type(error).__name__}: {error}"
            ) from error
