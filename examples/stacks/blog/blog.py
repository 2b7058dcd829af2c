"""A blog: GET / lists what was written, POST / writes; over TLS, kept in PostgreSQL."""

import html
import http.server
import pathlib
import socket
import ssl

import psycopg2

PASSWORD = pathlib.Path("/run/secrets/password").read_text().strip()


def database() -> "psycopg2.extensions.connection":
    """A connection to the database."""
    return psycopg2.connect(host="db", user="postgres", password=PASSWORD, connect_timeout=5)


class Blog(http.server.BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """All that was written, newest first."""
        with database() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT text FROM posts ORDER BY id DESC LIMIT 50")
            posts = "".join(f"<p>{html.escape(text)}</p>\n" for (text,) in cursor.fetchall())
        self.answer(f"<h1>Blog</h1>\n{posts}<hr>{socket.gethostname()}\n")

    def do_POST(self) -> None:
        """Write the body down."""
        text = self.rfile.read(min(int(self.headers["Content-Length"] or 0), 10_000)).decode()
        with database() as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO posts (text) VALUES (%s)", (text,))
        self.answer("written\n")

    def answer(self, text: str) -> None:
        """Send a page."""
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with database() as first, first.cursor() as made:
    made.execute("SELECT pg_advisory_xact_lock(1)")  # three begin at once
    made.execute("CREATE TABLE IF NOT EXISTS posts (id serial PRIMARY KEY, text text)")
server = http.server.ThreadingHTTPServer(("", 8443), Blog)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/run/secrets/certificate", "/run/secrets/key")
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
