"""Logging for Seawall's own processes. A library never calls this: an application's logging is its own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from typing import Any, TextIO

from seawall.actors.tracing import current_ids

__all__ = ["BatchHandler", "JsonFormatter", "TextFormatter", "setup_logging"]

#: What every log record has; anything else was added by the caller and belongs into a JSON line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Seconds for which lines are gathered before they are written, and lines that are kept at the most.
GATHER_SECONDS = 0.02
MOST_LINES = 1000

_PLAIN = "\x1b[0m"
_FAINT = "\x1b[2m"
#: Colours of a level's name on a terminal: yellow, red, bold red.
_COLORS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with

    - `time` (UTC, ISO 8601), `level`, `logger`, `message`, and `process`, the name that `seawall up` gave it
    - what the record carries beside it: `service`, `call` and `attempt` for a call's attempts
    - `trace_id` and `span_id`, where OpenTelemetry has a current span
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
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD} | current_ids()
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
        self._second, self._shown_second = -1, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        second = int(record.created)
        if second != self._second:
            self._shown_second, self._second = super().formatTime(record, datefmt), second
        return self._shown_second

    def formatMessage(self, record: logging.LogRecord) -> str:
        color = _COLORS.get(record.levelno, "") if self._color else ""
        record.shown_level = f"{color}{record.levelname:<7}{_PLAIN if color else ''}"
        return super().formatMessage(record)


class BatchHandler(logging.Handler):
    """Writes a line at once when none was written for a while, and a warning with what came before it; in between it
    gathers lines for up to `GATHER_SECONDS`, and writes them on a thread of its own.

    A worker's threads log twice for each call: if each wrote for itself, they would wait for each other there.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._writing = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._written_at = 0.0

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock that handlers have: a deque needs none."""
        if not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
        except Exception:
            self.handleError(record)
            return
        idle = time.monotonic() - self._written_at > GATHER_SECONDS
        if idle or record.levelno >= logging.WARNING or len(self._lines) > MOST_LINES:
            self.flush()
        elif not self._wanted.is_set():
            self._wanted.set()
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        with self._writing:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_for_ever, name="seawall-log", daemon=True)
                self._thread.start()

    def _write_for_ever(self) -> None:
        while True:
            self._wanted.wait()
            time.sleep(GATHER_SECONDS)
            self._wanted.clear()
            self.flush()

    def flush(self) -> None:
        with self._writing, contextlib.suppress(ValueError, OSError):  # closed at exit, or nobody reads any more
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self._written_at = time.monotonic()
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()


def setup_logging(log_format: str, level: str, *, process: str = "") -> None:
    """Log Seawall's records from `level` on, and everybody else's warnings, to standard error, as `text` or `json`."""
    handler = BatchHandler(sys.stderr)
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else TextFormatter(process, color=color))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # APScheduler reports every job that it runs at INFO, uvicorn and Dramatiq their own boot: nothing for an operator.
    root.setLevel(logging.WARNING)
    logging.getLogger("seawall").setLevel(level.upper())
