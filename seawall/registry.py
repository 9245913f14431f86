"""The services that this process has declared, by key: by creating a client, or in `seawall.toml`."""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable

from seawall.actors.service import Service
from seawall.alert_hook import ALERTS_KEY
from seawall.errors import ConfigurationError

__all__ = ["Registry"]

logger = logging.getLogger("seawall")

#: Characters of a key at the most.
LONGEST_KEY = 63


class Registry:
    """Declaring a key twice: for the same origin the last one wins, for another origin it is an error."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._owners: dict[str, weakref.ref[object]] = {}
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

    def claim(self, key: str, origin: str, owner: object) -> str:
        """A key of the owner's own: this one, or this one with a number.

        The key of an owner that is gone is used again for the same origin, so that a client made in every request
        costs no service, no queue and no thread of its own each time.
        """
        with self._lock:
            numbered = (f"{key[: LONGEST_KEY - 1 - len(str(n))]}-{n}" for n in itertools.count(2))
            free = next(name for name in itertools.chain([key], numbered) if self._is_free(name, origin))
            self._owners[free] = weakref.ref(owner)
            return free

    def _is_free(self, key: str, origin: str) -> bool:
        owner, service = self._owners.get(key), self._services.get(key)
        if owner is None or service is None:
            return service is None and (owner is None or owner() is None)
        return owner() is None and service.origin == origin

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

    def own(self) -> list[Service]:
        """Those of this process's code and tables: without the webhook of alerts, which the settings bring along."""
        return [service for service in self.all() if service.key != ALERTS_KEY]

    def on_declare(self, listener: Callable[[Service], None]) -> None:
        self._listeners.append(listener)

    def forget_listener(self, listener: Callable[[Service], None]) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    def after_fork(self) -> None:
        """In a child: the declarations stay, the parent's listeners and whoever held the lock are not there."""
        self._lock = threading.Lock()
        self._listeners = []

    def restore(self, services: Iterable[Service]) -> None:
        """Have exactly these services declared; for tests."""
        with self._lock:
            self._services = {service.key: service for service in services}
