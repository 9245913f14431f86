"""How Seawall's own processes log: lines for people, or JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import pytest

from seawall import logs
from seawall.logs import BatchHandler, JsonFormatter, TextFormatter, setup_logging
from tests.support import wait_until


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What was written to standard error since it was last asked; logging is put back as it was."""
    loggers = [logging.getLogger(), logging.getLogger("seawall")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    yield lambda: capsys.readouterr().err
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


def record(message: str, *args: object, level: int = logging.INFO, **more: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "seawall.chroma", "levelno": level, "levelname": logging.getLevelName(level)})
    made.msg, made.args, made.created, made.msecs = message, args, 1_700_000_000.25, 250.0
    vars(made).update(more)
    return made


def test_json_line_has_time_level_process_logger_message_and_what_the_record_carries() -> None:
    line = JsonFormatter("worker-1").format(record("[%s] ✓ done", "Chroma", service="chroma", call="c1", attempt=2))
    assert "✓" in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "process": "worker-1",
        "logger": "seawall.chroma",
        "message": "[Chroma] ✓ done",
        "service": "chroma",
        "call": "c1",
        "attempt": 2,
    }


def test_json_line_holds_a_traceback_and_things_that_are_no_json() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        line = JsonFormatter().format(record("broken", exc_info=sys.exc_info(), about={1}))
    assert "\n" not in line
    read = json.loads(line)
    assert read["error"].startswith("Traceback (most recent call last)")
    assert read["about"] == "{1}"
    assert "process" not in read


def test_text_line_names_time_level_and_process() -> None:
    line = TextFormatter("worker-1").format(record("[Chroma] GET /ready (attempt 1/3)"))
    assert line[12:] == " INFO    worker-1     [Chroma] GET /ready (attempt 1/3)"
    assert "\x1b" not in line


@pytest.mark.parametrize(("level", "start"), [(logging.WARNING, "\x1b[33mWARNING"), (logging.ERROR, "\x1b[31mERROR")])
def test_text_on_a_terminal_has_colours(level: int, start: str) -> None:
    line = TextFormatter("up", color=True).format(record("away", level=level))
    assert f" {start}" in line
    assert line.endswith(" away")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_for_terminals_that_want_them(
    written: Callable[[], str], monkeypatch: pytest.MonkeyPatch, no_color: str
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    setup_logging("text", "info", process="up")
    logging.getLogger("seawall.up").warning("away")
    assert ("\x1b[" in written()) is not bool(no_color)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nobody_else_is_heard_below_a_warning(written: Callable[[], str], log_format: str) -> None:
    """APScheduler tells of every job, uvicorn and Dramatiq of their boot."""
    setup_logging(log_format, "info", process="supervisor")
    for name in ("apscheduler.executors.default", "dramatiq.worker", "uvicorn.error", "urllib3", "asyncio"):
        logging.getLogger(name).info("I did something")
        logging.getLogger(name).debug("and this too")
    assert written() == ""
    logging.getLogger("seawall.chroma").info("[Chroma] GET /ready (attempt 1/3)")
    logging.getLogger("uvicorn.error").warning("something is wrong")
    assert len(written().splitlines()) == 2


def test_level_is_that_of_our_own_lines(written: Callable[[], str]) -> None:
    setup_logging("text", "warning")
    logging.getLogger("seawall.chroma").info("quiet")
    logging.getLogger("seawall.chroma").warning("loud")
    assert [line.split()[-1] for line in written().splitlines()] == ["loud"]


def test_set_up_twice_writes_every_line_once(written: Callable[[], str]) -> None:
    """As after SIGHUP, when nothing of the first time must be left."""
    setup_logging("text", "info")
    setup_logging("text", "info")
    logging.getLogger("seawall").warning("once")
    assert written().count("once") == 1


class TestBatches:
    """Threads that log do not wait for each other; what they say comes out soon, in order, and whole."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[TextIO]:
        with (tmp_path / "log").open("w+") as opened:
            yield opened

    def handler(self, stream: TextIO) -> BatchHandler:
        handler = BatchHandler(stream)
        handler.setFormatter(logging.Formatter("%(message)s"))
        return handler

    def lines(self, file: TextIO) -> list[str]:
        return Path(file.name).read_text().splitlines()

    def test_lines_come_out_by_themselves(self, file: TextIO) -> None:
        handler = self.handler(file)
        for number in range(3):
            handler.handle(record("line %d", number))
        wait_until(lambda: self.lines(file) == ["line 0", "line 1", "line 2"])
        handler.handle(record("another"))
        wait_until(lambda: self.lines(file)[3:] == ["another"])

    def test_a_single_line_comes_out_at_once(self, file: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logs, "GATHER_SECONDS", 0.001)
        handler = self.handler(file)
        for number in range(5):
            threading.Event().wait(0.005)
            handler.handle(record("line"))
            assert len(self.lines(file)) == number + 1

    def test_a_warning_comes_out_at_once_with_what_was_before_it(
        self, file: TextIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "GATHER_SECONDS", 60)
        handler = self.handler(file)
        handler.handle(record("first"))
        handler.handle(record("before"))
        assert self.lines(file) == ["first"]
        handler.handle(record("look", level=logging.WARNING))
        assert self.lines(file) == ["first", "before", "look"]
        handler.handle(record("the last"))
        handler.flush()  # as logging.shutdown() does
        assert self.lines(file)[3:] == ["the last"]

    def test_threads_do_not_mix_their_lines(self, file: TextIO) -> None:
        handler = self.handler(file)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(lambda: [handler.handle(record("x" * 50)) for _ in range(500)])
        handler.flush()
        assert self.lines(file) == ["x" * 50] * 2000

    def test_a_record_that_cannot_be_formatted_is_reported_and_costs_no_other(
        self, file: TextIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        handler = self.handler(file)
        handler.handle(record("%d", "no number"))
        handler.handle(record("fine", level=logging.ERROR))
        assert self.lines(file) == ["fine"]
        assert "no number" in capsys.readouterr().err
