"""Allocates subnets to networks and addresses to tasks. Pure: an allocation stays, a new one is the first that is free."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from agent.contract.container import Attachment
from agent.contract.network import AddressAssignment, Network, Subnet
from agent.contract.subnets import free_subnet, host_addresses
from agent.contract.task import Task
from orchestrator.errors import PystackError

POOLS = ("172.18.0.0/15", "172.20.0.0/14", "172.24.0.0/13", "192.168.0.0/16")
SUBNET_PREFIX = 24
SERVICES4 = ipaddress.IPv4Network("198.18.0.0/15")
SERVICES6 = ipaddress.IPv6Network("fd70:7974::/32")
VNI_FROM = 4097  # those below are often set by hand
ULA = ipaddress.IPv6Network("fd70:7973::/32")


class PoolExhaustedError(PystackError):
    """No subnet or address is left; the message says in which pool."""


def subnets(
    wanted: Sequence[Subnet],
    *,
    ipv6: bool,
    taken: Iterable[str],
    name: str,
    pools: Sequence[str] = POOLS,
    reserved: Iterable[str] = (),
    endpoints: int = 0,
) -> tuple[Subnet, ...]:
    """The subnets of the network *name*: those *wanted*, or a free one of *pools* (and a ULA /64 with *ipv6*): a /24, or one
    with twice as many addresses as *endpoints*.

    *taken* are CIDRs of other networks, *reserved* those of the host. Raises PoolExhaustedError,
    or PystackError for an overlap."""
    others = [ipaddress.ip_network(c) for c in taken]
    out = list(wanted)
    for subnet in out:
        clash = next((o for o in others if o.overlaps(ipaddress.ip_network(subnet.cidr))), None)
        if clash:
            raise PystackError(f"network {name}: subnet {subnet.cidr} overlaps {clash} of another network")
    avoid = others + [ipaddress.ip_network(c) for c in reserved]
    versions = {ipaddress.ip_network(s.cidr).version for s in out}
    if 4 not in versions:
        found = free_subnet(pools, map(str, avoid), prefix_for(endpoints))
        if found is None:
            raise PoolExhaustedError(
                f"network {name}: the address pools {', '.join(pools)} are used up: free a network or add a pool"
            )
        out.insert(0, found)
    if ipv6 and 6 not in versions:
        used = {o for o in avoid if o.version == 6}
        free = next((n for n in ULA.subnets(new_prefix=64) if not any(n.overlaps(u) for u in used)), None)
        if free is None:
            raise PoolExhaustedError(f"network {name}: no IPv6 subnet is left")
        out.append(Subnet(cidr=str(free), gateway=str(free[1])))
    return tuple(out)


def prefix_for(addresses: int) -> int:
    """The prefix length of a subnet with twice as many *addresses*: a /24 or larger, up to a /15."""
    return max(15, min(SUBNET_PREFIX, 32 - (2 * addresses + 2).bit_length()))


def service_pools(taken: Iterable[str], *, ipv6: bool, name: str, services: int = 0) -> tuple[str, ...]:
    """The pools of service addresses of the network *name*, one for each family, large enough for *services*. *taken* are
    those of other networks.

    They are outside the network's subnet, so that packets to them go to the gateway, without tricks with ARP. 198.18.0.0/15 is
    reserved for benchmarks (RFC 2544): no network uses it. Raises PoolExhaustedError."""
    used = [ipaddress.ip_network(c) for c in taken]
    out = []
    for pool in (SERVICES4, SERVICES6) if ipv6 else (SERVICES4,):
        candidates = pool.subnets(new_prefix=prefix_for(services) if pool.version == 4 else 64)
        found = next((str(n) for n in candidates if not any(n.overlaps(u) for u in used if u.version == n.version)), "")
        if not found:
            raise PoolExhaustedError(f"network {name}: no pool of service addresses is left in {pool}")
        out.append(found)
    return tuple(out)


def vips(
    services: Sequence[str], old: Sequence[AddressAssignment], pools: Sequence[str], name: str
) -> tuple[AddressAssignment, ...]:
    """An address in each of *pools* for each of *services*; those in *old* stay. Raises PoolExhaustedError."""
    known = {h.name: h for h in old}
    used = {a for h in old for a in (h.ipv4, h.ipv6)}
    out = []
    for service in services:
        if service in known:
            out.append(known[service])
            continue
        fields: dict[str, str] = {}
        for pool in map(ipaddress.ip_network, pools):
            last = min(pool.num_addresses - 1, 1 << 16)
            free = next((a for i in range(1, last) if (a := str(pool[i])) not in used), "")
            if not free:
                raise PoolExhaustedError(f"network {name}: the pool of service addresses {pool} is used up")
            used.add(free)
            fields["ipv4" if pool.version == 4 else "ipv6"] = free
        out.append(AddressAssignment(name=service, **fields))
    return tuple(out)


def free_vni(taken: Iterable[int]) -> int:
    """The first VXLAN network identifier that no network has (RFC 7348: 24 bits). Raises PoolExhaustedError."""
    used = set(taken)
    found = next((n for n in range(VNI_FROM, 1 << 24) if n not in used), 0)
    if not found:
        raise PoolExhaustedError("no VXLAN network identifier is left")
    return found


class Addresses:
    """Free addresses of networks, as they are given out. Static ones are reserved before any is chosen."""

    def __init__(self, networks: Mapping[str, Network], reserved: Iterable[tuple[str, str]]) -> None:
        self._networks = networks
        self._used: dict[str, set[str]] = {}
        self._candidates: dict[tuple[str, str], Iterator[str]] = {}
        for network, address in reserved:
            if address:
                self._used.setdefault(network, set()).add(address)

    def fill(self, attachment: Attachment, kept: Attachment | None) -> Attachment:
        """*attachment* with an address in each of its network's families: its own, the one it had, or a free one."""
        network = self._networks.get(attachment.network)
        if network is None:  # an external one that does not exist yet: no task on it starts
            return attachment
        values: dict[str, str] = {}
        families: dict[str, list[Subnet]] = {}
        for subnet in network.subnets:
            families.setdefault("ipv6" if ":" in subnet.cidr else "ipv4", []).append(subnet)
        for field, pools in families.items():
            asked, had = getattr(attachment, field), getattr(kept, field) if kept else ""
            if asked and not _inside(asked, pools):
                there = ", ".join(p.cidr for p in pools)
                raise PystackError(f"address {asked} is not in {there}, the subnet of network {network.name}")
            values[field] = asked or (had if _inside(had, pools) else self._first_free(network.name, pools))
        return msgspec.structs.replace(attachment, **values)

    def _first_free(self, name: str, pools: Sequence[Subnet]) -> str:
        """From the first pool that has one left."""
        for number, pool in enumerate(pools):
            try:
                return self._free(name, pool)
            except PoolExhaustedError:
                if number == len(pools) - 1:
                    raise
        raise AssertionError("a family has a pool")

    def _free(self, name: str, subnet: Subnet) -> str:
        used = self._used.setdefault(name, set())
        candidates = self._candidates.setdefault((name, subnet.cidr), host_addresses(subnet))
        for candidate in candidates:
            if candidate not in used:
                used.add(candidate)
                return candidate
        raise PoolExhaustedError(
            f"subnet {subnet.ip_range or subnet.cidr} of network {name} has no free address left: give it a larger one "
            "(networks: … ipam: config: [{subnet: 172.20.0.0/16}]) and bring the stack down and up"
        )

    def host(self, network: Network, node: str) -> AddressAssignment:
        """The address of *node* itself on *network*: the one it had, or a free one."""
        known = next((h for h in network.hosts if h.name == node), None)
        fields: dict[str, str] = {}
        for subnet in network.subnets:
            field = "ipv6" if ":" in subnet.cidr else "ipv4"
            had = getattr(known, field) if known else ""
            fields[field] = had or self._free(network.name, subnet)
        return AddressAssignment(name=node, **fields)


def _inside(address: str, pools: Sequence[Subnet]) -> bool:
    return bool(address) and any(ipaddress.ip_address(address) in ipaddress.ip_network(p.cidr) for p in pools)


def held(tasks: Iterable[Task]) -> list[tuple[str, str]]:
    """(network, address) of everything that *tasks* hold."""
    return [(a.network, address) for t in tasks for a in t.container.attachments for address in (a.ipv4, a.ipv6)]


def held_by_hosts(networks: Iterable[Network]) -> list[tuple[str, str]]:
    """(network, address) of everything that nodes themselves hold on *networks*."""
    return [(n.name, address) for n in networks for h in n.hosts for address in (h.ipv4, h.ipv6)]
