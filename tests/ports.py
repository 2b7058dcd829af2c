"""Ports for the servers of tests, which run side by side."""

from __future__ import annotations

import secrets
import socket

LOWEST, HIGHEST = 20_000, 32_000
"""Below the range of which the kernel takes ports for clients (`ip_local_port_range`, 32768 and up): one of those is free only
until the next connection of anybody."""


def free_port() -> int:
    """A port of loopback at which nobody listens. Another process that asks at the same time hardly gets the same one: they are
    taken by lot, and not by `random`, which begins in each worker with the same seed."""
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
