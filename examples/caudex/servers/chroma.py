"""Chroma: search over stored documents, by SQLite's full text index where the real one compares vectors.

    POST /add     {"collection_name", "documents": [text], "ids": [text]}    the same id again replaces the document
    POST /query   {"collection_name", "query_texts": [text], "n_results"}    -> {"ids", "documents", "distances"}, a list
                                                                             per query text, the nearest first
    GET  /ready   200 when the index can be read

Without a collection_name it is the collection "default"; without ids they are made from the documents' text.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from examples.caudex.servers.base import Answer, Request, Route, route
from examples.caudex.servers.database import Database
from examples.caudex.servers.fields import Problem, text, texts, whole_number
from examples.caudex.servers.serving import main

__all__ = ["Index", "build"]

DEFAULT_RESULTS = 5
MOST_RESULTS = 100
#: Words of a query that are looked at.
MOST_WORDS = 64

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    number INTEGER PRIMARY KEY, collection TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL,
    UNIQUE (collection, id)
);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (
    document, content = 'documents', content_rowid = 'number', tokenize = 'porter unicode61'
);
CREATE TRIGGER IF NOT EXISTS document_added AFTER INSERT ON documents BEGIN
    INSERT INTO words (rowid, document) VALUES (new.number, new.document);
END;
CREATE TRIGGER IF NOT EXISTS document_replaced AFTER UPDATE ON documents BEGIN
    INSERT INTO words (words, rowid, document) VALUES ('delete', old.number, old.document);
    INSERT INTO words (rowid, document) VALUES (new.number, new.document);
END;
"""
_ADD = """
INSERT INTO documents (collection, id, document) VALUES (?, ?, ?)
ON CONFLICT (collection, id) DO UPDATE SET document = excluded.document
"""
_NEAREST = """
SELECT id, documents.document, bm25(words) AS score FROM words JOIN documents ON number = words.rowid
WHERE words MATCH ? AND collection = ? ORDER BY score, number LIMIT ?
"""


class Index:
    """Documents in named collections, found by their words."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def add(self, collection: str, ids: list[str], documents: list[str]) -> int:
        """Store documents, all or none; answers how many the collection holds now."""
        with self._database.transaction() as connection:
            connection.executemany(_ADD, [(collection, *pair) for pair in zip(ids, documents, strict=True)])
        return self.count(collection)

    def count(self, collection: str) -> int:
        return int(self._database.rows("SELECT count(*) FROM documents WHERE collection = ?", [collection])[0][0])

    def nearest(self, collection: str, query: str, limit: int) -> list[tuple[str, str, float]]:
        """(id, document, distance) of the best matches; the distance lies between 0 and 1, small is near."""
        found = re.findall(r"\w+", query)[:MOST_WORDS]
        if not found:
            return []
        match = " OR ".join(f'"{word}"' for word in found)  # quoted: no word is an operator of the index's language
        rows = self._database.rows(_NEAREST, [match, collection, limit])
        return [(id, document, 1 / (1 + max(0.0, -score))) for id, document, score in rows]


def build(data: Path) -> list[Route]:
    index = Index(data / "chroma.sqlite3")
    return [
        route("POST", "/add", lambda request: _add(index, request)),
        route("POST", "/query", lambda request: _query(index, request)),
        route("GET", "/ready", lambda _: Answer({"ready": True, "documents": index.count("default")})),
    ]


def _add(index: Index, request: Request) -> Answer:
    fields = request.json()
    documents = texts(fields, "documents")
    ids = texts(fields, "ids") if "ids" in fields else [_id_of(document) for document in documents]
    if len(ids) != len(documents):
        raise Problem(400, "ids must be as many as documents")
    return Answer({"added": len(ids), "count": index.add(_collection(fields), ids, documents)})


def _query(index: Index, request: Request) -> Answer:
    fields = request.json()
    limit = whole_number(fields, "n_results", low=1, high=MOST_RESULTS, default=DEFAULT_RESULTS)
    found = [index.nearest(_collection(fields), query, limit) for query in texts(fields, "query_texts", most=20)]
    columns = ("ids", "documents", "distances")
    return Answer({name: [[hit[place] for hit in hits] for hits in found] for place, name in enumerate(columns)})


def _collection(fields: dict[str, Any]) -> str:
    return text(fields, "collection_name", default="default", longest=100)


def _id_of(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main("chroma", build))
