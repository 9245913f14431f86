"""All five programs of the example together, with something in them to search and to spend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import requests

from examples.caudex.addresses import SERVICES, url_variable
from examples.caudex.processes import ServiceProcess

__all__ = ["DEMO_PROJECT", "DEMO_USER", "Fleet"]

DEMO_PROJECT = "handbook"
DEMO_USER = "demo"
#: Credits that the demo user gets, once.
DEMO_FUNDS = 100_000
#: Seconds for storing the demo's documents; the caller tries again.
SEED_SECONDS = 5.0

_PASSAGES = {
    "caudex": "A caudex is a thick stem that stores water. Plants with a caudex survive long droughts.",
    "watering": "Water a caudex plant only when the soil is dry. In winter it rests and needs no water at all.",
    "light": "Most caudex plants want full sun. Move them into the sun slowly, or their leaves burn.",
    "breaker": "A circuit breaker opens after several failed calls. While it is open nobody bothers the sick service.",
    "recovery": "When the timer ends, the breaker lets one trial call through. If the trial succeeds, the breaker closes.",
    "billing": "Each answer costs two credits. When billing is away, no answer is given, because it could not be paid.",
    "snapshots": "Every chat ends with a snapshot of the project. While git is away, snapshots wait and the chat goes on.",
    "search": "When the search service is away, the backend looks through its own copy of the documents instead.",
}


class Fleet:
    """The four services and, unless `backend` is False, the Flask backend. A context manager that stops them all.

    `ports` gives a port by name ("chroma", ..., "backend"); what is missing gets any free one. `environ` is added
    to the children's environment; the backend also gets the services' addresses. ProcessDied when one does not start.
    """

    def __init__(
        self,
        data: Path,
        *,
        ports: Mapping[str, int] | None = None,
        backend: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        ports = ports or {}
        self._data, self._environ = data, dict(environ or {})
        self._backend_port = ports.get("backend", 0) if backend else None
        self.services = {
            name: ServiceProcess(name, data=data, port=ports.get(name, 0), environ=environ) for name in SERVICES
        }
        self.backend: ServiceProcess | None = None

    def __enter__(self) -> Fleet:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def processes(self) -> list[ServiceProcess]:
        """In the order in which they start."""
        return [*self.services.values(), *([self.backend] if self.backend else [])]

    def addresses(self) -> dict[str, str]:
        """The variables that point clients and workers at these services, once they run."""
        return {url_variable(name): service.url for name, service in self.services.items()}

    def start(self) -> None:
        """The services side by side, then the backend, which needs to know where they are."""
        for service in self.services.values():
            service.launch()
        for service in self.services.values():
            service.wait_ready()
        if self._backend_port is not None:
            environ = {**self._environ, **self.addresses()}
            self.backend = ServiceProcess(
                "backend",
                data=self._data,
                port=self._backend_port,
                module="examples.caudex.backend",
                environ=environ,
            )
            self.backend.start()

    def stop(self) -> None:
        """Backend first, so that it finishes its requests while the services answer. Safe twice and before start."""
        if self.backend:
            self.backend.stop()
        for service in self.services.values():
            service.ask_to_stop()
        for service in self.services.values():
            service.stop()

    def seed(self) -> None:
        """Give the demo user credits and the demo project documents; again and again changes nothing.

        Documents go in through the backend, thus through the queue, if there is a backend. Raises
        requests.RequestException.
        """
        paid = {"headers": {"Idempotency-Key": "first-funds"}, "json": {"user_id": DEMO_USER, "amount": DEMO_FUNDS}}
        self.services["billing"].ask("POST", "/add_funds", **paid).raise_for_status()
        self._add_documents(list(_PASSAGES), list(_PASSAGES.values())).raise_for_status()

    def _add_documents(self, ids: list[str], documents: list[str]) -> requests.Response:
        if self.backend:
            fields = {"project_id": DEMO_PROJECT, "ids": ids, "documents": documents}
            return self.backend.ask("POST", "/v1/api/documents", json=fields, timeout=SEED_SECONDS)
        fields = {"collection_name": f"project_{DEMO_PROJECT}", "ids": ids, "documents": documents}
        return self.services["chroma"].ask("POST", "/add", json=fields)
