"""One place where redis-py is configured, and where its errors become ours (`seawall.refusals` has the words).

A link is one connection shared by all threads of a process. Commands that arrive while another thread is
talking to the server are sent together in the next round trip (group commit), so many callers cost few trips.
A link never repeats a command by itself: the caller learns whether anything was written.
"""

from __future__ import annotations

import hashlib
import re
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from typing import Any

import hiredis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as AnswerTimeout
from redis.retry import Retry

from seawall.broker_url import read_url, shown_url, unusable
from seawall.errors import BrokerUnavailable
from seawall.refusals import broken_off, refused

__all__ = ["ANSWER_TIMEOUT", "Argument", "RedisLink", "Script", "load_script", "shown_url"]

Argument = str | bytes | int | float

#: Seconds to connect, and seconds without an answer before a connection is given up. With one try of each a
#: caller has its typed error within the promised 2 s.
CONNECT_TIMEOUT = 0.9
ANSWER_TIMEOUT = 0.9
#: The wire protocol. Version 2 by name: left open, redis-py 8 prepares TCP connections for push messages of version 3.
PROTOCOL = 2


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and its SHA-1, by which the server knows it."""

    name: str
    source: str
    sha: str


def load_script(package: str, name: str, *, prelude: str = "") -> Script:
    """The script `lua/<name>.lua` of a package, with what it uses of `lua/<prelude>.lua` before it.

    A script makes its functions anew each time it runs, so it gets only those that it needs, and all that is no function.
    """
    folder = resources.files(package) / "lua"
    source = (folder / f"{name}.lua").read_text("utf-8")
    if prelude:
        source = f"{_needed((folder / f'{prelude}.lua').read_text('utf-8'), source)}\n{source}"
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def _needed(prelude: str, source: str) -> str:
    """The prelude without the functions that the source does not use, by themselves or through others."""
    parts = re.split(r"(?ms)^(local function \w+\(.*?^end\n)", prelude)
    needed: list[str] = []
    for part in reversed(parts):
        function = re.match(r"local function (\w+)", part)
        code = re.sub(r"--.*", "", "".join((*needed, source)))
        if function is None or re.search(rf"\b{function[1]}\(", code):
            needed.insert(0, part)
    return "".join(needed)


@dataclass(slots=True, eq=False)
class _Job:
    """One caller's commands as they go on the wire, how many they are, and then their answers.

    `turn` is held while its thread waits; let go of, the job is done or its thread is the next leader.
    """

    packed: bytes
    count: int
    turn: threading.Lock | None = None
    answers: list[Any] = field(default_factory=list)
    error: BrokerUnavailable | None = None
    done: bool = False


class RedisLink:
    """A shared, pipelining connection to one Redis or Valkey server. Safe for threads, not across a fork.

    Whoever waits behind a round trip of others, to which a silent server gives no answer, waits for no second one.
    """

    def __init__(
        self, url: str, *, connect_timeout: float = CONNECT_TIMEOUT, answer_timeout: float = ANSWER_TIMEOUT
    ) -> None:
        """`url` is redis://, rediss:// or unix://. Raises ConfigurationError if it cannot be understood."""
        self._url = url
        self.where = shown_url(url)
        """What errors call the server; without secrets."""
        self.answer_timeout = answer_timeout
        """Seconds that an answer may take before its connection is given up."""
        self._connection_class, from_url = read_url(url)
        self._options = {
            **from_url,
            "socket_connect_timeout": connect_timeout,
            "socket_timeout": answer_timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": PROTOCOL,
            "decode_responses": False,
            **_ONE_ROUND_TRIP,
        }
        try:
            self._connection_class(**self._options)  # opens nothing, but knows every option
        except (RedisError, ValueError, TypeError) as error:
            raise unusable(url, error) from None
        self._connection: Any = None
        self.trusted_for = 0.0
        """Seconds since its last use for which the connection is taken as it is, without a look whether it has ended: where
        it does not matter whether a command was written, and each system call hands the interpreter to another thread."""
        self._used_at = 0.0
        self._news = select.poll()
        """Tells of what comes unasked on the connection: its end, or an answer that nobody waited for."""
        self._io = threading.Lock()
        """Held by whoever talks to the server."""
        self._door = threading.Lock()
        """Guards the two below; held for a few instructions."""
        self._jobs: deque[_Job] = deque()
        self._has_leader = False

    @property
    def connected(self) -> bool:
        """As far as it knows: while it is opened anew, which a slow network makes long, it is not."""
        return self._connection is not None

    def __repr__(self) -> str:
        return f"RedisLink({shown_url(self._url)!r})"

    def run(self, script: Script, *args: Argument) -> Any:
        """The script's answer. Raises BrokerUnavailable, or redis.ResponseError for a mistake in what was sent."""
        return self.run_many([(script, args)])[0]

    def run_many(self, calls: Iterable[tuple[Script, Sequence[Argument]]]) -> list[Any]:
        """The scripts' answers, in order, in one round trip. A script's own error is raised for the first that failed."""
        answers = self.try_many(calls)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def try_many(self, calls: Iterable[tuple[Script, Sequence[Argument]]]) -> list[Any]:
        """As run_many, but a script that failed has its exception as its answer."""
        calls = list(calls)
        answers = self._submit([("EVALSHA", script.sha, 0, *args) for script, args in calls])
        unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = self._submit(_teaching([calls[index] for index in unknown]))
            for index, answer in zip(unknown, again, strict=True):
                answers[index] = answer
        return answers

    def command(self, *args: Argument) -> Any:
        """One command's answer. Raises BrokerUnavailable, or redis.ResponseError for a mistake in what was sent."""
        answer = self._submit([args])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def connect(self, *, answer_timeout: float | None = None) -> Any:
        """A connected redis-py connection of its own, for blocking reads. Raises BrokerUnavailable."""
        options = dict(self._options)
        if answer_timeout is not None:
            options["socket_timeout"] = answer_timeout
        connection = self._connection_class(**options)
        try:
            connection.connect()
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise self._unreachable(error, written=False) from error
        return connection

    def close(self) -> None:
        """Close the connection; a later command opens it again."""
        with self._io:
            self._drop()

    def _submit(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        job = _Job(self._pack(commands), len(commands))
        leads = self._enter(job)
        try:
            if job.turn is not None:
                job.turn.acquire()
            if not job.done:
                self._lead()
        except BaseException:
            self._withdraw(job, leads=leads)
            raise
        if job.error is not None:
            error = job.error
            raise type(error)(str(error), written=error.written) from error.__cause__
        return job.answers

    def _enter(self, job: _Job) -> bool:
        """Queue the job; True when nobody talks to the server, so that its thread leads."""
        with self._door:
            self._jobs.append(job)
            leads, self._has_leader = not self._has_leader, True
            if not leads:
                job.turn = threading.Lock()
                job.turn.acquire()
            return leads

    def _lead(self) -> None:
        """Exchange all that waits, wake whose it was, and let the first of those who came meanwhile lead.

        Nobody whose answers are there waits for another round trip.
        """
        batch: list[_Job] = []
        try:
            with self._io:
                self._take_waiting(batch)
                silence = self._exchange(batch)
                if silence is not None:
                    failed = len(batch)
                    self._take_waiting(batch)
                    self._fail(batch[failed:], silence)
        finally:
            with self._door:
                for job in batch:
                    if job.turn is not None and job.turn.locked():
                        job.turn.release()
                self._hand_over()

    def _take_waiting(self, batch: list[_Job]) -> None:
        with self._door:
            batch += self._jobs
            self._jobs.clear()

    def _hand_over(self) -> None:
        self._has_leader = bool(self._jobs)
        if self._jobs and (turn := self._jobs[0].turn) is not None and turn.locked():
            turn.release()

    def _withdraw(self, job: _Job, *, leads: bool) -> None:
        """A thread was interrupted: the others must not wait for it."""
        with self._door:
            if job in self._jobs:
                was_next = self._jobs[0] is job
                self._jobs.remove(job)
                if leads or was_next:
                    self._hand_over()

    @staticmethod
    def _pack(commands: Sequence[tuple[Argument, ...]]) -> bytes:
        """Here and not in the exchange, where an argument that cannot be sent would spoil everybody's."""
        try:
            return b"".join([_pack(command) for command in commands])
        except (TypeError, UnicodeError) as error:
            raise ValueError(f"this cannot be sent to the broker: {error}") from error

    def _exchange(self, batch: Sequence[_Job]) -> BrokerUnavailable | None:
        """Send everything in one write, and read the answers in order.

        Answers the error of those who wait behind, when the server is silent: to ask it anew, each batch after the one
        before, would take them twice as long. They have written nothing.
        """
        written = False
        try:
            connection = self._connected()
            written = True
            connection.send_packed_command([b"".join(job.packed for job in batch)], check_health=False)
            for job in batch:
                while len(job.answers) < job.count:
                    job.answers.append(self._read(connection))
                job.done = True
            self._used_at = time.monotonic()
            return None
        except (RedisError, OSError, BrokerUnavailable) as error:
            self._drop()
            translated = error if isinstance(error, BrokerUnavailable) else self._unreachable(error, written=written)
            self._fail(batch, translated)
            silent = isinstance(error, AnswerTimeout) or isinstance(error.__cause__, AnswerTimeout)
            return BrokerUnavailable(str(translated), written=False) if silent else None
        except BaseException:
            self._drop()
            self._fail(batch, BrokerUnavailable("the exchange with the broker was interrupted", written=written))
            raise

    @staticmethod
    def _fail(batch: Sequence[_Job], error: BrokerUnavailable) -> None:
        for job in batch:
            if not job.done:
                job.error, job.done = error, True

    def _read(self, connection: Any) -> Any:
        try:
            return connection.read_response()
        except ResponseError as error:
            return refused(error, self.where) or error

    def _connected(self) -> Any:
        """The connection, opened anew when the server has closed it while it was idle."""
        if self._connection is not None:
            if time.monotonic() - self._used_at < self.trusted_for or not self._news.poll(0):
                return self._connection
            self._drop()
        self._connection = self.connect()
        self._news = select.poll()
        self._news.register(self._connection._sock, select.POLLIN)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _unreachable(self, error: Exception, *, written: bool) -> BrokerUnavailable:
        return broken_off(error, self.where, written=written)


#: redis-py tells the server its name and its version at first, a round trip each. The name's answer is worth one: it shows
#: that there is a server behind whatever took the connection, and that it takes our certificate, before anything is written.
_ONE_ROUND_TRIP: dict[str, Any] = {"lib_version": None}
if find_spec("redis.driver_info"):  # redis-py renamed the option
    from redis.driver_info import DriverInfo

    _ONE_ROUND_TRIP = {"driver_info": DriverInfo(lib_version="")}

#: hiredis' own types allow for one argument only.
_pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


def _teaching(calls: Sequence[tuple[Script, Sequence[Argument]]]) -> list[tuple[Argument, ...]]:
    """The calls for a server that has forgotten the scripts: the source with the first call of each."""
    taught: set[str] = set()
    commands: list[tuple[Argument, ...]] = []
    for script, args in calls:
        head = ("EVALSHA", script.sha) if script.sha in taught else ("EVAL", script.source)
        taught.add(script.sha)
        commands.append((*head, 0, *args))
    return commands
