"""Outbound service calls as durable messages: queued, retried, and gated by a breaker that the whole fleet shares."""

from seawall.alerts import on_alert, verify_alert
from seawall.client import ResilientServiceClient, snapshot
from seawall.errors import (
    BrokerRefused,
    BrokerUnavailable,
    CallCancelled,
    CallFailed,
    ConfigurationError,
    DeadlineExceeded,
    LocalResourceError,
    NoWorker,
    OutcomeUnknown,
    QueueFull,
    RequestTooLarge,
    ResponseTooLarge,
    ResultExpired,
    SeawallError,
    ServiceUnavailable,
    TokenUnavailable,
)
from seawall.handles import Handle
from seawall.supervisor.breaker import State

__all__ = [
    "BrokerRefused",
    "BrokerUnavailable",
    "CallCancelled",
    "CallFailed",
    "ConfigurationError",
    "DeadlineExceeded",
    "Handle",
    "LocalResourceError",
    "NoWorker",
    "OutcomeUnknown",
    "QueueFull",
    "RequestTooLarge",
    "ResilientServiceClient",
    "ResponseTooLarge",
    "ResultExpired",
    "SeawallError",
    "ServiceUnavailable",
    "State",
    "TokenUnavailable",
    "on_alert",
    "snapshot",
    "verify_alert",
]
