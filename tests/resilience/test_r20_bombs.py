"""Row 20: bodies without end, and compressed bombs. Stock: a gzip of 1 MB costs 1,948 MB of memory.

Here decoded bytes are counted while they come, up to `max_response_bytes` (10 MiB); the rest is not read.
"""

from __future__ import annotations

import zlib

from tests.resilience.scene import run_child
from tests.support.loopback import Loopback, Peer

MEGABYTE = 1024 * 1024
#: Bytes by which the peak of the process may grow, as promised for the default cap.
PROMISED = 20 * MEGABYTE
#: Megabytes that the bomb unpacks to, and that the plain body has.
UNPACKED, PLAIN = 1000, 200

#: Sends one good call, and then those that end at the cap; says how many bytes the peak grew by each.
CALLS = """
import resource, sys
from seawall.errors import ResponseTooLarge
from tests.support.loopback import call_to, transport_to

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

transport = transport_to(sys.argv[1])
assert transport.send(call_to(transport, target="/good", timeout=30)).content == b"ok"
for target in ("/bomb", "/plain", "/endless"):
    before = peak()
    try:
        transport.send(call_to(transport, target=target, timeout=30))
    except ResponseTooLarge:
        print(target, peak() - before)
"""


def bomb() -> bytes:
    """A gzip of about 1 MB, of zeros: each of its blocks stands for a megabyte, so that packing it takes no time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MEGABYTE)
    head = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * (UNPACKED - 1)


def greedy(peer: Peer) -> None:
    packed = bomb()
    while (request := peer.read()) is not None:
        if request.target == "/good":
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        elif request.target == "/bomb":
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n")
            peer.write(b"Content-Length: %d\r\n\r\n" % len(packed) + packed)
        else:
            head = b"Transfer-Encoding: chunked" if request.target == "/endless" else b"Connection: close"
            peer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
            chunk = bytes(MEGABYTE)
            framed = b"100000\r\n" + chunk + b"\r\n" if request.target == "/endless" else chunk
            for _ in range(PLAIN):
                peer.write(framed)


def test_memory_stays_bounded() -> None:
    with Loopback(greedy) as server:
        told = dict(line.split() for line in run_child(CALLS, server.url).splitlines())
    assert set(told) == {"/bomb", "/plain", "/endless"}, "each of them ends at the cap"
    assert {target: grown for target, grown in told.items() if int(grown) > PROMISED} == {}
