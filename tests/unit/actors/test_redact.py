"""What people may read of a call."""

from __future__ import annotations

import pytest

from seawall.actors.redact import HIDDEN, path_only, redact_headers


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "proxy-authorization",
        "Cookie",
        "Set-Cookie",
        "X-Internal-Token",
        "X-Api-Key",
        "apikey",
        "X-Client-Secret",
        "X-Auth",
        "X-Auth-User",
        "X-Db-Password",
    ],
)
def test_headers_that_hold_secrets_are_hidden(name: str) -> None:
    assert redact_headers({name: "s3cret"}) == ((name, HIDDEN),)


@pytest.mark.parametrize("name", ["Accept", "Idempotency-Key", "X-Author", "Content-Type", "ETag"])
def test_other_headers_are_shown(name: str) -> None:
    assert redact_headers([(name, "seen")]) == ((name, "seen"),)


def test_the_configured_token_header_is_hidden_whatever_its_name() -> None:
    headers = (("X-Pass", "s3cret"), ("Accept", "*/*"))
    assert redact_headers(headers, token_header="x-pass") == (("X-Pass", HIDDEN), ("Accept", "*/*"))


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/query?user=7", "/query"),
        ("/query#part?x", "/query"),
        ("/", "/"),
        ("", ""),
        ("http://ann:pw@chroma:6003/query?user=7#x", "http://chroma:6003/query"),
        ("//ann:p@w@chroma/x", "//chroma/x"),
        ("http://chroma?token=1", "http://chroma"),
        ("http://[bad", HIDDEN),
    ],
)
def test_a_target_without_query_and_credentials(target: str, shown: str) -> None:
    assert path_only(target) == shown
