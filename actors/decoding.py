"""Decoding a compressed body: within the attempt's time, and each byte once.

urllib3's decoders are told how much to give at a time, but not when to stop. Its gzip decoder begins a member anew, for
ever, where one ends exactly at such a limit and another one follows; behind a second encoding that gives nothing, that
is a loop without reading or yielding anything.
"""

from __future__ import annotations

import zlib

from urllib3 import HTTPResponse
from urllib3.response import ContentDecoder, GzipDecoder, MultiDecoder

from seawall.actors.deadline import Deadline

__all__ = ["decode_in_time"]


def decode_in_time(response: HTTPResponse, limit: Deadline) -> None:
    """Have the response's body, of which nothing was read yet, decoded until the time is over and no longer.

    Reading it raises DecodeError then, as for a body that is broken.
    """
    response._init_decoder()
    decoder = response._decoder
    if isinstance(decoder, MultiDecoder):  # it loops over its links by itself
        decoder._decoders = [_InTime(link, limit) for link in decoder._decoders]
    elif decoder is not None:
        response._decoder = _InTime(decoder, limit)


class _InTime(ContentDecoder):
    """One encoding of a body. Its own decoder is asked only while there is time."""

    def __init__(self, decoder: ContentDecoder, limit: Deadline) -> None:
        self._decoder = _Gzip() if isinstance(decoder, GzipDecoder) else decoder
        self._limit = limit

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if self._limit.passed:
            raise TimeoutError("the body was not decoded in time")
        return self._decoder.decompress(data, max_length)

    @property
    def has_unconsumed_tail(self) -> bool:
        return self._decoder.has_unconsumed_tail

    def flush(self) -> bytes:
        return self._decoder.flush()


class _Gzip(ContentDecoder):
    """One gzip member after another (RFC 1952); what follows the first one and is no other is ignored, as in urllib3."""

    def __init__(self) -> None:
        self._member = _new_member()
        self._is_first = True
        self._is_over = False
        self._rest = b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes, where that is not negative; the rest comes with the next calls."""
        self._rest += b"" if self._is_over else data
        found = bytearray()
        while self._rest and (max_length < 0 or len(found) < max_length):
            if self._member.eof:
                self._member, self._is_first = _new_member(), False
            try:
                found += self._member.decompress(self._rest, max(0, max_length - len(found)))
            except zlib.error:
                self._is_over, self._rest = True, b""
                if self._is_first:
                    raise
                break
            self._rest = self._member.unconsumed_tail or self._member.unused_data
        return bytes(found)

    @property
    def has_unconsumed_tail(self) -> bool:
        return bool(self._rest)

    def flush(self) -> bytes:
        return self._member.flush()


def _new_member() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)
