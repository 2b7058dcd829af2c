"""Subnets of networks made by hand, and addresses on them. Pure.

They are taken from the end of a pool: the control plane takes its own from the beginning (`orchestrator/addressing`)."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
from collections.abc import Collection, Iterable

import msgspec

from agent.contract import subnets
from agent.contract.network import Subnet
from agent.errors import AgentError, BadRequestError

SUBNET_PREFIX = 24
MAX_TRIED = 1 << 16
"""Of a larger subnet only the last addresses are given out."""


def validated(name: str, subnet: Subnet) -> Subnet:
    """*subnet* of the new network *name*, normalised and with its gateway. Raises BadRequestError."""
    try:
        net = ipaddress.ip_network(subnet.cidr, strict=False)
        gateway = ipaddress.ip_address(subnet.gateway) if subnet.gateway else net[1]
        within = ipaddress.ip_network(subnet.ip_range, strict=False) if subnet.ip_range else net
        reserved = [ipaddress.ip_address(r) for r in subnet.reserved]
    except (ValueError, IndexError) as error:
        raise BadRequestError(f"network {name}: {error}") from None
    outside = [str(a) for a in (gateway, within.network_address, *reserved) if a not in net]
    if outside or within.prefixlen < net.prefixlen:
        raise BadRequestError(f"network {name}: {', '.join(outside) or within} is not within {net}")
    return msgspec.structs.replace(subnet, cidr=str(net), gateway=str(gateway), ip_range=str(within) if subnet.ip_range else "")


def overlap(one: str, other: str) -> bool:
    """Whether two CIDRs share an address."""
    a, b = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return a.version == b.version and a.overlaps(b)


def free_subnet(pools: Iterable[str], taken: Iterable[str]) -> Subnet:
    """The last IPv4 /24 of *pools* that overlaps none of *taken* (CIDRs). Raises AgentError if none is left."""
    found = subnets.free_subnet(pools, taken, SUBNET_PREFIX, from_end=True)
    if found is None:
        raise AgentError("no free subnet is left in the address pools: add one to config.yml (address_pools)")
    return found


def unique_local_subnet(name: str) -> Subnet:
    """The IPv6 /64 of the network *name*, by its name where Docker takes one by chance. Source: RFC 4193."""
    prefix = ipaddress.IPv6Address(bytes([0xFD, *hashlib.sha256(name.encode()).digest()[:7], *bytes(8)]))
    return Subnet(cidr=f"{prefix}/64", gateway=str(prefix + 1))


def free_address(subnet: Subnet, used: Collection[str]) -> str:
    """The last address of *subnet* that is not in *used*. Raises AgentError if none is left."""
    for address in itertools.islice(subnets.host_addresses(subnet, from_end=True), MAX_TRIED):
        if address not in used:
            return address
    raise AgentError(f"subnet {subnet.cidr} has no free address left")
