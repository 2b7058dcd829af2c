"""The short form of a published port. Source: Compose Specification, 05-services.md, "ports"."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from orchestrator.stackfile.problem import ShortFormError

_PORT = (
    r"(?:(?:\[(?P<v6>[0-9a-fA-F:]+)\]|(?P<v4>[0-9]+(?:\.[0-9]+){1,3})):)?(?:(?P<pub>\d+(?:-\d+)?)?:)?(?P<target>\d+(?:-\d+)?)"
    r"(?:/(?P<proto>[a-zA-Z]+))?\Z"
)
PROTOCOLS = ("tcp", "udp", "sctp")


class PortText(NamedTuple):
    """*target* is published at *first*, or at a port from *first* to *last*; both are 0 where any will do."""

    target: int
    first: int
    last: int
    protocol: str
    host_ip: str

    @property
    def published(self) -> str:
        """As the file writes it."""
        return "" if not self.first else str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def read_ports(text: str) -> list[PortText]:
    """[HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL], a port each. Raises ShortFormError."""
    match = re.match(_PORT, text)
    if not match:
        raise ShortFormError(f"{text!r} is not a port", "[HOST_IP:][PUBLISHED:]TARGET[/tcp|udp]")
    host, protocol = match["v6"] or match["v4"] or "", (match["proto"] or "tcp").lower()
    if host:
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            raise ShortFormError(f"{host} is not an IP address") from None
    if protocol not in PROTOCOLS:
        raise ShortFormError(f"{match['proto']!r} is not a protocol", f"one of {', '.join(PROTOCOLS)}")
    target, published = span(match["target"]), span(match["pub"] or "")
    if published == [0]:  # any port, as where none is given
        published = []
    if published and len(published) != len(target) and len(target) != 1:
        raise ShortFormError(f"{len(published)} published ports for {len(target)} container ports")
    bad = [p for p in (*target, *published) if not (0 < p < 65536)]
    if bad:
        raise ShortFormError(f"port {bad[0]} does not exist: TCP and UDP ports end at 65535", "choose 1 to 65535")
    if published and len(target) == 1:  # a range for one container port means "one of these"
        return [PortText(target[0], published[0], published[-1], protocol, host)]
    return [
        PortText(inside, published[index] if published else 0, published[index] if published else 0, protocol, host)
        for index, inside in enumerate(target)
    ]


def span(text: str) -> list[int]:
    """The ports of "80" or "80-90"; none of "". Raises ShortFormError."""
    if not text:
        return []
    low, _, high = text.partition("-")
    if int(high or low) < int(low):
        raise ShortFormError(f"the range {text} ends before it begins", f"write {high}-{low}")
    return list(range(int(low), min(int(high or low), int(low) + 65535) + 1))
