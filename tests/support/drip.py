"""Services that do not come to an end with an answer: handlers of a `Loopback`."""

from __future__ import annotations

from tests.support.loopback import Peer

__all__ = ["drip_of_body", "drip_of_chunks", "drip_of_headers", "silence"]


def silence(peer: Peer) -> None:
    peer.read()
    peer.ended.wait()


def drip_of_headers(peer: Peer) -> None:
    peer.read()
    peer.write(b"HTTP/1.1 200 OK\r\n")
    peer.drip(b"X-Drop: 1\r\n")


def drip_of_body(peer: Peer) -> None:
    peer.read()
    peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    peer.drip(b"x")


def drip_of_chunks(peer: Peer) -> None:
    peer.read()
    peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.drip(b"1\r\nx\r\n", every=0.005)
