"""Load balancing of services by nftables maps: from an address or port and a bucket, drawn by chance, to a backend. Pure.

The maps are flat: a change costs its own elements, where a chain for each service would cost all of them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

import msgspec

from netplugins import cache
from netplugins.driver import LoadBalancer
from netplugins.nft_elements import ElementType
from netplugins.script import Parts, Script

SMALL, LARGE = 16, 256
"""Buckets of a service with up to eight backends, and of one with more."""


@lru_cache(None)
def buckets(backends: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The backend of each of *count* buckets, by rendezvous hashing: where a backend goes, only its own buckets move.

    Where that leaves shares uneven, the fullest backend gives to the emptiest. Empty without backends."""
    ordered = sorted(set(backends))[:count]
    if not ordered:
        return ()

    def weight(backend: str, bucket: int) -> bytes:
        return hashlib.blake2b(f"{backend} {bucket}".encode(), digest_size=8).digest()

    chosen = [max(ordered, key=lambda b: weight(b, n)) for n in range(count)]
    share: dict[str, list[int]] = {b: [n for n, c in enumerate(chosen) if c == b] for b in ordered}
    while True:
        low, high = min(ordered, key=lambda b: len(share[b])), max(ordered, key=lambda b: len(share[b]))
        if len(share[high]) - len(share[low]) < 2:
            return tuple(chosen)
        moved = share[high].pop()
        share[low].append(moved)
        chosen[moved] = low


@lru_cache(None)
def weighted(backends: tuple[str, ...], weights: tuple[int, ...], count: int) -> tuple[str, ...]:
    """The backend of each of *count* buckets, of which each backend has its part by *weights*, by largest remainders: one that
    has any weight has a bucket at least."""
    whole = sum(weights) or 1
    exact = [w * count / whole for w in weights]
    parts = [max(int(e), 1) if w else 0 for e, w in zip(exact, weights, strict=True)]
    order = sorted(range(len(parts)), key=lambda n: (parts[n] - exact[n], backends[n]))
    while sum(parts) != count and any(parts):
        if sum(parts) < count:
            for n in [n for n in order if weights[n]][: count - sum(parts)]:
                parts[n] += 1
        else:
            parts[max(range(len(parts)), key=parts.__getitem__)] -= 1
    return tuple(b for b, part in zip(backends, parts, strict=True) for _ in range(part))


class _Map(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """A map from buckets to backends: of services' own addresses, or of published ports of one *protocol*."""

    version: int
    count: int
    protocol: str = ""

    @property
    def name(self) -> str:
        """The map's name in the table."""
        return f"{f'ingress_{self.protocol}' if self.protocol else 'service'}{self.version}_{self.count}"

    def rule(self) -> str:
        """The rule that looks a bucket up, by chance."""
        family, number = "ip" if self.version == 4 else "ip6", f"numgen random mod {self.count}"
        if self.protocol:
            return f"meta nfproto ipv{self.version} dnat {family} to {self.protocol} dport . {number} map @{self.name}"
        return f"dnat {family} to {family} daddr . {number} map @{self.name}"

    def declare(self, script: Script, parts: Parts) -> None:
        """Add the map with its elements."""
        family, kind = ("ip", "ipv4_addr") if self.version == 4 else ("ip6", "ipv6_addr")
        shape, key, value = ElementType((kind, "integer"), (kind,)), f"{family} daddr", f"{family} daddr"
        if self.protocol:
            port = f"{self.protocol} dport"
            shape, key, value = ElementType(("inet_service", "integer"), (kind, "inet_service")), port, f"{value} . {port}"
        script.declare_parts("map", self.name, f"typeof {key} . numgen random mod {self.count} : {value}", shape, parts)


_map = lru_cache(_Map)
_known: dict[LoadBalancer, tuple[tuple[_Map, frozenset[str]], ...]] = {}
"""The elements of each service, kept while it stays as it is: all are needed whenever one changes."""


def _elements(balanced: Sequence[LoadBalancer]) -> Iterator[tuple[_Map, frozenset[str]]]:
    """Each service's elements, by map."""
    found = list(map(_known.get, balanced))
    if None in found:
        cache.trim(buckets, len(balanced))
        cache.trim(weighted, len(balanced))
        if cache.is_mostly_stale(len(_known), len(balanced)):
            _known.clear()
        for number, one in enumerate(balanced):
            found[number] = found[number] or _known.setdefault(one, tuple(_elements_of(one)))
    return chain.from_iterable(filter(None, found))


def _elements_of(one: LoadBalancer) -> Iterator[tuple[_Map, frozenset[str]]]:
    count = LARGE if one.weights or len(one.backends) > SMALL // 2 else SMALL
    chosen = weighted(one.backends, one.weights, count) if one.weights else buckets(one.backends, count)
    to = tuple(enumerate(chosen))
    if one.address:
        yield _map(one.version, count), frozenset(f"{one.address} . {n} : {backend}" for n, backend in to)
    for protocol in dict.fromkeys(protocol for _, protocol, _ in one.ports):
        yield (
            _map(one.version, count, protocol),
            frozenset(
                f"{port} . {n} : {backend} . {target}"
                for port, kind, target in one.ports
                if kind == protocol
                for n, backend in to
            ),
        )


def declare(script: Script, balanced: Sequence[LoadBalancer]) -> tuple[list[str], list[str]]:
    """Add the maps to *script*. Returns (rules for services' addresses, rules for published ports)."""
    maps: defaultdict[_Map, list[frozenset[str]]] = defaultdict(list)
    for which, part in _elements(balanced):
        maps[which].append(part)
    for which, parts in sorted(maps.items(), key=lambda item: item[0]):
        which.declare(script, tuple(parts))
    rules = [(which.protocol, which.rule()) for which in sorted(maps)]
    return [rule for protocol, rule in rules if not protocol], [rule for protocol, rule in rules if protocol]
