"""The reaper of Testcontainers, as its protocol is documented: it removes what bears the labels that its clients named, once
the last of them has been gone for a while. It runs in a container that has the daemon's socket, on docker-py.

Source: Testcontainers documentation, "Ryuk / Resource Reaper": a line `label=KEY=VALUE&name=…` is answered by `ACK`;
RYUK_PORT, RYUK_CONNECTION_TIMEOUT, RYUK_RECONNECTION_TIMEOUT.
"""

from __future__ import annotations

import os
import re
import socketserver
import threading
import time
from urllib.parse import parse_qsl

import docker


def seconds(name, default):
    """A duration as Go writes it: 10s, 1m30s, 500ms."""
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    text = os.environ.get(name, default)
    return sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text))


class Book:
    """Who is connected, since when nobody is, and what was named."""

    def __init__(self):
        self.lock = threading.Lock()
        self.clients, self.ever, self.since = 0, False, time.monotonic()
        self.filters = []

    def come(self, step):
        with self.lock:
            self.clients += step
            self.ever, self.since = True, time.monotonic()

    def is_over(self):
        with self.lock:
            patience = seconds("RYUK_RECONNECTION_TIMEOUT", "10s") if self.ever else seconds("RYUK_CONNECTION_TIMEOUT", "60s")
            return not self.clients and time.monotonic() - self.since > patience


BOOK = Book()


class Client(socketserver.StreamRequestHandler):
    """One connection; it counts until it ends."""

    def handle(self):
        BOOK.come(1)
        try:
            for line in self.rfile:
                named = {}
                for key, value in parse_qsl(line.decode().strip(), keep_blank_values=True):
                    named.setdefault(key, []).append(value)
                if named:
                    print("adding", named, flush=True)
                    BOOK.filters.append(named)
                    self.wfile.write(b"ACK\n")
        except OSError:
            pass  # a client that was killed
        finally:
            BOOK.come(-1)


def reap(client):
    """How many containers, networks, volumes and images went."""
    gone = [0, 0, 0, 0]
    for named in BOOK.filters:
        for found in client.api.containers(all=True, filters=named):
            client.api.remove_container(found["Id"], v=True, force=True)
            gone[0] += 1
        gone[1] += len(client.api.prune_networks(named)["NetworksDeleted"] or ())
        wide = {"all": ["true"]} if client.api.api_version.split(".") >= ["1", "42"] else {}
        gone[2] += len(client.api.prune_volumes({**named, **wide})["VolumesDeleted"] or ())
        gone[3] += len(client.api.prune_images({**named, "dangling": ["false"]})["ImagesDeleted"] or ())
    return gone


def main():
    client = docker.DockerClient(base_url="unix:///var/run/docker.sock", version="auto")
    client.ping()
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("", int(os.environ.get("RYUK_PORT", "8080"))), Client) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"{time.strftime('%Y/%m/%d %H:%M:%S')} Started!", flush=True)
        while not BOOK.is_over():
            time.sleep(0.1)
        print("Removed {} container(s), {} network(s), {} volume(s) {} image(s)".format(*reap(client)), flush=True)


if __name__ == "__main__":
    main()
