"""The broker's URL: taken apart for redis-py, checked as far as that goes without a server, shown without its secrets.

A leaf module. TLS is set up in the URL, in redis-py's own words: `rediss://host/0?ssl_ca_certs=/etc/ca.pem`, with
`ssl_certfile` and `ssl_keyfile` for a certificate of the client's own.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.connection import parse_url

from seawall.errors import ConfigurationError

__all__ = ["read_url", "shown_url", "unusable"]

#: Options that name a file or a folder.
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_FOLDERS = ("ssl_ca_path",)
#: Parameters whose values are nobody's business, however they are spelt.
_SECRET = re.compile(r"(?i)([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*")


def read_url(url: str) -> tuple[Any, dict[str, Any]]:
    """The kind of connection and its options, without those of a pool: there is none. Raises ConfigurationError."""
    _refuse_loose_password(url)
    try:
        options = dict(parse_url(url))  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        raise unusable(url, error) from None
    for pools_own in ("max_connections", "timeout"):
        options.pop(pools_own, None)
    kind = options.pop("connection_class", redis.Connection)
    _check_tls(url, kind, options)
    return kind, options


def unusable(url: str, error: object) -> ConfigurationError:
    text = re.sub(r"^\S*__init__\(\) got an unexpected keyword argument ('\w+')$", r"\1 is no option of it", str(error))
    return ConfigurationError(f"broker URL {shown_url(url)} cannot be used: {text}")


def shown_url(url: str) -> str:
    """The URL without its password, for messages and logs.

    >>> shown_url("redis://user:secret@host:6379/0")
    'redis://user:***@host:6379/0'
    """
    url = _SECRET.sub(r"\1***", url)
    head, at, tail = url.rpartition("@")
    if not at or "://" not in head:
        return url
    scheme, _, credentials = head.partition("://")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}://{user}{':***' if colon else ''}@{tail}"


def _refuse_loose_password(url: str) -> None:
    """A URL that falls apart elsewhere than its author thinks: what it is made of is not shown, it may be a secret."""
    scheme = url.partition("://")[0]
    try:
        parts = urlsplit(url)
        port_is_number = parts.port is None or parts.port >= 0
    except ValueError:
        port_is_number = False
    else:
        beyond = parts.fragment if scheme == "unix" else parts.path + parts.query.partition("=")[0] + parts.fragment
        if "@" in beyond and "@" not in parts.netloc:
            port_is_number = False
    if not port_is_number:
        raise ConfigurationError(
            f"broker URL {scheme}://... cannot be used: its host and port cannot be told apart from the rest; "
            "in a password / is written as %2F, ? as %3F, # as %23, @ as %40, [ as %5B"
        )


def _check_tls(url: str, kind: Any, options: dict[str, Any]) -> None:
    """The files must be there and fit together: nobody wants to learn that from a connection which does not come about."""
    given = [name for name in options if name.startswith("ssl_")]
    if given and not issubclass(kind, redis.SSLConnection):
        raise unusable(url, f"{given[0]} is an option of rediss:// only")
    for name in (*_TLS_FILES, *_TLS_FOLDERS):
        if name in options:
            _check_path(url, name, Path(options[name]), folder=name in _TLS_FOLDERS)
    key, certificate, authorities = (options.get(name) for name in ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs"))
    if key is not None and certificate is None:
        raise unusable(url, "ssl_keyfile needs ssl_certfile beside it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if certificate is not None:
        try:  # with a password in any case: without one OpenSSL would ask for it at the terminal
            context.load_cert_chain(certificate, key, options.get("ssl_password") or "")
        except (OSError, ValueError) as error:
            raise unusable(url, f"ssl_certfile and ssl_keyfile do not fit together: {_in_words(error)}") from None
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ValueError) as error:
            raise unusable(url, f"ssl_ca_certs holds no certificates: {_in_words(error)}") from None


def _check_path(url: str, name: str, path: Path, *, folder: bool) -> None:
    if not path.is_absolute():
        raise unusable(url, f"{name} must be an absolute path, not {str(path)!r}: processes run in different folders")
    try:
        found = path.is_dir() if folder else path.is_file()
        if found and not folder:
            path.open("rb").close()
    except OSError as error:
        raise unusable(url, f"{name} names {path}, which cannot be read: {error.strerror}") from None
    if not found:
        raise unusable(url, f"{name} names {path}, which is no {'folder' if folder else 'file'}")


def _in_words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(reason).replace("_", " ").lower()
