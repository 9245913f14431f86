"""requests' adapter over connections that obey a deadline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from seawall.actors.wire import POOLS

__all__ = ["Adapter"]

#: Origins that one adapter meets: the service's own and its https upgrade.
_ORIGINS = 2


class Adapter(HTTPAdapter):
    """An HTTPAdapter that never retries by itself and keeps up to `connections` warm ones to each origin.

    `send` is inherited on purpose: the test library `responses` replaces it on the base class.
    """

    def __init__(self, connections: int) -> None:
        self._pools: dict[tuple[str, str], Any] = {}
        self._straight: dict[str, Any] = {}
        super().__init__(pool_connections=_ORIGINS, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Raises InvalidSchema for a SOCKS proxy, whose connections know no deadline."""
        if proxy.lower().startswith("socks"):
            raise requests.exceptions.InvalidSchema("SOCKS proxies are not supported; use an http or https proxy")
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> Any:
        """The pool of the request's origin, looked up once: an adapter's TLS and proxy settings never change."""
        parts = urlsplit(request.url or "")
        pool = self._pools.get((parts.scheme, parts.netloc))
        if pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
            self._pools[parts.scheme, parts.netloc] = pool
        return pool

    def pool_of(self, origin: str, verify: bool | str) -> Any:
        """The pool of an origin that is reached straight, ready for its certificates to be checked."""
        pool = self._straight.get(origin)
        if pool is None:
            request = requests.Request("GET", origin).prepare()
            pool = super().get_connection_with_tls_context(request, verify)
            self.cert_verify(pool, origin, verify, None)  # type: ignore[no-untyped-call]
            self._straight[origin] = pool
        return pool

    def close(self) -> None:
        """Close the unused connections; one in use is closed when its pool would take it back."""
        pools = [*self._pools.values(), *self._straight.values()]
        self._pools, self._straight = {}, {}
        for pool in pools:
            pool.close()
        super().close()
