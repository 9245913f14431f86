"""Compressed bodies: what comes out is what the standard library says, piece by piece and in time."""

from __future__ import annotations

import gzip
import io
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from urllib3 import HTTPResponse
from urllib3.exceptions import DecodeError

from seawall.actors.deadline import until
from seawall.actors.decoding import decode_in_time

#: Seconds for what is to have all the time it needs.
PATIENCE = 30.0


def decoded(data: bytes, encoding: str, size: int = 64, seconds: float = PATIENCE) -> bytes:
    """The body, read `size` bytes at a time."""
    response = HTTPResponse(io.BytesIO(data), headers={"Content-Encoding": encoding}, preload_content=False)
    decode_in_time(response, until(seconds))
    pieces = list(response.stream(size, decode_content=True))
    assert all(len(piece) <= size for piece in pieces)
    return b"".join(pieces)


def packed(members: list[bytes]) -> bytes:
    return b"".join(gzip.compress(member, mtime=0) for member in members)


#: Sizes around the limit at which a decoder is interrupted.
SIZES = st.sampled_from([0, 1, 63, 64, 65, 128, 192, 1000])
MEMBERS = st.lists(SIZES.map(bytes), min_size=1, max_size=4)


@given(MEMBERS, st.sampled_from([1, 7, 64]))
@example([bytes(64), bytes(64)], 64)
def test_members_of_gzip(members: list[bytes], size: int) -> None:
    assert decoded(packed(members), "gzip", size) == b"".join(members)


@given(MEMBERS, st.binary(max_size=40).filter(lambda rest: not rest.startswith(b"\x1f\x8b")))
def test_what_follows_gzip_and_is_no_gzip_is_ignored(members: list[bytes], rest: bytes) -> None:
    assert decoded(packed(members) + rest, "gzip") == b"".join(members)


@given(MEMBERS)
def test_gzip_in_gzip(members: list[bytes]) -> None:
    assert decoded(packed([packed(members)] * 2), "gzip, gzip") == b"".join(members * 2)


def test_one_member_that_broke_off_is_what_came_of_it() -> None:
    assert bytes(1000).startswith(decoded(packed([bytes(1000)])[:-12], "gzip"))


def test_no_gzip_at_all() -> None:
    with pytest.raises(DecodeError):
        decoded(b"not gzip", "gzip")


def test_deflate_with_and_without_its_frame() -> None:
    assert decoded(zlib.compress(bytes(1000)), "deflate") == bytes(1000)
    assert decoded(zlib.compress(bytes(1000))[2:-4], "deflate") == bytes(1000)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
def test_there_is_an_end_to_it(encoding: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decoded(packed([packed([bytes(1000)])]), encoding, seconds=0)
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_a_body_that_is_not_compressed_is_left_alone() -> None:
    assert decoded(b"plain", "identity", seconds=0) == b"plain"
