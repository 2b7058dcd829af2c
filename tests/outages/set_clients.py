"""A client that writes all the time, one write after the other, to an etcd or a PostgreSQL; it prints a JSON object a write.

    python set_clients.py etcd|postgres RATE ADDRESS…

Each write has a number of its own. `problem` is "" where it was acknowledged; one that was not may be there all the same.
Ends when standard input does.
"""

from __future__ import annotations

import base64
import http.client
import json
import selectors
import subprocess
import sys
import threading
import time

PATIENCE_S = 3.0
"""How long one write may take."""


class Etcd:
    """Writes by the JSON gateway of etcd's API, version 3, at one of *addresses* after the other."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        self._connection: http.client.HTTPConnection | None = None
        self._next = 0

    def write(self, number: int) -> None:
        """Raises OSError where the write is not acknowledged."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._addresses[self._next], 2379, timeout=PATIENCE_S)
        key, value = (base64.b64encode(text.encode()).decode() for text in (f"w/{number:08}", str(number)))
        try:
            self._connection.request("POST", "/v3/kv/put", json.dumps({"key": key, "value": value}))
            answer = self._connection.getresponse()
            body = answer.read()
        except (http.client.HTTPException, OSError) as error:
            self._leave()
            raise OSError(f"{type(error).__name__}: {error}") from None
        if answer.status != 200 or b"header" not in body:
            self._leave()
            raise OSError(f"{answer.status}: {body[:100]!r}")

    def _leave(self) -> None:
        """Ask another from now on."""
        assert self._connection
        self._connection.close()
        self._connection = None
        self._next = (self._next + 1) % len(self._addresses)


class Postgres:
    """Writes by psql at the primary, whichever address has it."""

    def __init__(self, addresses: list[str]) -> None:
        where = f"host={','.join(addresses)} port=5432 user=postgres dbname=postgres target_session_attrs=read-write"
        self._words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", f"{where} connect_timeout=2"]
        self._psql: subprocess.Popen[bytes] | None = None

    def write(self, number: int) -> None:
        """Raises OSError where the write is not acknowledged."""
        if self._psql is None:
            self._psql = subprocess.Popen(
                self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
            )
        assert self._psql.stdin
        try:
            self._psql.stdin.write(f"INSERT INTO line VALUES ({number});\n\\echo acknowledged {number}\n".encode())
            said = self._answer(f"acknowledged {number}\n".encode())
        except OSError:
            self._leave()
            raise
        if said:
            self._leave()
            raise OSError(said)

    def _answer(self, wanted: bytes) -> str:
        """ "" once psql has said *wanted*; else what it said before its end, or before the time was over."""
        assert self._psql
        assert self._psql.stdout
        said, end = b"", time.monotonic() + PATIENCE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._psql.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, end - time.monotonic())):
                part = self._psql.stdout.read(4096)
                said += part
                if said.endswith(wanted):
                    return ""
                if not part:
                    break
        return said.decode(errors="replace").strip()[-200:] or "no answer in time"

    def _leave(self) -> None:
        assert self._psql
        self._psql.kill()
        self._psql.wait()
        self._psql = None


def main(kind: str, rate: float, addresses: list[str]) -> None:
    """Write until standard input ends."""
    client = Etcd(addresses) if kind == "etcd" else Postgres(addresses)
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    number = 0
    while not ended.is_set():
        number += 1
        begun, problem = time.time(), ""
        try:
            client.write(number)
        except OSError as error:
            problem = str(error)
        row = {"number": number, "begun": begun, "ended": time.time(), "problem": problem}
        print(json.dumps(row), flush=True)
        ended.wait(1 / rate)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
