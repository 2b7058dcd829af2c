"""Counts a visit in Redis (by its plain protocol) and shows what the worker made of it."""

import http.server
import socket


def redis(*words: str) -> str:
    """The answer of Redis to one command, as text."""
    with socket.create_connection(("redis", 6379), 5) as sock:
        sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        reply = sock.makefile("rb")
        line = reply.readline().decode().strip()
        if line.startswith("$") and line != "$-1":
            return reply.readline().decode().strip()
        return line.lstrip(":+") if line != "$-1" else ""


class Page(http.server.BaseHTTPRequestHandler):
    """The page, and /health for the healthcheck."""

    def do_GET(self) -> None:
        """Count the visit and show it."""
        text = "ok"
        if self.path == "/":
            visits = redis("INCR", "visits")
            redis("LPUSH", "queue", visits)
            text = f"Hello from pystack: visit {visits}, sum of all visits by the worker: {redis('GET', 'sum') or 0}"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(text.encode() + b"\n")


http.server.ThreadingHTTPServer(("", 8000), Page).serve_forever()
