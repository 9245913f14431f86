"""A call made ready: what it will look like on the wire, and what is wrong with it."""

from __future__ import annotations

import io
import json
import logging
import posixpath
import re
from typing import Any
from urllib.parse import unquote

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.exceptions import InvalidHeader, InvalidJSONError

from seawall.actors.prepare import Prepared, _prepare_fully, prepare
from seawall.actors.prepare_plain import prepare_plain
from seawall.actors.service import Service
from seawall.errors import RequestTooLarge


def service(base_url: str = "http://chroma:6003", **settings: Any) -> Service:
    return Service(key="chroma", name="Chroma Server", base_url=base_url, **settings)


def prepared(method: str = "GET", path: str = "/query", *, on: Service | None = None, **options: Any) -> Prepared:
    return prepare(on or service(), method, path, options, call_id="c-1")


def headers_of(call: Prepared) -> dict[str, str]:
    return {name.lower(): value for name, value in call.headers}


# What goes on the wire


def test_a_get_is_path_and_nothing_else() -> None:
    call = prepared("get", "/query")
    assert (call.method, call.target, call.headers, call.body) == ("GET", "/query", (), None)
    assert (call.connect_timeout, call.timeout, call.redirects) == (10.0, 10.0, True)


def test_json_with_its_headers_and_an_idempotency_key() -> None:
    call = prepared("POST", json={"n": "\u00e9"})
    assert json.loads(call.body or b"") == {"n": "\u00e9"}
    assert headers_of(call) == {
        "content-type": "application/json",
        "content-length": str(len(call.body or b"")),
        "idempotency-key": "c-1",
    }


def test_a_form_is_bytes() -> None:
    call = prepared("PUT", data={"a": "1", "b": ["2", "\u00e9"]})
    assert call.body == b"a=1&b=2&b=%C3%A9"
    assert headers_of(call)["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("data", [b"\x00raw", bytearray(b"\x00raw"), memoryview(b"\x00raw")])
def test_bytes_stay_bytes(data: Any) -> None:
    call = prepared("PUT", data=data)
    assert (call.body, headers_of(call)) == (b"\x00raw", {"content-length": "4"})


def test_text_is_utf_8() -> None:
    call = prepared("PUT", data="caf\u00e9")
    assert (call.body, headers_of(call)) == (b"caf\xc3\xa9", {"content-length": "5"})


def test_files_are_read_in_the_caller() -> None:
    call = prepared("POST", files={"upload": ("a.txt", io.BytesIO(b"content"))}, data={"kind": "x"})
    assert b"content" in (call.body or b"")
    assert headers_of(call)["content-type"].startswith("multipart/form-data; boundary=")


def test_a_post_without_a_body_says_so() -> None:
    call = prepared("POST")
    assert (call.body, headers_of(call)) == (None, {"content-length": "0", "idempotency-key": "c-1"})


@pytest.mark.parametrize(("method", "keyed"), [("POST", True), ("patch", True), ("PUT", False), ("DELETE", False)])
def test_methods_that_get_an_idempotency_key(method: str, keyed: bool) -> None:
    assert ("idempotency-key" in headers_of(prepared(method))) == keyed


def test_a_callers_own_idempotency_key_is_kept() -> None:
    call = prepared("POST", headers={"IDEMPOTENCY-key": "mine"})
    assert [value for name, value in call.headers if name.lower() == "idempotency-key"] == ["mine"]


def test_headers_of_the_caller_as_requests_takes_them() -> None:
    call = prepared(headers={"X-Text": "caf\u00e9", b"X-Bytes": b"\xff", "X-None": None})
    assert call.headers == (("X-Text", "caf\u00e9"), ("X-Bytes", "\xff"))


def test_timeouts() -> None:
    assert prepared(on=service(timeout=(2.0, 9.0))).timeout == 9.0
    call = prepared(timeout=(1, 4))
    assert (call.connect_timeout, call.timeout) == (1.0, 5.0)
    assert prepared(timeout=3).connect_timeout == 3.0


@pytest.mark.parametrize(("timeout", "error"), [(None, TypeError), ("5", TypeError), (0, ValueError), (-1, ValueError)])
def test_timeouts_that_are_none(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        prepared(timeout=timeout)


def test_redirects() -> None:
    assert not prepared(allow_redirects=False).redirects
    assert not prepared("HEAD").redirects
    assert prepared("HEAD", allow_redirects=True).redirects


def test_the_callers_own_keywords_are_kept_for_a_patched_request() -> None:
    call = prepared("POST", "query?a=1", params={"b": 2}, json={"n": 1}, timeout=3)
    assert call.original == {
        "url": "http://chroma:6003/query?a=1",
        "params": {"b": 2},
        "json": {"n": 1},
        "timeout": 3,
    }
    assert "params" not in repr(call)


# Paths


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("http://chroma:6003", "/query", "/query"),
        ("http://chroma:6003/", "query", "/query"),
        ("http://chroma:6003", "", "/"),
        ("http://chroma:6003", "/", "/"),
        ("http://chroma:6003/api/", "/query", "/api/query"),
        ("http://chroma:6003/api", "query/", "/api/query/"),
        ("http://chroma:6003/api", "", "/api"),
        ("http://chroma:6003/api", "/", "/api/"),
        ("http://chroma:6003/api", "?n=1", "/api?n=1"),
        ("http://chroma:6003/api v1", "/x", "/api%20v1/x"),
        ("http://chroma:6003", "/a b/\u00e9?q=\u00e9 #part", "/a%20b/%C3%A9?q=%C3%A9%20"),
        ("http://chroma:6003", "/a%20b?q=%2F", "/a%20b?q=%2F"),
        ("http://chroma:6003", "/100%", "/100%25"),
        ("http://chroma:6003", "/a//b", "/a//b"),
        ("http://chroma:6003", "/users:batch?at=12:00", "/users:batch?at=12:00"),
        ("http://chroma:6003", "/go?to=http://evil/../..", "/go?to=http://evil/../.."),
        ("http://chroma:6003", "/go?path=a\\b", "/go?path=a%5Cb"),
        ("http://chroma:6003/api", "/a/../b", "/api/b"),
        ("http://chroma:6003/api", "/a/./b", "/api/a/b"),
        ("http://chroma:6003", "/..hidden/...", "/..hidden/..."),
        ("http://ann:pw@chroma:6003/api", "/x", "/api/x"),
        ("https://b\u00fccher.example/api", "/x", "/api/x"),
        ("http://[::1]:6003", "/x", "/x"),
    ],
)
def test_a_path_under_the_base_url(base: str, path: str, target: str) -> None:
    assert prepared("GET", path, on=service(base)).target == target


def test_params_come_after_the_paths_own_query() -> None:
    assert prepared("GET", "/query?a=1", params={"b": [2, 3], "c": None}).target == "/query?a=1&b=2&b=3"


@pytest.mark.parametrize(
    "path",
    [
        "//evil/x",
        "///evil/x",
        "http://evil/x",
        "HTTP://chroma:6003/x",
        " http://evil",
        "https:/evil",
        "ftp://evil/x",
        "/a\\b",
        "\\\\evil\\x",
        "/a\r\nHost: evil",
        "/a\tb",
        "/a\x00",
        "/a\x7f",
        "/a?q=\r\n",
        "/a\x85b",
        "/..",
        "..",
        "../x",
        "/a/../../x",
        "/a//../../x",
        "/./../x",
        "/%2e%2e/x",
        "/%2E%2e/x",
        "/.%2e/x",
        "/a/%2e%2e/%2e%2e/x",
        "/a/..%2f..%2fx",
        "/a%2f..%2f..%2fx",
        "/%252e%252e/x",
        "/%25252e%25252e/x",
        "/..%5cx",
        "/..;/x",
        "/..;a=b/x",
        "/a/..;/..;/x",
    ],
)
@pytest.mark.parametrize("base", ["http://chroma:6003", "http://chroma:6003/api"])
def test_a_path_that_names_a_host_or_leaves_the_base_url(base: str, path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        prepared("GET", path, on=service(base))


NASTY = st.sampled_from(
    ["/", "..", ".", "%2e", "%2E%2e", "%2f", "%5c", "%25", "\\", ";", "?", "#", "@", ":", "http:", "a", " "]
)


@given(st.lists(NASTY | st.characters(), max_size=12).map("".join))
@settings(max_examples=150, deadline=None)
def test_whatever_the_path_it_is_refused_or_stays_under_the_base_url(path: str) -> None:
    try:
        call = prepared("GET", path, on=service("http://chroma:6003/api"))
    except (ValueError, requests.RequestException):
        return
    place = call.target.partition("?")[0]
    for _ in range(4):
        place = unquote(place)
    assert call.target.isascii()
    assert not re.search(r"[\x00-\x20\x7f]", call.target)
    assert posixpath.normpath(place.replace("\\", "/")).startswith("/api")


@pytest.mark.parametrize("path", [b"/query", None, 7])
def test_a_path_is_text(path: Any) -> None:
    with pytest.raises(TypeError, match="path must be a str"):
        prepared("GET", path)


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\nX: 1", "CONNECT", "G\u00c9T"])
def test_methods_that_are_none(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        prepared(method)


def test_a_method_is_text() -> None:
    with pytest.raises(TypeError):
        prepared(b"GET")  # type: ignore[arg-type]


# Keywords that a queue cannot carry


@pytest.mark.parametrize(
    ("keyword", "value", "instead"),
    [
        ("stream", True, "comes back whole"),
        ("hooks", {"response": print}, "call it on the response"),
        ("cert", "client.pem", "TLS proxy"),
        ("proxies", {"http": "http://p"}, "trust_env=True"),
        ("verify", False, "REQUESTS_CA_BUNDLE"),
        ("verify", "ca.pem", "REQUESTS_CA_BUNDLE"),
        ("auth", ("ann", "pw"), "base_url"),
        ("jsn", {}, "did you mean 'json'"),
        ("wild", 1, "unexpected keyword argument 'wild'"),
    ],
)
def test_keywords_that_cannot_be_queued_say_what_to_do_instead(keyword: str, value: Any, instead: str) -> None:
    with pytest.raises(TypeError, match=instead):
        prepared(**{keyword: value})


def test_default_values_of_those_keywords_pass() -> None:
    options = {"stream": False, "hooks": None, "cert": None, "proxies": {}, "verify": True, "auth": None}
    assert prepared(**options, params=None, data=None, json=None, headers=None, cookies=None, files=None).body is None


@pytest.mark.parametrize(
    ("data", "instead"),
    [
        (io.BytesIO(b"x"), r"file\.read\(\)"),
        (io.StringIO("x"), r"file\.read\(\)"),
        ((part for part in [b"x"]), r"b''\.join"),
        (iter([b"x"]), r"b''\.join"),
        ({b"x"}, r"b''\.join"),
        (7, "not int"),
    ],
)
def test_data_that_cannot_wait(data: Any, instead: str) -> None:
    with pytest.raises(TypeError, match=instead):
        prepared("POST", data=data)


# Bad input fails with requests' own error


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("-inf")]}])
def test_numbers_that_json_has_no_form_for(value: Any) -> None:
    with pytest.raises(InvalidJSONError):
        prepared("POST", json=value)


def circle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


def very_deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    "value",
    [object(), {"at": {1, 2}}, {(1, 2): 3}, b"bytes", circle()],
    ids=["object", "set", "tuple as a key", "bytes", "circle"],
)
def test_json_that_cannot_be_serialised(value: Any) -> None:
    with pytest.raises(InvalidJSONError):
        prepared("POST", json=value)


def test_unserialisable_json_is_a_type_error_as_well_as_in_requests() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        prepared("POST", json=object())


def test_json_that_is_too_deep() -> None:
    with pytest.raises(InvalidJSONError):
        prepared("POST", json=very_deep())


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nHost: evil"},
        {"X-A": "a\nb"},
        {"X-A\r\nHost": "evil"},
        {"X A:": "1"},
        {"": "1"},
        {"X-A": " leading"},
        {"X-A": 7},
        {"X-A": "a\x00b"},
        {"X-A": "\u20ac"},
        {"X-\u00c4": "1"},
    ],
    ids=repr,
)
def test_headers_that_cannot_be_sent(headers: Any) -> None:
    with pytest.raises(InvalidHeader):
        prepared(headers=headers)


def test_headers_are_a_mapping() -> None:
    with pytest.raises(TypeError, match="headers must be a mapping"):
        prepared(headers=[("X-A", "1")])


@pytest.mark.parametrize("name", ["Authorization", "authorization", "COOKIE", "Proxy-Authorization"])
def test_credentials_do_not_lie_in_a_queue_unless_allowed(name: str) -> None:
    with pytest.raises(ValueError, match="allow_headers"):
        prepared(headers={name: "secret"})
    allowed = service(allow_headers=frozenset({name.title()}))
    assert headers_of(prepared(on=allowed, headers={name: "secret"})) == {name.lower(): "secret"}


def test_cookies_need_the_cookie_header_allowed() -> None:
    with pytest.raises(ValueError, match="'Cookie'"):
        prepared(cookies={"a": "1"})
    allowed = service(allow_headers=frozenset({"cookie"}))
    assert headers_of(prepared(on=allowed, cookies={"a": "1", "b": "2"})) == {"cookie": "a=1; b=2"}
    assert prepared(cookies={}).headers == ()


@pytest.mark.parametrize("name", ["Host", "host", "Transfer-Encoding", "Content-Length"])
def test_headers_that_belong_to_the_sender(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be set"):
        prepared("POST", headers={name: "1"})


def test_a_left_over_token_is_dropped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    own = Service(key="left-over", name="Left Over", base_url="http://left:1")
    with caplog.at_level(logging.WARNING, "seawall.left-over"):
        for name in ("X-Internal-Token", "x-internal-token"):
            assert prepared(on=own, headers={name: "tok", "X-Mine": "1"}).headers == (("X-Mine", "1"),)
    (line,) = (record.getMessage() for record in caplog.records if record.name == "seawall.left-over")
    assert "X-Internal-Token" in line
    assert "tok" not in line.replace("Token", "")


def test_the_token_headers_name_can_be_another() -> None:
    options = {"headers": {"X-Pass": "tok", "X-Internal-Token": "kept"}}
    call = prepare(service(), "GET", "/", options, call_id="c-1", token_header="x-pass")
    assert call.headers == (("X-Internal-Token", "kept"),)


def test_the_cap_on_a_body() -> None:
    small = service(max_request_bytes=10)
    assert prepared("PUT", on=small, data=b"x" * 10).body == b"x" * 10
    with pytest.raises(RequestTooLarge, match="11 bytes, over the cap of 10") as caught:
        prepared("PUT", on=small, data=b"x" * 11)
    assert caught.value.service == "Chroma Server"
    assert isinstance(caught.value, requests.RequestException)


def test_the_cap_on_everything_else() -> None:
    with pytest.raises(RequestTooLarge, match="as a body"):
        prepared(params={"q": "x" * 70_000})


class TestPlain:
    """The short way says the same as the long one, or nothing."""

    PATHS = st.one_of(
        st.text(alphabet="/abZ09._~-%?&=#:;@ \\é", max_size=12),
        st.lists(st.sampled_from(["a", "..", ".", "x.y", "~", "", "%41", "-1", ".hidden", "a."]), max_size=5).map(
            lambda parts: "/" + "/".join(parts)
        ),
    )
    JSON = st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    )
    NAMES = st.sampled_from(
        ["X-Request-Id", "x-request-id", "Accept", "Host", "Cookie", "Content-Type", "Idempotency-Key", "X y", "Ü", ""]
    )
    OPTIONS = st.fixed_dictionaries(
        {},
        optional={
            "params": st.none()
            | st.dictionaries(
                st.text(max_size=4),
                st.none() | st.text(max_size=4) | st.integers() | st.booleans() | st.lists(st.text(max_size=2)),
                max_size=3,
            ),
            "json": JSON,
            "headers": st.none() | st.dictionaries(NAMES, st.text(max_size=4) | st.just("a b"), max_size=3),
            "timeout": st.just(3),
            "allow_redirects": st.booleans(),
        },
    )

    @settings(max_examples=400, deadline=None)
    @given(
        st.sampled_from(["GET", "POST", "PATCH", "HEAD", "DELETE", "OPTIONS", "get", "TRACE"]),
        PATHS,
        OPTIONS,
        st.sampled_from(["http://chroma:6003", "http://chroma:6003/api%20v1/", "https://chroma"]),
    )
    def test_is_what_requests_makes_of_it(self, method: str, path: str, options: dict, base_url: str) -> None:
        service = Service(key="chroma", name="Chroma", base_url=base_url)
        plain = prepare_plain(service, method, path, options, "X-Internal-Token")
        if plain is not None:
            log = logging.getLogger("test")
            assert plain == _prepare_fully(service, method, path, options, "X-Internal-Token", log)

    @pytest.mark.parametrize(
        ("method", "path", "options"),
        [
            ("GET", "/ready", {}),
            ("POST", "/query", {"json": {"query_texts": ["what is AI?"], "n_results": 5}, "timeout": 5}),
            ("GET", "/v1/items/17", {"params": {"q": "a b", "page": 2}, "headers": {"X-Request-Id": "r-1"}}),
            ("DELETE", "/", {"params": None, "headers": {}, "json": None}),
        ],
    )
    def test_is_taken_for_common_calls(self, method: str, path: str, options: dict) -> None:
        service = Service(key="chroma", name="Chroma", base_url="http://chroma:6003/api")
        assert prepare_plain(service, method, path, options, "X-Internal-Token") is not None
