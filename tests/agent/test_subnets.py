"""Free subnets and addresses, against all that there are."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.network import Subnet
from agent.contract.subnets import free_subnet, host_addresses

POOL = ipaddress.IPv4Network("10.0.0.0/24")
TAKEN = st.lists(
    st.builds(
        lambda prefix, at: list(POOL.subnets(new_prefix=prefix))[at % 2 ** (prefix - 24)], st.integers(24, 30), st.integers()
    ),
    max_size=6,
)


@given(TAKEN, st.integers(24, 30), st.booleans())
def test_the_free_subnet_is_the_first_or_the_last_of_all_that_are_free(
    taken: list[ipaddress.IPv4Network], prefix: int, from_end: bool
) -> None:
    free = [str(n) for n in POOL.subnets(new_prefix=prefix) if not any(n.overlaps(t) for t in taken)]
    found = free_subnet(["fd00::/48", str(POOL)], ["fd00::/64", *map(str, taken)], prefix, from_end=from_end)
    assert (found.cidr if found else "") == (free[-1 if from_end else 0] if free else "")
    if found:
        assert ipaddress.ip_address(found.gateway) == ipaddress.ip_network(found.cidr)[1]


def test_the_first_pool_that_has_room_is_used() -> None:
    found = free_subnet(["10.0.0.0/25", "10.1.0.0/24"], [], 24)
    assert found
    assert found.cidr == "10.1.0.0/24"


ADDRESSES = {
    "the gateway is the first without one": (Subnet(cidr="10.0.0.0/29"), "2 3 4 5 6"),
    "a gateway of its own frees the first": (Subnet(cidr="10.0.0.0/29", gateway="10.0.0.6"), "1 2 3 4 5"),
    "a range, and what is reserved": (Subnet(cidr="10.0.0.0/24", ip_range="10.0.0.8/30", reserved=("10.0.0.9",)), "8 10 11"),
    "the end of the subnet is not a host's": (Subnet(cidr="10.0.0.0/24", ip_range="10.0.0.252/30"), "252 253 254"),
}


@pytest.mark.parametrize(("subnet", "wanted"), ADDRESSES.values(), ids=ADDRESSES)
def test_addresses_of_hosts(subnet: Subnet, wanted: str) -> None:
    found = [f"10.0.0.{n}" for n in wanted.split()]
    assert list(host_addresses(subnet)) == found
    assert list(host_addresses(subnet, from_end=True)) == found[::-1]


def test_addresses_of_a_large_subnet_are_not_listed_before_they_are_asked_for() -> None:
    subnet = Subnet(cidr="fd00::/64", gateway="fd00::1")
    assert next(host_addresses(subnet)) == "fd00::2"
    assert next(host_addresses(subnet, from_end=True)) == "fd00::ffff:ffff:ffff:ffff"
