"""What can go wrong, drawn as a tree.

    requests.RequestException
    └── SeawallError                      everything Seawall itself raises while calling
        ├── ServiceUnavailable            the breaker is open; nothing was sent
        ├── BrokerUnavailable             the queue cannot be reached; `.written` says what is known
        │   ├── QueueFull                 the queue refuses more calls
        │   └── BrokerRefused             the server answers, but not to us: password, permission, cluster, certificate
        ├── OutcomeUnknown                also requests.ConnectionError; it may have happened
        ├── DeadlineExceeded              also requests.Timeout and TimeoutError; the deadline passed
        │   └── NoWorker                  ... and no running worker serves the queue
        ├── CallCancelled                 the call was cancelled before it started
        ├── CallFailed                    the call lies in the dead letters; `.reason` says why
        ├── ResultExpired                 the result is gone, or was never kept
        ├── ResponseTooLarge              the answer is over the response cap
        ├── RequestTooLarge               also ValueError; the body is over the request cap
        ├── TokenUnavailable              a token is configured but cannot be read; nothing was sent
        └── LocalResourceError            this process is out of file descriptors or memory; nothing was sent
    Exception
    └── ConfigurationError                also ValueError; a setting is wrong, found before anything runs

A wrong argument is a plain TypeError or ValueError, raised in the caller before anything is queued.
"""

from __future__ import annotations

import requests

__all__ = [
    "BrokerRefused",
    "BrokerUnavailable",
    "CallCancelled",
    "CallFailed",
    "ConfigurationError",
    "DeadlineExceeded",
    "LocalResourceError",
    "NoWorker",
    "OutcomeUnknown",
    "QueueFull",
    "RequestTooLarge",
    "ResponseTooLarge",
    "ResultExpired",
    "SeawallError",
    "ServiceUnavailable",
    "TokenUnavailable",
]


class SeawallError(requests.RequestException):
    """Base of everything Seawall raises while calling. `.service` is the service's readable name."""

    def __init__(self, message: str, *, service: str = "") -> None:
        super().__init__(message)
        self.service = service


class ServiceUnavailable(SeawallError):
    """The service's circuit breaker is open; the call was not sent.

    `.retry_after` is the number of seconds until the next trial may start. `__cause__` is the attempt
    that failed, when this call had already made one before the breaker opened.
    """

    def __init__(self, message: str, *, service: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, service=service)
        self.retry_after = retry_after


class BrokerUnavailable(SeawallError):
    """The queue's server cannot be reached, or does not answer in time.

    `.written` is False when nothing reached the server, and True when the outcome of the write is unknown.
    """

    def __init__(self, message: str, *, service: str = "", written: bool = False) -> None:
        super().__init__(message, service=service)
        self.written = written


class QueueFull(BrokerUnavailable):
    """The service's queue is at its cap, or the server is out of memory; the call was not accepted."""


class BrokerRefused(BrokerUnavailable):
    """The queue's server is there and will not do what it is asked: wrong password, forbidden command, cluster mode.

    Waiting does not help; somebody has to change the server or the broker URL. The message names the command.
    """


class OutcomeUnknown(SeawallError, requests.ConnectionError):
    """The request may or may not have had its effect, and must not be sent again blindly."""


class DeadlineExceeded(SeawallError, requests.Timeout, TimeoutError):
    """The caller's deadline passed before an answer came; a call that had not started never will."""


class NoWorker(DeadlineExceeded):
    """No running worker serves the service's queue; nothing was sent."""


class CallCancelled(SeawallError):
    """The call was cancelled, or replaced by a newer one, before it started; the message says if a worker had died with it."""


class CallFailed(SeawallError):
    """The call will not be tried again. `.reason` is the dead letter's reason, such as `expired`."""

    def __init__(self, message: str, *, service: str = "", reason: str = "") -> None:
        super().__init__(message, service=service)
        self.reason = reason


class ResultExpired(SeawallError):
    """The result is gone, or was never kept; ask for it with `keep_result=` seconds."""


class ResponseTooLarge(SeawallError):
    """The service's answer is over the response cap; the rest of it was not read."""


class RequestTooLarge(SeawallError, ValueError):
    """The request's body is over the cap; nothing was queued. Send a reference instead of the data."""


class TokenUnavailable(SeawallError):
    """An internal token is configured but cannot be read; the call is not sent without it."""


class LocalResourceError(SeawallError):
    """This process has no file descriptors or memory left; it says nothing about the service."""


class ConfigurationError(ValueError):
    """A setting is wrong. The message names the setting, its value and what would be right."""
