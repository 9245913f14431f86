"""Where everything listens: one place for the clients, the workers and the launcher, so that they agree."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["BACKEND_PORT", "SERVICES", "backend_port", "internal_token", "local_port", "service_url", "url_variable"]

#: The four services with the ports of the guide.
SERVICES = {"filesystem": 6002, "chroma": 6003, "billing": 6004, "git": 6005}
#: The backend's port, unless CAUDEX_BACKEND_PORT says otherwise.
BACKEND_PORT = 6001

_LOOPBACK = ("127.0.0.1", "localhost")


def url_variable(service: str) -> str:
    """The variable that holds a service's address.

    >>> url_variable("chroma")
    'CHROMA_SERVER_URL'
    """
    return f"{service.upper()}_SERVER_URL"


def service_url(service: str, environ: Mapping[str, str]) -> str:
    """The service's base URL: from its variable, else the guide's port on this machine."""
    return environ.get(url_variable(service)) or f"http://127.0.0.1:{SERVICES[service]}"


def local_port(service: str, environ: Mapping[str, str]) -> int:
    """The port to start a service on. ValueError when its URL names another machine, or no port."""
    url = service_url(service, environ)
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in _LOOPBACK or not parts.port:
        raise ValueError(f"{url_variable(service)} must look like http://127.0.0.1:{SERVICES[service]}, not {url!r}")
    return parts.port


def backend_port(environ: Mapping[str, str]) -> int:
    """The backend's port. ValueError when CAUDEX_BACKEND_PORT is no port number."""
    text = environ.get("CAUDEX_BACKEND_PORT") or str(BACKEND_PORT)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"CAUDEX_BACKEND_PORT must be a port number such as {BACKEND_PORT}, not {text!r}")
    return int(text)


def internal_token(environ: Mapping[str, str]) -> tuple[str, str]:
    """(header name, token) that the services ask for; the token is empty when none is configured.

    OSError when SEAWALL_INTERNAL_TOKEN_FILE names a file that cannot be read.
    """
    header = environ.get("SEAWALL_INTERNAL_TOKEN_HEADER") or "X-Internal-Token"
    if path := environ.get("SEAWALL_INTERNAL_TOKEN_FILE", ""):
        with open(path, encoding="utf-8") as file:
            return header, file.read().strip()
    return header, environ.get("SEAWALL_INTERNAL_TOKEN", "").strip()
