"""What a supervisor needs for schedules: those of the file declared, and a tick's call queued."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
import requests

from seawall.actors.prepare import prepare
from seawall.actors.record import new_call_id
from seawall.actors.service import Service
from seawall.client import ResilientServiceClient
from seawall.declared import make_service
from seawall.errors import ConfigurationError
from seawall.kinds import Problem, nearest
from seawall.queueing import enqueue_all
from seawall.registry import Registry
from seawall.runtime import Runtime
from seawall.schedule_tables import ScheduleTable
from seawall.schedules import registry as schedules
from seawall.settings import Settings

__all__ = ["declare_schedules", "queue_tick", "schedule_problems"]

logger = logging.getLogger("seawall.supervisor")

#: Keys of a table that are a request's keywords, and the keywords.
_REQUEST = {"json": "json", "body": "data", "headers": "headers"}


def schedule_problems(
    settings: Settings, declared: Iterable[Service], *, unknown: Literal["error", "warning"] = "error"
) -> list[Problem]:
    """What is wrong with the file's schedules beyond their types; `declared` are the services that code declares.

    `unknown` is how bad a service is that neither declares: a module that was not imported may do so.
    """
    services: dict[str, Service] = {}
    for table in settings.services:
        with contextlib.suppress(ConfigurationError):  # told as the service's own problem
            services[table.key] = make_service(table)
    services.update((service.key, service) for service in declared)
    found = []
    for schedule in settings.schedules:
        key = schedule.values["service"]
        if key not in services:
            text = f"names {key!r}, which is declared neither in the file nor in code{nearest(key, services)}"
            found.append(Problem(unknown, f"{schedule.where}.service", text))
        elif wrong := _wrong_call(schedule, services[key], settings.internal_token_header):
            found.append(Problem("error", schedule.where, f"cannot be called: {wrong}"))
    return found


def _wrong_call(table: ScheduleTable, service: Service, token_header: str) -> str:
    values = table.values
    try:
        prepare(
            service,
            values["method"],
            values["path"],
            _request_options(values),
            call_id=new_call_id(),
            token_header=token_header,
        )
    except (TypeError, ValueError, requests.RequestException) as error:
        return str(error)
    return ""


def _request_options(values: Mapping[str, Any]) -> dict[str, Any]:
    return {keyword: values[key] for key, keyword in _REQUEST.items() if key in values}


def declare_schedules(settings: Settings, services: Registry) -> None:
    """Declare the file's schedules, without those that code has declared. Raises ConfigurationError."""
    for problem in schedule_problems(settings, services.all()):
        raise ConfigurationError(str(problem))
    for table in settings.schedules:
        if schedules.find(table.name) is None:
            others = {key: value for key, value in table.values.items() if key not in (*_REQUEST, "service")}
            client = ResilientServiceClient.named(table.values["service"])
            client.schedule(**others, **_request_options(table.values))


def queue_tick(runtime: Runtime, name: str, tick: float) -> None:
    """Queue the call of a schedule for this tick, unless the store has had it. Raises QueueFull and BrokerUnavailable."""
    schedule = schedules.find(name)
    if schedule is None:
        return
    call, original, how = schedule.call()
    how = msgspec.structs.replace(how, tick=(name, tick))
    answer = enqueue_all(runtime, schedule.service, [(call, original, how)])[0]
    if isinstance(answer, Exception):
        raise answer
    if answer.deduped:
        logger.debug("schedule %s: the tick of %.3f was there already", name, tick)
    else:
        logger.debug("schedule %s: the tick of %.3f is call %s", name, tick, answer.id)
