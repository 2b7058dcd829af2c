"""Free subnets of address pools, and free addresses of subnets. Pure.

The control plane takes from the beginning of a pool, nodes for networks made by hand from its end: so they seldom meet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from agent.contract.network import Subnet


def free_subnet(pools: Iterable[str], taken: Iterable[str], prefix: int, *, from_end: bool = False) -> Subnet | None:
    """The first (the last with *from_end*) IPv4 subnet of *prefix* bits in the first of *pools* (CIDRs) that has one which
    overlaps none of *taken* (CIDRs), with its first address as gateway; None if there is none."""
    used = [(int(n[0]), int(n[-1])) for n in map(ipaddress.ip_network, taken) if n.version == 4]
    size = 1 << (32 - prefix)
    for pool in map(ipaddress.ip_network, pools):
        if pool.version != 4:
            continue
        gaps = list(_gaps(int(pool[0]), int(pool[-1]), sorted(used)))
        for low, high in reversed(gaps) if from_end else gaps:
            start = (high + 1) // size * size - size if from_end else -(-low // size) * size
            if low <= start and start + size - 1 <= high:
                found = ipaddress.IPv4Network((start, prefix))
                return Subnet(cidr=str(found), gateway=str(found[1]))
    return None


def _gaps(low: int, high: int, used: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges from *low* to *high* that are in none of *used*, which are sorted; bounds are inside."""
    for first, last in used:
        if last < low:
            continue
        if first > high:
            break
        if first > low:
            yield low, first - 1
        low = last + 1
    if low <= high:
        yield low, high


def host_addresses(subnet: Subnet, *, from_end: bool = False) -> Iterator[str]:
    """The addresses of *subnet* that hosts can have, in their order or from the last one: those of its range but for the
    gateway, which is the first if it has none, what is reserved, and the network's own and broadcast addresses."""
    whole, span = ipaddress.ip_network(subnet.cidr), ipaddress.ip_network(subnet.ip_range or subnet.cidr)
    kept_off = {subnet.gateway or str(whole[min(1, whole.num_addresses - 1)]), *subnet.reserved, str(whole[0])}
    if whole.version == 4:
        kept_off.add(str(whole[-1]))
    for offset in range(span.num_addresses):
        address = str(span[-1 - offset if from_end else offset])
        if address not in kept_off:
            yield address
