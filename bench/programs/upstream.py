"""A small HTTP server for machines without nginx: answers everything alike, and counts. One process, one selector."""

from __future__ import annotations

import selectors
import socket
import sys

_BODY = b'{"ok": true, "results": [1, 2, 3]}'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_ANSWER = _HEAD % len(_BODY) + _BODY


def main(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    served = 0
    while True:
        for key, _ in selector.select():
            if key.data is None:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, connection)
                continue
            try:
                data = key.data.recv(65536)
            except OSError:
                data = b""
            if not data:
                selector.unregister(key.data)
                key.data.close()
                continue
            served += 1
            if data.startswith(b"GET /status"):
                body = b"requests 0 0 0 %d" % served
                key.data.sendall(_HEAD % len(body) + body)
            else:
                key.data.sendall(_ANSWER)


if __name__ == "__main__":
    main(int(sys.argv[1]))
