"""The services that `seawall.toml` declares, made from its tables."""

from __future__ import annotations

from collections.abc import Iterable

from seawall.actors.reasons import retry_rules
from seawall.actors.service import Service, check_key, origin_of, split_timeout
from seawall.errors import ConfigurationError
from seawall.kinds import Problem
from seawall.service_tables import ServiceTable

__all__ = ["declared_services", "make_service", "table_problems"]


def declared_services(tables: Iterable[ServiceTable]) -> tuple[Service, ...]:
    """One service for each table. Raises ConfigurationError for the first key or URL that cannot be used."""
    return tuple(make_service(table) for table in tables)


def make_service(table: ServiceTable) -> Service:
    """The table as a service; keys that it does not hold have the defaults of Service. Raises ConfigurationError."""
    wrong = _wrong(table)
    if wrong:
        raise ConfigurationError(str(wrong[0]))
    values = dict(table.values)
    values["base_url"] = values.pop("url")
    values.setdefault("name", table.key)
    if "timeout" in values:
        values["timeout"] = split_timeout(values["timeout"])
    if "allow_headers" in values:
        values["allow_headers"] = frozenset(name.lower() for name in values["allow_headers"])
    if "retry_on" in values:
        values["retry_on"] = retry_rules(values["retry_on"])
    return Service(key=table.key, **values)


def table_problems(tables: Iterable[ServiceTable]) -> list[Problem]:
    """Every key and URL that cannot be used; types were looked at when the tables were read."""
    return [problem for table in tables for problem in _wrong(table)]


def _wrong(table: ServiceTable) -> list[Problem]:
    where = f"{table.source}: services.{table.key}"
    found = []
    try:
        check_key(table.key)
    except ConfigurationError as error:
        found.append(Problem("error", where, f"cannot be used: {error}"))
    try:
        origin_of(table.values.get("url", ""))
    except ConfigurationError as error:
        found.append(Problem("error", f"{where}.url", f"cannot be used: {error}"))
    try:
        retry_rules(table.values.get("retry_on", ()))
    except ValueError as error:
        found.append(Problem("error", f"{where}.retry_on", f"cannot be used: {error}"))
    return found
