"""Which redirects are followed: those that stay on the service's own origin, or go to its https twin."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import requests
from requests.cookies import RequestsCookieJar, get_cookie_header
from requests.sessions import SessionRedirectMixin
from requests.utils import requote_uri

from seawall.actors.service import origin_of
from seawall.errors import ConfigurationError

__all__ = ["MAX_REDIRECTS", "follow_up", "public_url"]

#: Redirects of one call that are followed.
MAX_REDIRECTS = 10

_KEEP_BODY = (307, 308)
_BODY_HEADERS = ("Content-Length", "Content-Type", "Transfer-Encoding")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

_rules = SessionRedirectMixin()


def public_url(origin: str) -> str:
    """An origin as people write it: without the default port.

    >>> public_url("http://chroma:80"), public_url("http://chroma:6003")
    ('http://chroma', 'http://chroma:6003')
    """
    return origin.removesuffix(_DEFAULT_PORTS[origin.partition(":")[0]])


def follow_up(request: requests.PreparedRequest, response: requests.Response) -> requests.PreparedRequest | None:
    """The request that a redirect asks for, or None where following it would leave the origin.

    Method and body change as requests has it: 303 and 302 become a GET, 301 does for a POST, 307 and 308 keep both.
    """
    target = _target(request, response)
    if target is None:
        return None
    following = request.copy()
    following.url = target
    _rules.rebuild_method(following, response)
    if response.status_code not in _KEEP_BODY:
        for name in _BODY_HEADERS:
            following.headers.pop(name, None)
        following.body = None
    _take_cookies(following, response)
    return following


def _target(request: requests.PreparedRequest, response: requests.Response) -> str | None:
    """The address to go to, rebuilt on an origin that is allowed, so that nothing else can be addressed."""
    try:
        location = _rules.get_redirect_target(response)
        joined = requests.PreparedRequest()
        joined.prepare_url(urljoin(request.url or "", requote_uri(location or "")), None)
        origin = _origin(joined.url or "")
    except (requests.RequestException, ConfigurationError, ValueError):
        return None
    if origin not in _allowed(_origin(request.url or "")):
        return None
    return public_url(origin) + joined.path_url


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return origin_of(f"{parts.scheme}://{parts.netloc}")


def _allowed(origin: str) -> tuple[str, ...]:
    if origin.startswith("http://") and origin.endswith(":80"):
        return origin, f"https://{origin[len('http://') : -len(':80')]}:443"
    return (origin,)


def _take_cookies(following: requests.PreparedRequest, response: requests.Response) -> None:
    """Cookies set on the way go along for the rest of the way, as a browser does it; no call sees another's."""
    jar = getattr(following, "_cookies", None)
    if jar is None:
        if not response.cookies:
            return
        jar = RequestsCookieJar()
    jar.update(response.cookies)
    following._cookies = jar  # type: ignore[attr-defined]  # where requests keeps them too
    own = following.headers.pop("Cookie", None)
    from_jar = get_cookie_header(jar, following)  # type: ignore[no-untyped-call]
    values = [value for value in (own, from_jar) if value]
    if values:
        following.headers["Cookie"] = "; ".join(values)
