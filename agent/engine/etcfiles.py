"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container. Source: hosts(5), resolv.conf(5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.engine.records import Record


def write(directory: Path, record: Record, hostname: str, *, gateway: str, shared_host_network: bool) -> dict[str, Path]:
    """Write the three files below *directory*; returns where each goes in the container."""
    c = record.container
    short = hostname.partition(".")[0]
    whole = f"{hostname}.{c.domainname}" if c.domainname else hostname
    domain = f"{whole} {short}" if whole != short else hostname
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    for endpoint in record.endpoints:
        lines += [f"{address}\t{domain}" for address in (endpoint.ipv4, endpoint.ipv6) if address]
    if shared_host_network:
        lines = _read(Path("/etc/hosts")).splitlines() or lines
    lines += [f"{address if address != 'host-gateway' else gateway}\t{name}" for name, address in c.extra_hosts]
    contents: Mapping[str, str] = {
        "hosts": "\n".join(lines) + "\n",
        "hostname": hostname + "\n",
        "resolv.conf": _resolv(record, shared_host_network=shared_host_network),
    }
    out = {}
    for name, text in contents.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
        out[f"/etc/{name}"] = path
    return out


def _resolv(record: Record, *, shared_host_network: bool) -> str:
    c = record.container
    if shared_host_network and not (c.dns or c.dns_search or c.dns_opt):
        return _read(Path("/etc/resolv.conf"))
    lines = []
    if record.endpoints:
        lines.append("nameserver 127.0.0.11")
    else:
        lines += [f"nameserver {server}" for server in c.dns]
    search = c.dns_search or tuple(_host_search())
    if search and search != (".",):
        lines.append("search " + " ".join(search))
    options = list(c.dns_opt)
    if record.endpoints and not any(o.startswith("ndots:") for o in options):
        options.append("ndots:0")
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def _host_search() -> list[str]:
    for line in _read(Path("/etc/resolv.conf")).splitlines():
        words = line.split()
        if words and words[0] == "search":
            return words[1:]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
