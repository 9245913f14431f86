"""Whether a Redis or Valkey server can be trusted with calls: reachable, not evicting, persistent, on its own."""

from __future__ import annotations

import redis

from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.kinds import Problem
from seawall.redis_link import RedisLink
from seawall.settings import SETTINGS, Settings

__all__ = ["broker_problems"]


def broker_problems(settings: Settings) -> list[Problem]:
    """What is wrong with the server behind `broker_url`; needs INFO, and CONFIG GET for the save points."""
    try:
        link = RedisLink(settings.broker_url)
    except ConfigurationError as error:
        return [_error(f"cannot be used: {error}")]
    try:
        link.command("PING")
        return _server_problems(link, settings)
    except BrokerUnavailable as error:
        return [_error(f"names a server that is of no use now: {error}")]
    except redis.ResponseError as error:
        return [_error(f"names a server that refuses PING: {error}")]
    finally:
        link.close()


def _server_problems(link: RedisLink, settings: Settings) -> list[Problem]:
    try:
        facts = _facts(link)
    except redis.ResponseError as error:
        return [_warning(f"names a server that could not be checked: it refuses INFO ({error})")]
    found = []
    if facts.get("cluster_enabled") == "1":
        text = "names a server in cluster mode, where scripts cannot reach all of their keys; use a single one"
        found.append(_error(text))
    if facts.get("role") == "slave":
        found.append(_error("names a replica, which takes no writes; name its primary"))
    return [*found, *_eviction(facts, settings), *_persistence(facts, link)]


def _eviction(facts: dict[str, str], settings: Settings) -> list[Problem]:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or facts.get("maxmemory", "0") == "0":
        return []
    text = f"names a server that deletes keys when its memory is full (maxmemory-policy {policy}), accepted calls too"
    if settings.allow_eviction:
        return [_warning(text)]
    return [_error(f"{text}; set maxmemory-policy noeviction, or {SETTINGS['allow_eviction'].variable}=1")]


def _persistence(facts: dict[str, str], link: RedisLink) -> list[Problem]:
    if facts.get("aof_enabled") == "1":
        return []
    try:
        _, points = link.command("CONFIG", "GET", "save")
    except redis.ResponseError as error:
        return [_warning(f"names a server that refuses CONFIG GET ({error}): its save points are not known")]
    except ValueError:
        points = b""
    if points:
        text = "names a server with save points but no append-only file: it loses the calls since the last save"
        return [_warning(f"{text} when it dies; set appendonly yes")]
    return [_warning("names a server that keeps nothing on disk; set appendonly yes")]


def _facts(link: RedisLink) -> dict[str, str]:
    """The server's INFO as a dictionary."""
    lines = link.command("INFO").decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _error(text: str) -> Problem:
    return Problem("error", SETTINGS["broker_url"].variable, text)


def _warning(text: str) -> Problem:
    return Problem("warning", SETTINGS["broker_url"].variable, text)
