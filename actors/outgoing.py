"""A request on its way out, as anybody may see it: without token and credentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import requests
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

__all__ = ["FieldsByName", "Outgoing", "by_name"]

#: Header lines, by their names in lower case.
FieldsByName = dict[str, tuple[str, str]]


def by_name(fields: Iterable[tuple[str, str]]) -> FieldsByName:
    """Of lines with the same name the last one counts."""
    return {name.lower(): (name, value) for name, value in fields}


class Outgoing(NamedTuple):
    """`url` is absolute; `body` None where there is none."""

    method: str
    url: str
    fields: FieldsByName
    body: bytes | None

    @classmethod
    def of(cls, request: requests.PreparedRequest) -> Outgoing:
        body = request.body.encode() if isinstance(request.body, str) else request.body
        return cls(request.method or "", request.url or "", by_name(request.headers.items()), body)

    def prepared(self, secrets: Mapping[str, str] | None = None) -> requests.PreparedRequest:
        """As requests has it; with the secrets only for whoever sends it."""
        request = requests.PreparedRequest()
        request.method, request.url, request.body = self.method, self.url, self.body
        request.headers = CaseInsensitiveDict(self.fields.values())
        request.headers.update(secrets or {})
        request.hooks = default_hooks()
        return request
