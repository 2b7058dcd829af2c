"""Sysctls under /proc/sys, of the network namespace of the calling thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path("/proc/sys")


def write(name: str, value: str) -> None:
    """Set the sysctl *name* (`net/ipv4/ip_forward`). A kernel without it, as one without IPv6, is not an error."""
    with contextlib.suppress(FileNotFoundError):
        (ROOT / name).write_text(value)


def is_off(name: str) -> bool:
    """Whether the sysctl *name* is there and is 0."""
    try:
        return (ROOT / name).read_text().strip() == "0"
    except FileNotFoundError:
        return False


def forwarding_off(links: Iterable[str]) -> list[str]:
    """The sysctls that keep the host, or one of *links*, from forwarding IPv4."""
    return [n for n in ("net/ipv4/ip_forward", *map(_forwarding, links)) if is_off(n)]


def allow_forwarding(links: Iterable[str] = ()) -> list[str]:
    """Turn forwarding on for the host and *links* where it is off. Returns a sentence for each sysctl that was changed."""
    changed = []
    for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", *map(_forwarding, links)):
        if is_off(name):
            write(name, "1")
            changed.append(f"{name.replace('/', '.')} was 0 and is now 1: containers need the host to forward")
    return changed


def _forwarding(link: str) -> str:
    return f"net/ipv4/conf/{link}/forwarding"


def open_low_ports() -> None:
    """Let every user of this namespace bind ports below 1024 and send ICMP echoes, as Docker does."""
    write("net/ipv4/ip_unprivileged_port_start", "0")
    write("net/ipv4/ping_group_range", f"0 {_last_group()}")


@cache
def _last_group() -> int:
    """The highest group ID of this process's user namespace. Source: user_namespaces(7), gid_map."""
    rows = [line.split() for line in Path("/proc/self/gid_map").read_text().splitlines()]
    return min(max(int(inside) + int(count) for inside, _, count in rows) - 1, 0x7FFF_FFFF)
