"""Where a call goes: a path under the service's base URL, and nowhere else."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote, urlsplit

import requests

from seawall.actors.redirects import public_url
from seawall.actors.service import Service

__all__ = ["base_of", "check_stays", "url_of"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ABSOLUTE = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:/")
#: Times that a path is unquoted when it is searched for `..`: servers behind servers decode more than once.
_DECODINGS = 4


@lru_cache(maxsize=256)
def base_of(origin: str, base_path: str) -> tuple[str, str]:
    """Origin and base path as requests writes them on the wire: `("http://chroma:6003", "/api%20v1")`."""
    request = requests.PreparedRequest()
    request.prepare_url(public_url(origin) + base_path, None)
    parts = urlsplit(request.url or "")
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


def url_of(service: Service, path: str) -> str:
    """The address of a path, not yet quoted. The path is relative to the base URL; its leading slash is optional.

    Raises TypeError for anything but a str, and ValueError for a path that names a host, holds control characters or
    backslashes, or leaves the base URL by `..`, quoted or not.
    """
    if not isinstance(path, str):
        raise TypeError(f"path must be a str such as '/query', not {type(path).__name__}")
    _check(service, path)
    origin, base_path = base_of(service.origin, service.base_path)
    if path == "" or path[0] in "?#":
        return origin + base_path + path
    return f"{origin}{base_path}/{path.removeprefix('/')}"


def check_stays(service: Service, url: str) -> None:
    """Raises ValueError unless a prepared address lies under the base URL. `url_of` sees to it; this makes sure."""
    origin, base_path = base_of(service.origin, service.base_path)
    parts = urlsplit(url)
    inside = parts.path == base_path or parts.path.startswith(f"{base_path}/")
    if f"{parts.scheme}://{parts.netloc}" != origin or not inside:
        raise ValueError(f"the path leaves the base URL {origin}{base_path}")


def _check(service: Service, path: str) -> None:
    if _CONTROL.search(path):
        raise ValueError(f"path {path!r} holds control characters")
    if path.startswith("//") or _ABSOLUTE.match(path):
        raise ValueError(f"path {path!r} names a host; give it relative to the base URL of {service.name!r}")
    bare = re.split(r"[?#]", path, maxsplit=1)[0]
    if "\\" in bare:
        raise ValueError(f"path {path!r} holds a backslash; use / between its parts and %5C inside one")
    if _climbs_out(bare):
        raise ValueError(f"path {path!r} leaves the base URL of {service.name!r}")


def _climbs_out(path: str) -> bool:
    """Whether `..` leads above the start, for the most gullible reader: any quoting, any slash, `..;x` as well."""
    for _ in range(_DECODINGS):
        if _depth_falls_below_zero(path):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
    return ".." in path


def _depth_falls_below_zero(path: str) -> bool:
    depth = 0
    for segment in re.split(r"[/\\]", path):
        name = segment.partition(";")[0]
        if name == "..":
            depth -= 1
        elif name not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False
