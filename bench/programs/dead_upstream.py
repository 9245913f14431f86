"""A service that is down: answers 500 to everything, and prints when each request came (monotonic seconds)."""

from __future__ import annotations

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Dead(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        os.write(1, f"{time.monotonic():.6f}\n".encode())  # a line in one piece, whatever other threads write
        body = b"down"
        self.send_response(500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: the lines on standard output are the measurement."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Dead)
    server.daemon_threads = True
    server.serve_forever()
