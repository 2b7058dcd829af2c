"""Clients that ask all the time, run by themselves in a namespace; they print one JSON object a request on standard output.

    python clients.py short|keep SECONDS URL…

`short` opens a connection a request; `keep` holds one to each URL and opens another where the server says that it closes. A
request begins every 20 ms at each URL, whether or not the one before was answered.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit

EVERY_S, PATIENCE_S = 0.02, 5.0
LOCK = threading.Lock()


def say(**what: object) -> None:
    """One line, whole, whichever thread says it."""
    with LOCK:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def ask(url: str, connection: http.client.HTTPConnection) -> bool:
    """One request; whether the connection serves another."""
    parts = urlsplit(url)
    begun, problem, by = time.time(), "", ""
    lasting, phase = False, "connecting"
    try:
        if connection.sock is None:
            connection.connect()
        phase = "waiting for the answer"
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        by = answer.read().decode(errors="replace").strip()
        lasting = not answer.will_close
        if answer.status != 200:
            problem = f"status {answer.status}"
    except (OSError, http.client.HTTPException) as error:
        problem = f"{phase}: {type(error).__name__}: {error}"
        lasting = False
    say(url=url, begun=begun, ended=time.time(), problem=problem, by=by)
    return lasting


def fresh(url: str) -> http.client.HTTPConnection:
    """A connection that is not open yet."""
    parts = urlsplit(url)
    assert parts.hostname
    return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=PATIENCE_S)


def short(url: str, until: float) -> None:
    """A connection a request."""

    def one() -> None:
        connection = fresh(url)
        ask(url, connection)
        connection.close()

    while time.time() < until:
        threading.Thread(target=one, daemon=True).start()
        time.sleep(EVERY_S)


def keep(url: str, until: float) -> None:
    """One connection as long as the server keeps it."""
    connection = fresh(url)
    while time.time() < until:
        if not ask(url, connection):
            connection.close()
            connection = fresh(url)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    how = {"short": short, "keep": keep}[sys.argv[1]]
    end = time.time() + float(sys.argv[2])
    threads = [threading.Thread(target=how, args=(url, end)) for url in sys.argv[3:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(PATIENCE_S / 5)
