"""The search that still works when Chroma does not: the backend's own copy of the documents, compared word by word."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path

from examples.caudex.wording import overlap

__all__ = ["BasicSearch"]


class BasicSearch:
    """Documents by project, in memory; with a `path` also appended to a file and read again at the next start."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._projects: dict[str, dict[str, str]] = {}
        if path and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # a line cut short when the backend was killed
                    self._keep(*json.loads(line))

    def add(self, project: str, documents: dict[str, str]) -> None:
        """Remember documents by id; those that are known already cost nothing."""
        with self._lock:
            new = [(project, id, text) for id, text in documents.items() if self._keep(project, id, text)]
            if self._path and new:
                with self._path.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(entry) + "\n" for entry in new)

    def search(self, project: str, query: str, limit: int) -> list[dict[str, str]]:
        """`{"id", "document"}` of the documents that share most words with the query, the best first."""
        with self._lock:
            documents = list(self._projects.get(project, {}).items())
        ranked = sorted(((overlap(query, text), id, text) for id, text in documents), key=lambda hit: -hit[0])
        return [{"id": id, "document": text} for score, id, text in ranked[:limit] if score > 0]

    def _keep(self, project: str, id: str, text: str) -> bool:
        documents = self._projects.setdefault(project, {})
        known = documents.get(id) == text
        documents[id] = text
        return not known
