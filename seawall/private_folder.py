"""A folder that belongs to one user, the locks in it, and a socket path short enough for the system."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from seawall.errors import ConfigurationError

__all__ = ["FileLock", "is_held", "make_private", "socket_path"]

#: Bytes of a socket's path, at most: macOS takes 103, Linux 107.
LONGEST_SOCKET_PATH = 100


class FileLock:
    """A lock on a file that names its owner. The system lets go of it when the last process that holds it ends."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def fileno(self) -> int:
        """For a child that is to hold the lock too."""
        return self._file

    def acquire(self) -> bool:
        """Take the lock now, or answer False."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write_owner(self, pid: int) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {pid}\n".encode(), 0)

    def owner(self) -> str:
        """Who took the lock last, for messages only."""
        return os.pread(self._file, 64, 0).decode(errors="replace").strip() or "an unknown process"

    def close(self) -> None:
        """Let go, unless a child still holds the lock."""
        os.close(self._file)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock on this file now. Makes no file; one that cannot be read counts as nobody's.

    To find out, a free lock is taken for a moment: whoever wants it just then should ask twice.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def make_private(folder: Path) -> None:
    """Make the folder, for this user only. Raises ConfigurationError when it cannot be made or is somebody else's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ConfigurationError(f"{folder} must be a folder that belongs to this user")
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be used for data: {error.strerror}") from error


def socket_path(folder: Path, name: str) -> Path:
    """`folder/name`, or where that is too long for a socket, a path of its own under the system's temporary folder.

    The same for every call. Raises ConfigurationError when both are too long.
    """
    path = folder / name
    if _too_long(path):
        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"seawall-{os.getuid()}-{digest}" / name
    if _too_long(path):
        raise ConfigurationError(f"{folder} is too long a path for a socket; set SEAWALL_DATA_DIR to a shorter one")
    return path


def _too_long(path: Path) -> bool:
    return len(os.fsencode(path)) > LONGEST_SOCKET_PATH
