"""The client: one per service, made once and used many times."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack

from seawall import runtime as runtimes
from seawall.actors.options import BackgroundCallOptions, EnqueueOptions, WaitOptions
from seawall.actors.prepare import Prepared as PreparedCall
from seawall.actors.prepare import prepare
from seawall.actors.reasons import retry_rules
from seawall.actors.record import Call, new_call_id
from seawall.actors.redact import path_only
from seawall.actors.service import (
    DEFAULT_CONCURRENCY,
    DEFAULT_FAILURE_THRESHOLD,
    DEFAULT_MAX_RETRIES,
    DEFAULT_RECOVERY_TIMEOUT,
    DEFAULT_TIMEOUT,
    Service,
    queue_names,
)
from seawall.actors.tracing import carried, sending, sending_many
from seawall.calling import abandon_trial, admit, call_and_wait, default_deadline
from seawall.declaring import make_service
from seawall.handles import Handle
from seawall.queueing import BackgroundOptions, Prepared, enqueue_all
from seawall.schedule_tables import checked_ticks
from seawall.schedules import Schedule
from seawall.schedules import registry as schedules
from seawall.supervisor.breaker import Reset, State
from seawall.supervisor.view import BreakerView
from seawall.telling import tell

if TYPE_CHECKING:
    import requests

__all__ = ["ResilientServiceClient", "snapshot"]

#: Seconds for which the result of an enqueued call is kept.
DEFAULT_KEEP_RESULT = 60.0
#: Seconds that get_status waits for a breaker's first answer from the broker; the promise is 100 ms in all.
STATUS_WAIT = 0.08


class ResilientServiceClient:
    """Calls one service through its queue, with retries and a circuit breaker that the whole fleet shares.

    >>> chroma = ResilientServiceClient("http://chroma:6003", service_name="Chroma Server")
    >>> chroma.post("/query", json={"query_texts": ["what is AI?"]}).json()  # doctest: +SKIP

    A verb waits for the answer and returns a real `requests.Response`; a 4xx comes back as one. It raises, all of them
    `requests.RequestException`:

    - `ServiceUnavailable`: the breaker is open, nothing was sent
    - `requests.HTTPError`: the last attempt was answered with a 5xx; it has `.response`
    - the `requests` exception of the last attempt: connection errors, timeouts
    - `DeadlineExceeded`, `NoWorker`: no answer in time
    - `OutcomeUnknown`: it may have happened, and must not be repeated blindly

    `enqueue` returns a handle at once, `fire` nothing at all.
    """

    def __init__(
        self,
        base_url: str,
        service_name: str | None = None,
        max_retries: int = DEFAULT_MAX_RETRIES,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        failure_threshold: int = DEFAULT_FAILURE_THRESHOLD,
        recovery_timeout: float = DEFAULT_RECOVERY_TIMEOUT,
        *,
        key: str | None = None,
        health_path: str | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        idempotency: Literal["trust", "none"] = "trust",
        allow_headers: Iterable[str] = (),
        **more: Any,
    ) -> None:
        """Declare the service, with:

        - `base_url`: http or https; may hold credentials, which stay in this process
        - `service_name`: what people read; its slug is the key unless `key` is given
        - `max_retries`: attempts in all, as in the log lines' `attempt 1/3`; at least 1
        - `timeout`: seconds for an attempt in all, or (connect, read) in seconds
        - `failure_threshold`: failed calls in a row that open the breaker
        - `recovery_timeout`: seconds before an open breaker tries again
        - `health_path`: where the supervisor tries whether the service is back, such as `/health`
        - `concurrency`: calls that run at once in one worker process
        - `idempotency`: "none" when a repeated POST or PATCH with the same Idempotency-Key would be carried out twice
        - `allow_headers`: of Authorization, Cookie and Proxy-Authorization, those that a call may carry through the queue
        - more: `max_in_flight`, `slow_start`, `retry_on`, `retry_budget`, `expires_in`, `queue_cap`, `queue_cap_bytes`,
          `max_request_bytes`, `max_response_bytes`, `jitter`, `backoff`, `when_broker_down`, `breaker`, `trust_env`,
          `internal_token`; docs/configuration.md has them all

        Raises ValueError, TypeError or ConfigurationError for a setting that is wrong.
        """
        house = runtimes.current()
        own_breaker = house.memory and service_name is None and key is None
        self._service = runtimes.registry.declare(
            make_service(
                base_url,
                service_name,
                key=key,
                max_retries=max_retries,
                timeout=timeout,
                failure_threshold=failure_threshold,
                recovery_timeout=recovery_timeout,
                health_path=health_path,
                concurrency=concurrency,
                idempotency=idempotency,
                allow_headers=allow_headers,
                own_key=self._claim_key if own_breaker else None,
                **more,
            )
        )
        if own_breaker:
            house.views.of(self._service).apply(Reset())  # of a client that is gone, whose key this one has

    @classmethod
    def named(cls, key: str) -> ResilientServiceClient:
        """The client of a service that is declared already, in `seawall.toml` or by another client.

        Raises ConfigurationError, with the keys that are declared, for any other.
        """
        runtimes.current()
        client = cls.__new__(cls)
        client._service = runtimes.registry.get(key)
        return client

    def __repr__(self) -> str:
        return f"<ResilientServiceClient {self._service.key} at {self._service.origin}>"

    @property
    def key(self) -> str:
        """The service's identity: in queues, keys, JSON and on the command line."""
        return self._service.key

    @property
    def service(self) -> Service:
        """The declaration."""
        return self._service

    @property
    def state(self) -> State:
        """The breaker's state as this process knows it; `.value` is closed, open or half_open."""
        return self._view().state

    def get_status(self) -> dict[str, Any]:
        """The breaker at a glance, ready for JSON. Never raises, never blocks for longer than 100 ms."""
        return runtimes.current().views.within(STATUS_WAIT, self._service).status()

    def get(self, path: str, **options: Unpack[WaitOptions]) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Unpack[WaitOptions]) -> requests.Response:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Unpack[WaitOptions]) -> requests.Response:
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Unpack[WaitOptions]) -> requests.Response:
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Unpack[WaitOptions]) -> requests.Response:
        return self.request("DELETE", path, **options)

    def head(self, path: str, **options: Unpack[WaitOptions]) -> requests.Response:
        return self.request("HEAD", path, **options)

    def options(self, path: str, **options: Unpack[WaitOptions]) -> requests.Response:
        return self.request("OPTIONS", path, **options)

    def request(self, method: str, path: str, **options: Unpack[WaitOptions]) -> requests.Response:
        """Queue the call, wait for it, and return its response.

        Takes `requests`' own keywords, without those that a queue cannot carry: those are a TypeError. And besides:

        - `deadline`: seconds for all of it, queue and attempts and backoffs
        - `retry_on`: statuses and errors after which an attempt is repeated, such as [503, requests.Timeout]
        - `fallback`: returned when the call fails, instead of raising: a value, or a function of the exception
        """
        if "fallback" not in options:
            return self._request(method, path, options)
        fallback = options.pop("fallback")
        try:
            return self._request(method, path, options)
        except OSError as error:  # every error of requests and of ours is one
            if isinstance(error, ValueError):
                raise  # bad input is no failure of the service
            log = logging.getLogger(self._service.logger_name)
            log.warning("[%s] %s %s: the fallback is used: %s", self._service.name, method, path_only(path), error)
            answer: requests.Response = fallback(error) if callable(fallback) else fallback
            return answer

    def _request(self, method: str, path: str, options: WaitOptions) -> requests.Response:
        house = runtimes.current()
        id = new_call_id()
        with sending(self._service.key, method, path, waited=True) as span:
            span.is_for(id)
            response: requests.Response = self._call_and_wait(house, id, method, path, options)
            span.answered(response)
            return response

    def _call_and_wait(self, house: runtimes.Runtime, id: str, method: str, path: str, options: WaitOptions) -> Any:
        deadline = options.pop("deadline", None)
        retry_on = retry_rules(options.pop("retry_on", ()))
        prepared = self._prepared(method, path, options, id)
        if deadline is None:
            deadline = default_deadline(self._service, self._service.max_retries, prepared.timeout)
        elif deadline <= 0:
            raise ValueError(f"deadline must be a positive number of seconds, not {deadline}")
        ends = time.monotonic() + deadline
        try:
            trial = admit(house, self._service, id, ends)
            mailbox = house.engine.mailbox.address
            call = self._call(id, prepared, retry_on, waited=True, trial=trial, reply_to=mailbox)
            return call_and_wait(house, self._service, call, prepared.original, deadline, ends)
        except BaseException:
            abandon_trial(house, self._service, id)
            raise

    def enqueue(self, method: str, path: str, **options: Unpack[EnqueueOptions]) -> Handle:
        """Queue the call and return its handle at once; it is delivered through any outage, or becomes a dead letter.

        Beside `requests`' own keywords:

        - `delay`: seconds before it may start; `not_before`: a datetime, or seconds since the epoch, before which it may not
        - `expires_in`: seconds after which it is given up (24 h unless the service says otherwise)
        - `coalesce`: a call that waits under the same key is replaced by this one
        - `dedupe`: with a key that was used in the last `dedupe_window` seconds (300), the first call's handle comes back
        - `on_open`: "hold" keeps it while the breaker is open, "skip" drops it
        - `keep_result`: seconds for which the result can be asked for
        - `rounds`: rounds of attempts before it is given up; 0 means until it expires
        - `retry_on`: statuses and errors after which an attempt is repeated within its round, such as [503, "timeout"]

        Raises QueueFull, and BrokerUnavailable within 2 s (it says whether the call may have been queued all the same).
        """
        answer = self._enqueue(method, path, options, keep_result=DEFAULT_KEEP_RESULT)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def enqueue_many(
        self, calls: Iterable[tuple[str, str] | tuple[str, str, Mapping[str, Any]]]
    ) -> list[Handle | Exception]:
        """Queue many calls at once, 2,000 in a round trip: (method, path) or (method, path, keywords of `enqueue`) each.

        Answers a handle or an exception for each, in order; a call that cannot be prepared is an exception too.
        """
        given, service = list(calls), self._service
        with sending_many(service.key, len(given)):
            return enqueue_all(runtimes.current(), service, [self._from_tuple(call) for call in given])

    def fire(self, method: str, path: str, **options: Unpack[BackgroundCallOptions]) -> None:
        """Queue the call and forget it; takes what `enqueue` takes, apart from `keep_result`.

        Raises for wrong arguments only; what cannot be queued is logged and counted.
        """
        answer = self._enqueue(method, path, options)
        if isinstance(answer, Exception):
            house, service = runtimes.current(), self._service
            what, times = f"{method} {path_only(path)}", house.count_unqueued(service.key)
            text = "[%s] fire: %s was not queued (%d so far): %s"
            tell(logging.getLogger(service.logger_name), logging.ERROR, text, service.name, what, times, answer)

    def schedule(
        self,
        name: str,
        method: str,
        path: str,
        *,
        cron: str | None = None,
        every: float | None = None,
        timezone: str = "UTC",
        **options: Unpack[BackgroundCallOptions],
    ) -> None:
        """Have the leading supervisor fire this call again and again, once for each tick.

        - `name`: the schedule's identity in the whole fleet
        - `cron`: five fields of crontab, such as "30 3 * * *", in `timezone`
        - `every`: seconds, instead of `cron`; ticks are its multiples, counted from the epoch
        - the other options are those of `fire`; on_open "skip" leaves out the ticks of an open breaker

        Supervisors act on the schedules of the modules that they import (`seawall supervisor MODULE`, `seawall up MODULE`);
        in any other process this has no effect. Ticks that were missed are made up for, all of them by one call.

        Raises ConfigurationError for a schedule that cannot be used, and in memory mode; for a wrong call what `fire` raises.
        """
        schedules.check_can_run(name, memory=runtimes.current().memory)
        ticks = checked_ticks(name, cron, every, timezone, options)
        kept = copy.deepcopy(options)
        schedule = Schedule(
            name=name,
            ticks=ticks,
            service=self._service,
            method=method,
            path=path,
            options=kept,
            call=lambda: self._background(method, path, kept),
        )
        schedule.call()  # what is wrong with it shows now
        schedules.declare(schedule)

    def snapshot(self, project_id: str, message: str = "Auto-save") -> None:
        """Fire a git snapshot of a project; while one waits, a newer one of the same project takes its place."""
        snapshot(self, project_id, message)

    def handle(self, id: str) -> Handle:
        """The handle of a call that some process has enqueued."""
        return Handle(id, self._service, queue_names(self._service.key)[1])

    def _claim_key(self, key: str, origin: str) -> str:
        return runtimes.registry.claim(key, origin, self)

    def _view(self) -> BreakerView:
        return runtimes.current().views.of(self._service)

    def _from_tuple(self, call: tuple[str, str] | tuple[str, str, Mapping[str, Any]]) -> Prepared | Exception:
        try:
            method, path, *rest = call
            return self._background(method, path, rest[0] if rest else {}, keep_result=DEFAULT_KEEP_RESULT)
        except (TypeError, ValueError) as error:
            return error

    def _enqueue(
        self, method: str, path: str, options: Mapping[str, Any], *, keep_result: float | None = None
    ) -> Handle | Exception:
        service = self._service
        with sending(service.key, method, path) as span:
            prepared = self._background(method, path, options, keep_result=keep_result)
            span.is_for(prepared[0].id)
            answer = enqueue_all(runtimes.current(), service, [prepared])[0]
            if isinstance(answer, Exception):
                span.failed(answer)
            return answer

    def _background(
        self, method: str, path: str, options: Mapping[str, Any], *, keep_result: float | None = None
    ) -> Prepared:
        keywords = dict(options)
        how = BackgroundOptions.pop_from(keywords, keep_result=keep_result)
        how.lifetime(self._service)
        id = new_call_id()
        prepared = self._prepared(method, path, keywords, id)
        more = {"on_open": how.on_open, "keep_result": how.keep_result, "rounds": how.rounds}
        return self._call(id, prepared, how.retry_on, **more), prepared.original, how

    def _prepared(self, method: str, path: str, options: Mapping[str, Any], id: str) -> PreparedCall:
        header = runtimes.current().settings.internal_token_header
        return prepare(self._service, method, path, options, call_id=id, token_header=header)

    def _call(self, id: str, prepared: PreparedCall, retry_on: tuple[int | str, ...] = (), **more: Any) -> Call:
        service = self._service
        resend = service.idempotency == "trust" or prepared.method not in ("POST", "PATCH")
        return Call(
            id=id,
            service=service.key,
            origin=service.origin,
            method=prepared.method,
            target=prepared.target,
            headers=prepared.headers,
            body=prepared.body,
            max_attempts=service.max_retries,
            connect_timeout=prepared.connect_timeout,
            timeout=prepared.timeout,
            redirects=prepared.redirects,
            resend=resend,
            retry_on=retry_on or service.retry_on,
            trace=carried(),
            **more,
        )


def snapshot(git_client: ResilientServiceClient, project_id: str, message: str = "Auto-save") -> None:
    """Fire a git snapshot of a project and forget it: POST /snapshot/<project_id> with the message.

    While the git service is down it waits; while one waits, a newer one of the same project takes its place.
    """
    from urllib.parse import quote

    project = quote(str(project_id), safe="")
    git_client.fire("POST", f"/snapshot/{project}", json={"message": message}, coalesce=f"snapshot:{project}")
