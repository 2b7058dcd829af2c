"""The configuration of the HAProxy beside Caddy: TLS connections by the name that they ask for, and the rates of clients. Pure.

Nothing of a stack file gets into it but host names, networks and numbers, all of which were read. Source: HAProxy 2.6,
configuration manual, chapters 4.2 and 7.3.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.ingress.routes import Site

FOLDER = "/run/haproxy"
"""In memory of the container: the file that is made of the cluster, and the sockets that only the agent reaches."""
FILE = "made.cfg"
VERSION_SOCKET = f"{FOLDER}/version.sock"
LIMITS_SOCKET = "/run/gate/limits.sock"
"""In a volume of the node, which the node's Caddy has too."""
CLIENT_HEADER = "X-Pystack-Client"
MOST_CLIENTS = 100_000
"""Addresses that one limit remembers, those that were seen last: 13 MB at most."""
START = f"""global
    stats socket {FOLDER}/admin.sock mode 600 expose-fd listeners
    fd-hard-limit 65536
    mworker-max-reloads 50
defaults
    timeout connect 2s
    timeout client 24h
    timeout server 24h
    retries 3
    option redispatch
    option clitcpka
    option srvtcpka
frontend started
    mode http
    bind unix@{FOLDER}/started.sock mode 600
    http-request return status 204
"""
"""What it starts with, in its image. A process of before a change goes on with its connections, through 50 changes."""


def configuration(sites: Sequence[Site]) -> tuple[str, str]:
    """What is added to START, and the digest that it then says at VERSION_SOCKET."""
    named = [s for s in sites if s.rule.tcp]
    lines = [line for port in sorted({s.rule.tcp for s in named}) for line in _frontend(port, named)]
    lines += [line for site in named for line in _backend(site)]
    lines += _limits([s for s in sites if s.rule.rate])
    body = "\n".join(lines)
    digest = hashlib.sha256(body.encode()).hexdigest()
    version = [
        "frontend version",
        "    mode http",
        f"    bind unix@{VERSION_SOCKET} mode 600",
        f"    http-request return status 200 content-type application/json string '\"{digest}\"'",
    ]
    return "\n".join((body, *version, "")), digest


def name_of(site: Site) -> str:
    """A short name for *site* that has no letter with a meaning."""
    return hashlib.sha256(site.rule.place.encode()).hexdigest()[:16]


def _frontend(port: int, named: Iterable[Site]) -> Iterator[str]:
    """Connections to *port*. Names without * come first, as *named* has them."""
    yield f"frontend tcp_{port}"
    yield "    mode tcp"
    yield f"    bind :::{port} v4v6"
    yield "    tcp-request inspect-delay 5s"
    yield "    tcp-request content accept if { req.ssl_hello_type 1 }"
    yield "    tcp-request content reject"
    for site in named:
        if site.rule.tcp == port:
            yield f"    use_backend named_{name_of(site)} if {{ req.ssl_sni,lower -m reg {_pattern(site.rule.host)} }}"


def _pattern(host: str) -> str:
    bare = re.escape(host.removeprefix("*.")).replace("\\", "\\\\")
    return f"^{'[^.]+' + chr(92) * 2 + '.' if host.startswith('*.') else ''}{bare}$"


def _backend(site: Site) -> Iterator[str]:
    yield f"backend named_{name_of(site)}"
    yield "    mode tcp"
    yield "    balance leastconn"
    if site.rule.allow:
        yield f"    tcp-request content reject unless {{ src {' '.join(site.rule.allow)} }}"
    for number, up in enumerate(site.upstreams):
        yield f"    server s{number} {up.dial.replace('[', '').replace(']', '')} weight {up.shares}"


def _limits(limited: Sequence[Site]) -> Iterator[str]:
    """Caddy asks here before it forwards a request: the path says by which limit, a header for which client."""
    if not limited:
        return
    for site in limited:
        yield f"backend limit_{name_of(site)}"
        span = f"{site.rule.rate_s}s"
        yield f"    stick-table type ipv6 size {MOST_CLIENTS} expire {span} store http_req_rate({span})"
    yield "frontend limits"
    yield "    mode http"
    yield f"    bind unix@{LIMITS_SOCKET} mode 600"
    for site in limited:
        name = name_of(site)
        yield f"    http-request track-sc0 req.hdr_ip({CLIENT_HEADER}),ipmask(32,64) table limit_{name} if {{ path /{name} }}"
        many = f"{{ sc_http_req_rate(0) gt {site.rule.rate} }}"
        yield (
            f"    http-request return status 429 hdr Retry-After {_pause(site)} content-type text/plain "
            f'string "429: too many requests\\n" if {{ path /{name} }} {many}'
        )
    yield "    http-request return status 204"


def _pause(site: Site) -> int:
    """Seconds after which a client that waits has requests left."""
    return max(1, site.rule.rate_s // 2)
