"""Secrets that nobody else writes, and the search for them in whatever a fleet leaves behind."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from seawall.embedded import EmbeddedServer

__all__ = ["Sightings", "environ_of", "every_value", "every_write", "process_titles"]


class Sightings:
    """What a search of each kind has found: where, and how much was searched.

    A secret is looked for in every form in which it could show up: as it is, as URLs and HTTP have it, in hex.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        """The secrets by what people call them."""
        self.found: list[str] = []
        self.searched: dict[str, int] = {}
        self._traces = [(name, form) for name, secret in secrets.items() for form in _forms(secret)]

    def search(self, kind: str, where: str, data: bytes | str) -> None:
        data = data.encode() if isinstance(data, str) else data
        self.searched[kind] = self.searched.get(kind, 0) + 1
        self.found += [f"{kind} {where}: {name}" for name, form in self._traces if form in data]

    def search_all(self, kind: str, those: Iterable[tuple[str, bytes]]) -> None:
        for where, data in those:
            self.search(kind, where, data)


def _forms(secret: str) -> set[bytes]:
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {form.encode() for form in (secret, quote(secret, safe=""), encoded, secret.encode().hex())}


def every_value(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    """All that the server stores now, decoded by type."""
    read: dict[str, Any] = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": client.xrange,
    }
    for key in client.scan_iter("*"):
        kind = client.type(key).decode()
        if kind != "none":  # it has expired meanwhile
            yield key.decode(), key + b" " + b" ".join(_flat(read[kind](key)))


def _flat(value: Any) -> Iterator[bytes]:
    """The bytes in nested containers."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from _flat(list(value.items()))
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from _flat(part)


def every_write(server: EmbeddedServer) -> Iterator[tuple[str, bytes]]:
    """All that the server has ever stored: its append-only file."""
    for file in (server.folder / "appendonlydir").iterdir():
        yield file.name, file.read_bytes()


def process_titles() -> Iterator[tuple[str, bytes]]:
    """Command lines and names of all processes of the machine, as every user of it may read them."""
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "comm"):
            with contextlib.suppress(OSError):
                yield f"{folder.name}/{name}", (folder / name).read_bytes()


def environ_of(pid: int) -> bytes:
    """What a process was started with; its own user may read it."""
    return Path(f"/proc/{pid}/environ").read_bytes()
