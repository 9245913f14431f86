"""What tests share: waiting on a condition, a scriptable HTTP service, a private Redis-compatible server."""

from tests.support.redis_server import PrivateRedis
from tests.support.service import Answer, CountingService, Request
from tests.support.waiting import wait_until

__all__ = ["Answer", "CountingService", "PrivateRedis", "Request", "wait_until"]
