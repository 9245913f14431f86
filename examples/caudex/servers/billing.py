"""Billing: a ledger in whole credits that takes every amount once, however often the request comes.

    POST /deduct_cost      {"user_id", "amount"}    -> {"entry", "user_id", "amount", "balance"}; 402 without the funds
    POST /add_funds        {"user_id", "amount"}    -> the same
    GET  /balance/{user}   -> {"user_id", "balance"}
    GET  /ledger           ?user_id=&limit=         -> {"total", "entries": newest first}

Honours Idempotency-Key: a key that was seen gets the stored answer again (a 402 too), with the header
Idempotency-Replayed; the same key for another request is 422. Keys are kept as long as the ledger.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from examples.caudex.servers.base import Answer, Request, Route, route
from examples.caudex.servers.database import Database
from examples.caudex.servers.fields import Problem, text, whole_number
from examples.caudex.servers.serving import main

__all__ = ["Ledger", "build"]

MOST_CREDITS = 10**12
MOST_ENTRIES = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (user TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));
CREATE TABLE IF NOT EXISTS entries (
    entry INTEGER PRIMARY KEY, user TEXT NOT NULL, amount INTEGER NOT NULL, key TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL
);
"""
_OPEN = "INSERT OR IGNORE INTO accounts (user, balance) VALUES (?, 0)"
_CHANGE = "UPDATE accounts SET balance = balance + ? WHERE user = ? RETURNING balance"


class Ledger:
    """Accounts, what was booked on them, and the answers given by key. Each booking is one transaction."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def book(self, user: str, amount: int, key: str) -> Answer:
        """Add `amount` (negative to take) to the account, unless the key says that this was done."""
        request = hashlib.sha256(json.dumps([user, amount]).encode()).hexdigest()
        with self._database.transaction() as connection:
            if key and (stored := _stored(connection, key, request)):
                return stored
            answer = _book(connection, user, amount, key)
            if key:
                values = (key, request, answer.status, json.dumps(answer.body))
                connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?)", values)
            return answer

    def balance(self, user: str) -> int:
        rows = self._database.rows("SELECT balance FROM accounts WHERE user = ?", [user])
        return int(rows[0][0]) if rows else 0

    def entries(self, user: str | None, limit: int) -> dict[str, Any]:
        """How many there are, and the newest of them."""
        where, values = ("WHERE user = ?", [user]) if user is not None else ("", [])
        total = self._database.rows(f"SELECT count(*) FROM entries {where}", values)[0][0]
        found = f"SELECT entry, user, amount, key, at FROM entries {where} ORDER BY entry DESC LIMIT ?"
        names = ("entry", "user_id", "amount", "key", "at")
        rows = self._database.rows(found, [*values, limit])
        return {"total": total, "entries": [dict(zip(names, row, strict=True)) for row in rows]}


def _stored(connection: sqlite3.Connection, key: str, request: str) -> Answer | None:
    row = connection.execute("SELECT request, status, body FROM answers WHERE key = ?", [key]).fetchone()
    if row is None:
        return None
    if row[0] != request:
        raise Problem(422, "this Idempotency-Key was used for another request")
    return Answer(json.loads(row[2]), row[1], {"Idempotency-Replayed": "true"})


def _book(connection: sqlite3.Connection, user: str, amount: int, key: str) -> Answer:
    connection.execute(_OPEN, [user])
    balance = connection.execute("SELECT balance FROM accounts WHERE user = ?", [user]).fetchone()[0]
    if balance + amount < 0:
        return Answer({"error": "insufficient funds", "user_id": user, "balance": balance}, 402)
    values = (user, amount, key, time.time())
    cursor = connection.execute("INSERT INTO entries (user, amount, key, at) VALUES (?, ?, ?, ?)", values)
    balance = connection.execute(_CHANGE, (amount, user)).fetchone()[0]
    return Answer({"entry": cursor.lastrowid, "user_id": user, "amount": abs(amount), "balance": balance})


def build(data: Path) -> list[Route]:
    ledger = Ledger(data / "billing.sqlite3")
    return [
        route("POST", "/deduct_cost", lambda request: _change(ledger, request, -1)),
        route("POST", "/add_funds", lambda request: _change(ledger, request, 1)),
        route("GET", "/balance/{user}", lambda request: _balance(ledger, request.params["user"])),
        route("GET", "/ledger", lambda request: _entries(ledger, request)),
    ]


def _change(ledger: Ledger, request: Request, sign: int) -> Answer:
    fields = request.json()
    user = text(fields, "user_id", default="default", longest=100)
    amount = whole_number(fields, "amount", low=1, high=MOST_CREDITS)
    return ledger.book(user, sign * amount, request.idempotency_key)


def _balance(ledger: Ledger, user: str) -> Answer:
    return Answer({"user_id": user, "balance": ledger.balance(user)})


def _entries(ledger: Ledger, request: Request) -> Answer:
    limit = whole_number(request.query, "limit", low=1, high=MOST_ENTRIES, default=100)
    return Answer(ledger.entries(request.query.get("user_id"), limit))


if __name__ == "__main__":
    sys.exit(main("billing", build))
