"""Logging for Seawall's own processes. A library never calls this: an application's logging is its own."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

__all__ = ["setup_logging"]

#: What every log record has; anything else was added by the caller and belongs into a JSON line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, message, and what the record carries beside it."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`12:00:00.123 INFO    [Chroma Server] ✓ GET /ready succeeded`"""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d %(levelname)-7s {process:<12} %(message)s", datefmt="%H:%M:%S")


def setup_logging(log_format: str, level: str, *, process: str = "") -> None:
    """Log Seawall's and Dramatiq's records to standard error, as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("seawall").setLevel(level.upper())
    # APScheduler reports every job that it runs at INFO, and Dramatiq its own boot: nothing that an operator needs.
    for noisy in ("apscheduler", "dramatiq", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
