"""What people may read of a call: headers without their secrets, addresses without query and credentials."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

__all__ = ["HIDDEN", "path_only", "redact_headers"]

#: Stands where a secret stood.
HIDDEN = "***"

_SECRET_NAME = re.compile(r"authorization|cookie|token|secret|passw|credential|api[-_]?key|(^|[-_])auth([-_]|$)", re.I)


def redact_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]], *, token_header: str = ""
) -> tuple[tuple[str, str], ...]:
    """The headers in their order, values hidden where the name is that of a secret, or `token_header`.

    >>> redact_headers({"Accept": "*/*", "X-Api-Key": "k-1"})
    (('Accept', '*/*'), ('X-Api-Key', '***'))
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    own = token_header.lower()
    return tuple((name, HIDDEN if name.lower() == own or _SECRET_NAME.search(name) else value) for name, value in pairs)


def path_only(target: str) -> str:
    """A path or URL without query, fragment and credentials, for logs.

    >>> path_only("/query?user=7")
    '/query'
    >>> path_only("http://user:pw@chroma:6003/query?user=7#x")
    'http://chroma:6003/query'
    """
    bare = re.split(r"[?#]", target, maxsplit=1)[0]
    if "//" not in bare:
        return bare
    try:
        parts = urlsplit(bare)
    except ValueError:
        return HIDDEN
    host = parts.netloc.rpartition("@")[2]
    prefix = f"{parts.scheme}:" if parts.scheme else ""
    return f"{prefix}//{host}{parts.path}"
