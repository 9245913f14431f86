"""The services that this process has declared, by key: by creating a client, or in `seawall.toml`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from seawall.actors.service import Service
from seawall.errors import ConfigurationError

__all__ = ["Registry"]

logger = logging.getLogger("seawall")


class Registry:
    """Declaring a key twice: for the same origin the last one wins, for another origin it is an error."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Service], None]] = []

    def declare(self, service: Service) -> Service:
        """Raises ConfigurationError when the key belongs to another origin."""
        with self._lock:
            known = self._services.get(service.key)
            if known is not None and known.origin != service.origin:
                raise ConfigurationError(
                    f"service {service.key!r} is declared twice, at {known.origin} and at {service.origin}; "
                    "give one of them another key="
                )
            self._services[service.key] = service
        if known is not None and known != service:
            logger.info("[%s] declared again with other settings; the newer ones hold", service.name)
        if known != service:
            for listener in list(self._listeners):
                listener(service)
        return service

    def free_key(self, key: str) -> str:
        """The key, or the key with a number: one that nobody has."""
        with self._lock:
            if key not in self._services:
                return key
            number = next(n for n in range(2, len(self._services) + 3) if f"{key}-{n}" not in self._services)
            return f"{key}-{number}"

    def get(self, key: str) -> Service:
        """Raises ConfigurationError that names the declared ones."""
        try:
            return self._services[key]
        except KeyError:
            known = ", ".join(sorted(self._services)) or "none"
            raise ConfigurationError(f"service {key!r} is not declared here; declared: {known}") from None

    def find(self, key: str) -> Service | None:
        return self._services.get(key)

    def all(self) -> list[Service]:
        with self._lock:
            return list(self._services.values())

    def on_declare(self, listener: Callable[[Service], None]) -> None:
        self._listeners.append(listener)

    def forget_listener(self, listener: Callable[[Service], None]) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    def restore(self, services: Iterable[Service]) -> None:
        """Have exactly these services declared; for tests."""
        with self._lock:
            self._services = {service.key: service for service in services}
