"""Logging for Seawall's own processes. A library never calls this: an application's logging is its own."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

__all__ = ["JsonFormatter", "TextFormatter", "setup_logging"]

#: What every log record has; anything else was added by the caller and belongs into a JSON line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_PLAIN = "\x1b[0m"
_FAINT = "\x1b[2m"
#: Colours of a level's name on a terminal: yellow, red, bold red.
_COLORS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with

    - `time` (UTC, ISO 8601), `level`, `logger`, `message`, and `process`, the name that `seawall up` gave it
    - what the record carries beside it: `service`, `call` and `attempt` for a call's attempts
    - `error`: a traceback, where there is one
    """

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`12:00:00.123 INFO    worker-1     [Chroma Server] ✓ GET /ready succeeded`, in colours on a terminal."""

    def __init__(self, process: str = "", *, color: bool = False) -> None:
        faint, plain = (_FAINT, _PLAIN) if color else ("", "")
        head = f"{faint}%(asctime)s.%(msecs)03d{plain} %(shown_level)s {faint}{process:<12}{plain}"
        super().__init__(f"{head} %(message)s", datefmt="%H:%M:%S")
        self._color = color

    def formatMessage(self, record: logging.LogRecord) -> str:
        color = _COLORS.get(record.levelno, "") if self._color else ""
        record.shown_level = f"{color}{record.levelname:<7}{_PLAIN if color else ''}"
        return super().formatMessage(record)


def setup_logging(log_format: str, level: str, *, process: str = "") -> None:
    """Log Seawall's records from `level` on, and everybody else's warnings, to standard error, as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else TextFormatter(process, color=color))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # APScheduler reports every job that it runs at INFO, uvicorn and Dramatiq their own boot: nothing for an operator.
    root.setLevel(logging.WARNING)
    logging.getLogger("seawall").setLevel(level.upper())
