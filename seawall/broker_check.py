"""Whether a Redis or Valkey server can be trusted with calls: reachable, ours to use, not evicting, persistent, alone."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import redis

from seawall.errors import BrokerRefused, BrokerUnavailable, ConfigurationError
from seawall.kinds import Problem
from seawall.redis_link import Argument, RedisLink, load_script
from seawall.settings import SETTINGS, Settings

__all__ = ["COMMANDS", "BrokerWatch", "broker_problems", "require_fit_broker"]

#: Seconds between two looks for a server that is away.
LOOK_SECONDS = 0.5

#: Every command that Seawall's processes and scripts send, with its fewest arguments, for the server's permissions.
COMMANDS = """
    BLPOP key 1 | DEL key | EVAL script 0 | EVALSHA sha 0 | GET key | HDEL key x | HEXISTS key x | HGET key x | HGETALL key
    HINCRBY key x 1 | HLEN key | HMGET key x | HSET key x y | HSETNX key x y | HSTRLEN key x | INCRBY key 1 | LINDEX key 0
    LLEN key | LPOP key | LPUSH key x | LRANGE key 0 1 | LREM key 1 x | MGET key | PEXPIRE key 1 | PING
    PUBLISH channel x | RPUSH key x | SADD key x | SET key x | SMEMBERS key | SUBSCRIBE channel | TIME
    XADD key * x y | XREAD STREAMS key 0 | XTRIM key MINID 0 | ZADD key 1 x | ZCARD key | ZCOUNT key 0 1 | ZMSCORE key x
    ZPOPMIN key | ZRANGE key 0 1 | ZRANGEBYSCORE key 0 1 | ZREM key x | ZREMRANGEBYSCORE key 0 1 | ZSCORE key x
"""
_ALLOWED = load_script("seawall", "allowed")

_logger = logging.getLogger("seawall")


class BrokerWatch:
    """A process's look at its broker, when it begins; at one that is away then, once as soon as it is there."""

    def __init__(self) -> None:
        self._refusal: ConfigurationError | None = None

    def begin(self, settings: Settings) -> None:
        """As `require_fit_broker`, but that the server is away is only a warning, and a thread waits for it."""
        try:
            require_fit_broker(settings)
        except BrokerUnavailable as error:
            _logger.warning("the broker is away, so it could not be checked yet: %s", error)
            threading.Thread(target=self._wait_for, args=(settings,), name="seawall-broker-watch", daemon=True).start()

    @property
    def refused(self) -> bool:
        """Whether a server that came later cannot be trusted with calls, so that the process should end."""
        return self._refusal is not None

    def raise_refusal(self) -> None:
        """Raises the ConfigurationError that `begin` would have raised."""
        if self._refusal is not None:
            raise self._refusal

    def _wait_for(self, settings: Settings) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                return require_fit_broker(settings)
            except ConfigurationError as error:
                self._refusal = error
                return None
            except BrokerUnavailable:
                continue


def require_fit_broker(settings: Settings) -> None:
    """For a process that begins: warn of what is not as it should be. Raises ConfigurationError when the server cannot be
    trusted with calls, and BrokerUnavailable when it is away.
    """
    for problem in _problems(settings):
        if problem.severity == "error":
            raise ConfigurationError(str(problem))
        _logger.warning("%s", problem)


def broker_problems(settings: Settings) -> list[Problem]:
    """What is wrong with the server behind `broker_url`; needs INFO, and CONFIG GET for the save points."""
    try:
        return _problems(settings)
    except BrokerUnavailable as error:
        return [_error(f"names a server that is of no use now: {error}")]


def _problems(settings: Settings) -> list[Problem]:
    """Raises BrokerUnavailable when the server is away."""
    try:
        link = RedisLink(settings.broker_url)
    except ConfigurationError as error:
        return [_error(f"cannot be used: {error}")]
    try:
        link.command("PING")
        facts = _facts(link)
        return [*_kind(facts), *_permissions(link, settings), *_eviction(facts, settings), *_persistence(facts, link)]
    except BrokerRefused as error:
        return [_error(f"names a server that is of no use: {error}")]
    except redis.ResponseError as error:
        return [_error(f"names a server that does not do as Redis does: {error}")]
    finally:
        link.close()


def _kind(facts: dict[str, str] | None) -> list[Problem]:
    if facts is None:
        return [_warning("names a server that could not be checked: it refuses INFO")]
    found = []
    if facts.get("cluster_enabled") == "1":
        text = "names a server in cluster mode, where scripts cannot reach all of their keys; use a single one"
        found.append(_error(text))
    if facts.get("role") == "slave":
        found.append(_error("names a replica, which takes no writes; name its primary"))
    return found


def _permissions(link: RedisLink, settings: Settings) -> list[Problem]:
    """Commands that are renamed or forbidden, and keys that are somebody else's, all of them by name."""
    words: list[Argument] = []
    for line in COMMANDS.replace("\n", "|").split("|"):
        if command := [_named(word, settings.namespace) for word in line.split()]:
            words += [len(command), *command]
    refused = ", ".join(name.decode() for name in link.run(_ALLOWED, *words))
    if not refused:
        return []
    prefix = settings.namespace
    text = (
        f"names a server that does not let this user run {refused} on {prefix}:*; they are renamed or forbidden there"
    )
    return [_error(f"{text} (ACL rules that are enough: see docs/configuration.md)")]


def _named(word: str, namespace: str) -> str:
    """A word of COMMANDS as it is sent."""
    return {"key": f"{namespace}:check", "channel": f"{namespace}:breakers"}.get(word, word)


def _eviction(facts: dict[str, str] | None, settings: Settings) -> list[Problem]:
    policy = (facts or {}).get("maxmemory_policy", "noeviction")
    if facts is None or policy == "noeviction" or facts.get("maxmemory", "0") == "0":
        return []
    text = f"names a server that deletes keys when its memory is full (maxmemory-policy {policy}), accepted calls too"
    if settings.allow_eviction:
        return [_warning(text)]
    return [_error(f"{text}; set maxmemory-policy noeviction, or {SETTINGS['allow_eviction'].variable}=1")]


def _persistence(facts: dict[str, str] | None, link: RedisLink) -> list[Problem]:
    if facts is None or facts.get("aof_enabled") == "1":
        return []
    try:
        _, points = link.command("CONFIG", "GET", "save")
    except (redis.ResponseError, BrokerRefused):
        return [_warning("names a server that refuses CONFIG GET: its save points are not known")]
    except ValueError:
        points = b""
    if points:
        text = "names a server with save points but no append-only file: it loses the calls since the last save"
        return [_warning(f"{text} when it dies; set appendonly yes")]
    return [_warning("names a server that keeps nothing on disk; set appendonly yes")]


def _facts(link: RedisLink) -> dict[str, str] | None:
    """The server's INFO as a dictionary; None where it is not told."""
    try:
        told: Any = link.command("INFO")
    except (redis.ResponseError, BrokerRefused):
        return None
    lines = told.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _error(text: str) -> Problem:
    return Problem("error", SETTINGS["broker_url"].variable, text)


def _warning(text: str) -> Problem:
    return Problem("warning", SETTINGS["broker_url"].variable, text)
