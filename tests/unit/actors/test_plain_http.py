"""The plain case of HTTP: it says what http.client says, or that it is not plain."""

from __future__ import annotations

import http.client
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.exceptions import InvalidHeader

from seawall.actors.plain_http import HEAD_END, Head, plain_head, request_head

TOKEN = st.text(alphabet="abcXYZ019-_!", min_size=1, max_size=8)
VALUE = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)


def as_http_client_reads(data: bytes, method: str) -> http.client.HTTPResponse:
    class Wire:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(data)

    response = http.client.HTTPResponse(Wire(), method=method)  # type: ignore[arg-type]
    response.begin()
    return response


class TestRequestHead:
    def test_is_the_lines_in_their_order(self) -> None:
        head = request_head("POST", "/a?b=1", [("Host", "chroma:6003"), ("X-Empty", ""), ("X-Name", "Zoë")])
        assert head == b"POST /a?b=1 HTTP/1.1\r\nHost: chroma:6003\r\nX-Empty: \r\nX-Name: Zo\xeb\r\n\r\n"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("X", "a\r\nX-Internal-Token: mine"),
            ("X", "a\nb"),
            ("X", "a\rb"),
            ("X", "a\0b"),
            ("X: y\r\nZ", "a"),
            ("X:", "a"),
            ("X y", "a"),
            ("", "a"),
            ("X", "\u20ac"),
        ],
    )
    def test_lets_nothing_become_another_line(self, name: str, value: str) -> None:
        with pytest.raises(InvalidHeader) as caught:
            request_head("GET", "/", [("Host", "h"), (name, value)])
        assert "mine" not in str(caught.value)

    @pytest.mark.parametrize(("method", "target"), [("GET\r\nX: y", "/"), ("GET", "/ HTTP/1.1\r\nX: y\r\n\r\n")])
    def test_nor_do_method_and_target(self, method: str, target: str) -> None:
        with pytest.raises(InvalidHeader):
            request_head(method, target, [])


class TestPlainHead:
    @given(
        st.integers(200, 599),
        st.text(alphabet="OK not found", max_size=9),
        st.lists(st.tuples(TOKEN, VALUE), max_size=6),
        st.integers(0, 99),
        st.sampled_from(["GET", "HEAD", "POST"]),
        st.sampled_from(["", "Connection: close\r\n", "Connection: keep-alive\r\n", "connection:Keep-Alive\r\n"]),
    )
    def test_says_what_http_client_says(
        self, status: int, reason: str, fields: list[tuple[str, str]], length: int, method: str, connection: str
    ) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        text = f"HTTP/1.1 {status} {reason}\r\n{lines}{connection}Content-Length: {length}"
        head = plain_head(text.encode("latin-1"), method)
        assert head is not None
        theirs = as_http_client_reads(text.encode("latin-1") + HEAD_END, method)
        assert (head.status, head.reason.strip()) == (theirs.status, theirs.reason)
        assert [(name, value.strip()) for name, value in head.fields] == [
            (name, value.strip()) for name, value in theirs.msg.items()
        ]
        assert head.length == (theirs.length or 0)
        assert head.keeps == (not theirs.will_close)

    @pytest.mark.parametrize(
        "text",
        [
            "HTTP/1.0 200 OK\r\nContent-Length: 2",
            "HTTP/1.1 100 Continue\r\nContent-Length: 2",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2",
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2",
            "HTTP/1.1 200 OK\r\nContent-Length: +2",
            "HTTP/1.1 200 OK\r\nContent-Length: -2",
            "HTTP/1.1 200 OK\r\nContent-Length: " + "1" * 5000,
            "HTTP/1.1 200 OK\r\nContent-Length: \u00b2",
            "HTTP/1.1 200 OK\r\nX: folded\r\n line\r\nContent-Length: 2",
            "HTTP/1.1 200 OK\r\nX : space before the colon\r\nContent-Length: 2",
            "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2",
            "HTTP/1.1 200 OK\nX: y\r\nContent-Length: 2",
            "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2",
            "HTTP/1.1 2000 OK\r\nContent-Length: 2",
            "HTTP/1.1 200OK\r\nContent-Length: 2",
            "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nContent-Length: 2",
            "HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 100 + "Content-Length: 2",
            "SSH-2.0-OpenSSH",
            "",
        ],
    )
    def test_leaves_everything_else_to_http_client(self, text: str) -> None:
        assert plain_head(text.encode("latin-1"), "GET") is None

    @pytest.mark.parametrize("order", [("close", "keep-alive"), ("keep-alive", "close"), ("Keep-Alive", "x, close")])
    def test_one_line_that_says_close_is_enough(self, order: tuple[str, str]) -> None:
        lines = "".join(f"Connection: {value}\r\n" for value in order)
        head = plain_head(f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 2".encode(), "GET")
        assert head is not None
        assert not head.keeps

    def test_of_an_answer_without_a_body(self) -> None:
        assert plain_head(b"HTTP/1.1 204 No Content", "GET") == Head(204, "No Content", (), 0, True)
        assert plain_head(b"HTTP/1.1 304", "GET") == Head(304, "", (), 0, True)
        head = plain_head(b"HTTP/1.1 200 OK\r\nContent-Length: 9", "HEAD")
        assert head is not None
        assert head.length == 0

    @given(st.binary(max_size=60))
    def test_no_bytes_break_it(self, data: bytes) -> None:
        found: Any = plain_head(b"HTTP/1.1 200 OK\r\n" + data, "GET")
        assert found is None or found.length >= 0
        assert plain_head(data, "GET") is None or data.startswith(b"HTTP/1.1 ")
