"""A namespace of a broker as JSON and back, so that what one release wrote can be kept and met by later ones."""

from __future__ import annotations

import base64
from typing import Any

import redis

__all__ = ["read_namespace", "write_namespace"]

Document = dict[str, dict[str, Any]]


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: str) -> bytes:
    return base64.b64decode(value)


def read_namespace(client: redis.Redis, namespace: str) -> Document:
    """Every key of the namespace: its type, its content in base64, its lifetime in ms (-1: for ever)."""
    found: Document = {}
    for key in sorted(client.scan_iter(f"{namespace}:*")):
        kind = client.type(key).decode()
        found[key.decode().removeprefix(f"{namespace}:")] = {
            "type": kind,
            "value": _READ[kind](client, key),
            "ttl": client.pttl(key),
        }
    return found


def write_namespace(client: redis.Redis, namespace: str, document: Document, *, port: int, was: int) -> None:
    """Have these keys again. A service's port in calls is exchanged for one of the same length: nothing else is touched."""
    old, new = f":{was}".encode(), f":{port}".encode()
    assert len(old) == len(new), "an ephemeral port has five digits"
    for name, entry in document.items():
        key = f"{namespace}:{name}"
        _WRITE[entry["type"]](client, key, entry["value"], lambda text: _bytes(text).replace(old, new))
        if entry["ttl"] >= 0:
            client.pexpire(key, max(entry["ttl"], 600_000))


_READ: dict[str, Any] = {
    "string": lambda client, key: _text(client.get(key)),
    "set": lambda client, key: sorted(_text(one) for one in client.smembers(key)),
    "list": lambda client, key: [_text(one) for one in client.lrange(key, 0, -1)],
    "hash": lambda client, key: {_text(field): _text(value) for field, value in client.hgetall(key).items()},
    "zset": lambda client, key: {_text(member): score for member, score in client.zrange(key, 0, -1, withscores=True)},
    "stream": lambda client, key: [
        [id.decode(), {_text(field): _text(value) for field, value in fields.items()}]
        for id, fields in client.xrange(key)
    ],
}
_WRITE: dict[str, Any] = {
    "string": lambda client, key, value, read: client.set(key, read(value)),
    "set": lambda client, key, value, read: client.sadd(key, *map(read, value)),
    "list": lambda client, key, value, read: client.rpush(key, *map(read, value)),
    "hash": lambda client, key, value, read: client.hset(
        key, mapping={read(field): read(one) for field, one in value.items()}
    ),
    "zset": lambda client, key, value, read: client.zadd(key, {read(one): score for one, score in value.items()}),
    "stream": lambda client, key, value, read: [
        client.xadd(key, {read(field): read(one) for field, one in fields.items()}, id=id) for id, fields in value
    ],
}
