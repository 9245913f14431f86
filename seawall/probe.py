"""Asking a service's health path: a trial that disturbs no caller."""

from __future__ import annotations

import logging
from collections.abc import Callable

from seawall.actors.reasons import judge_error, judge_status, plain_words
from seawall.actors.record import Call, new_call_id
from seawall.actors.service import Service
from seawall.actors.token import TokenSource
from seawall.actors.transport import Transport

__all__ = ["Prober"]


class Prober:
    """GET on the health path of the services that `find` knows."""

    def __init__(
        self, find: Callable[[str], Service | None], token: TokenSource, *, session_mode: bool = False
    ) -> None:
        self._find = find
        self._token = token
        self._session_mode = session_mode
        self._transports: dict[str, tuple[Service, Transport]] = {}

    def can_ask(self, key: str) -> bool:
        service = self._find(key)
        return service is not None and bool(service.health_path)

    def ask(self, key: str) -> bool | str | None:
        """True when the service is healthy, a few words when it is not, None when it cannot be asked."""
        service = self._find(key)
        if service is None or not service.health_path:
            return None
        log = logging.getLogger(service.logger_name)
        target = service.base_path + "/" + service.health_path.lstrip("/")
        log.info("[%s] GET %s (attempt 1/%d)", service.name, target, service.max_retries)
        words = self._try(service, target)
        if words is None:
            log.info("[%s] ✓ GET %s succeeded", service.name, target)
            return True
        log.warning("[%s] %s on attempt 1/%d", service.name, words, service.max_retries)
        return words

    def _try(self, service: Service, target: str) -> str | None:
        call = Call(
            id=new_call_id(),
            service=service.key,
            origin=service.origin,
            method="GET",
            target=target,
            max_attempts=1,
            connect_timeout=service.timeout[0],
            timeout=service.timeout[1],
        )
        try:
            response = self._transport(service).send(call, original={})
        except Exception as error:
            verdict = judge_error(error)
            return f"{verdict.text if verdict else type(error).__name__}: {plain_words(error)}"
        verdict = judge_status(getattr(response, "status_code", None), None)
        return None if verdict.ok else verdict.text

    def _transport(self, service: Service) -> Transport:
        known = self._transports.get(service.key)
        if known is None or known[0] != service:
            known = (service, Transport(service, self._token, session_mode=self._session_mode))
            self._transports[service.key] = known
        return known[1]
