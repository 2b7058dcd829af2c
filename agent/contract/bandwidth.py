"""How much a container may receive and send on a network, and how people write that."""

from __future__ import annotations

import re

from agent.contract.wire import WireStruct

_RATE = r"(?i)(\d{1,15}(?:\.\d{1,6})?)\s*(|k|ki|m|mi|g|gi|t|ti)(bit|bps)?"
_UNIT = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
UNLIMITED = "unlimited"
SLOWEST, FASTEST = 8_000, 10**12
"""Bits a second: below it a single packet takes seconds, above it no link is that fast."""
LARGEST_BURST = 256 << 20


class Bandwidth(WireStruct, frozen=True, kw_only=True):
    """Bits a second that a container may receive (*ingress*) and send (*egress*) on one network, in whole frames; 0 means no
    limit. *burst* is how many bytes may pass at once, 0 for what suits the rate. None: it is left out."""

    ingress: int | None = None
    egress: int | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        for name in ("ingress", "egress"):
            rate = getattr(self, name)
            if rate and not SLOWEST <= rate <= FASTEST:
                raise ValueError(f"bandwidth: {name} of {rate} bit/s: from 8kbit to 1tbit a second")
        if self.burst and not 0 < self.burst <= LARGEST_BURST:
            raise ValueError(f"bandwidth: burst of {self.burst} bytes: at most 256m")

    def __str__(self) -> str:
        rates = {"ingress": self.ingress, "egress": self.egress}
        words = [f"{name} {rate_text(rate)}" for name, rate in rates.items() if rate is not None]
        return ", ".join(words + ([f"burst {self.burst} bytes"] if self.burst else []))


def merged(*layers: Bandwidth | None) -> Bandwidth | None:
    """What *layers* say together, the first before the second; None if nothing is limited."""

    def first(name: str) -> int | None:
        return next((v for one in layers if one is not None and (v := getattr(one, name)) is not None), None)

    found = Bandwidth(ingress=first("ingress") or None, egress=first("egress") or None, burst=first("burst") or None)
    return found if found.ingress or found.egress else None


def parse_rate(value: object) -> int:
    """Bits a second of "20mbit", "1.5gbit", "512kibit", 64000; 0 for "unlimited". Raises ValueError."""
    text = str(value).strip().lower()
    if isinstance(value, bool) or value is None:
        raise ValueError("a rate is a number with kbit, mbit or gbit, such as 20mbit")
    if text == UNLIMITED:
        return 0
    match = re.fullmatch(_RATE, text)
    if not match:
        raise ValueError(f"{text[:40]!r} is not a rate: write a number with kbit, mbit or gbit, such as 20mbit, or {UNLIMITED}")
    if match[3] == "bps":
        raise ValueError(f"{text[:40]!r} may mean bits or bytes a second: write {match[1]}{match[2]}bit for bits")
    if match[2] and not match[3]:
        raise ValueError(f"{text[:40]!r} does not say what it counts: write {match[1]}{match[2]}bit for bits a second")
    rate = int(float(match[1]) * _UNIT[match[2]])
    if not SLOWEST <= rate <= FASTEST:
        raise ValueError(f"{text[:40]!r} is not from 8kbit to 1tbit a second")
    return rate


def rate_text(rate: int) -> str:
    """*rate*, in bits a second, as people write it: 20mbit."""
    if not rate:
        return UNLIMITED
    for unit in ("t", "g", "m", "k"):
        if rate % _UNIT[unit] == 0:
            return f"{rate // _UNIT[unit]}{unit}bit"
    return f"{rate}bit"
