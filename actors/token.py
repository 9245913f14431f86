"""The internal token: known to the processes that send, never written to a queue, a log line or an error."""

from __future__ import annotations

import os
import re

from seawall.actors.redact import HIDDEN
from seawall.errors import ConfigurationError, TokenUnavailable

__all__ = ["DEFAULT_TOKEN_HEADER", "TokenSource"]

#: The header that the guide's services read.
DEFAULT_TOKEN_HEADER = "X-Internal-Token"  # noqa: S105 - the name of a header, not a secret

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: What a header may carry: visible Latin-1 and spaces, no line breaks.
_HEADER_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]+")
#: Bytes of a token file; whatever is longer is not a token.
_MAX_TOKEN_BYTES = 64 * 1024

_FileState = tuple[int, int, int, int]


class TokenSource:
    """Where the token comes from: a value, else a file that is read again when it changes, or neither.

    Raises ConfigurationError for a header name that cannot be sent.
    """

    __slots__ = ("_cached", "_value", "_what", "file", "header")

    def __init__(
        self,
        header: str = DEFAULT_TOKEN_HEADER,
        value: str | None = None,
        file: str | os.PathLike[str] | None = None,
        *,
        what: str = "the internal token",
    ) -> None:
        """`what` is how errors call it."""
        if not _HEADER_NAME.fullmatch(header):
            raise ConfigurationError(f"{header!r} cannot be the name of a header")
        self.header = header
        self.file = None if file is None else os.fspath(file)
        self._value = value
        self._what = what
        self._cached: tuple[_FileState, str] | None = None

    def __repr__(self) -> str:
        origin = f"value={HIDDEN}" if self._value is not None else f"file={self.file!r}"
        return f"TokenSource(header={self.header!r}, {origin})"

    def __reduce__(self) -> str:
        raise TypeError("a TokenSource is not pickled: the token stays in its process")

    @property
    def configured(self) -> bool:
        """Whether calls are to carry a token at all."""
        return self._value is not None or self.file is not None

    def header_value(self) -> tuple[str, str] | None:
        """The header to add, or None where no token is configured.

        Raises TokenUnavailable when a token is configured but missing, empty or not fit for a header.
        """
        if self._value is not None:
            return self.header, _checked(self._value.strip(), self._what)
        if self.file is not None:
            return self.header, self._read(self.file)
        return None

    def _read(self, path: str) -> str:
        try:
            with open(path, "rb") as stream:
                state = _state(os.fstat(stream.fileno()))
                if self._cached is not None and self._cached[0] == state:
                    return self._cached[1]
                content = stream.read(_MAX_TOKEN_BYTES + 1)
        except OSError as error:
            raise TokenUnavailable(
                f"{self._what}'s file {path!r} cannot be read: {error.strerror or type(error).__name__}"
            ) from error
        token = _checked(_decoded(content), f"{self._what}'s file {path!r}")
        self._cached = (state, token)
        return token


def _state(status: os.stat_result) -> _FileState:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _decoded(content: bytes) -> str:
    """The text of a token file; a text that no header can carry when it is not ASCII or far too long."""
    if len(content) > _MAX_TOKEN_BYTES or not content.isascii():
        return "\n"
    return content.decode("ascii").strip()


def _checked(token: str, what: str) -> str:
    if not token:
        raise TokenUnavailable(f"{what} is empty")
    if not _HEADER_VALUE.fullmatch(token):
        raise TokenUnavailable(f"{what} holds characters that a header cannot carry, such as a line break")
    return token
