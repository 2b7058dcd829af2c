"""Subnets, addresses and VNIs: an allocation stays, a new one is the first that is free."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.container import Attachment
from agent.contract.network import AddressAssignment, Network, Subnet
from orchestrator.addressing.allocate import (
    VNI_FROM,
    Addresses,
    PoolExhaustedError,
    free_vni,
    prefix_for,
    service_pools,
    subnets,
    vips,
)
from orchestrator.errors import PystackError

NET = Network(name="net", subnets=(Subnet(cidr="10.0.0.0/29", gateway="10.0.0.1"),))


def test_a_network_gets_the_first_free_subnet() -> None:
    [first] = subnets((), ipv6=False, taken=(), name="a")
    assert first == Subnet(cidr="172.18.0.0/24", gateway="172.18.0.1")
    [second] = subnets((), ipv6=False, taken=[first.cidr], reserved=["172.18.1.0/24"], name="b")
    assert second.cidr == "172.18.2.0/24"


def test_a_network_gets_a_ula_beside_its_subnet() -> None:
    four, six = subnets((), ipv6=True, taken=["fd70:7973::/64"], name="a")
    assert (four.cidr, six.cidr) == ("172.18.0.0/24", "fd70:7973:0:1::/64")


def test_a_subnet_of_another_network_is_refused() -> None:
    with pytest.raises(PystackError, match=r"network a: subnet 10\.0\.0\.0/24 overlaps 10\.0\.0\.0/8 of another network"):
        subnets([Subnet(cidr="10.0.0.0/24")], ipv6=False, taken=["10.0.0.0/8"], name="a")


def test_pools_that_are_used_up() -> None:
    with pytest.raises(PoolExhaustedError, match=r"the address pools 10\.0\.0\.0/24 are used up"):
        subnets((), ipv6=False, taken=["10.0.0.0/24"], pools=["10.0.0.0/24"], name="a")


@given(st.sets(st.integers(0, 30)))
def test_a_free_subnet_overlaps_none_that_is_taken(numbers: set[int]) -> None:
    taken = [f"172.18.{n}.0/24" for n in numbers]
    [found] = subnets((), ipv6=False, taken=taken, name="a")
    assert not any(ipaddress.ip_network(found.cidr).overlaps(ipaddress.ip_network(t)) for t in taken)
    assert found.cidr == f"172.18.{min(set(range(32)) - numbers)}.0/24"


@pytest.mark.parametrize(("addresses", "prefix"), [(0, 24), (126, 24), (127, 23), (1000, 21), (1 << 20, 15)])
def test_the_size_of_a_subnet(addresses: int, prefix: int) -> None:
    assert prefix_for(addresses) == prefix


def test_addresses_are_static_kept_or_the_first_free() -> None:
    given_out = Addresses({"net": NET}, [("net", "10.0.0.2")])
    assert given_out.fill(Attachment(network="net", ipv4="10.0.0.6"), None).ipv4 == "10.0.0.6"
    assert given_out.fill(Attachment(network="net"), Attachment(network="net", ipv4="10.0.0.2")).ipv4 == "10.0.0.2"
    assert given_out.fill(Attachment(network="net"), None).ipv4 == "10.0.0.3"
    moved = Attachment(network="net", ipv4="192.168.0.9")  # of the subnet that the network had before
    assert given_out.fill(Attachment(network="net"), moved).ipv4 == "10.0.0.4"


def test_an_address_outside_the_subnet_is_refused() -> None:
    with pytest.raises(PystackError, match=r"address 10\.0\.1\.2 is not in 10\.0\.0\.0/29, the subnet of network net"):
        Addresses({"net": NET}, ()).fill(Attachment(network="net", ipv4="10.0.1.2"), None)


def test_a_subnet_that_is_full() -> None:
    given_out = Addresses({"net": NET}, ())
    found = [given_out.fill(Attachment(network="net"), None).ipv4 for _ in range(5)]
    assert found == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(PoolExhaustedError, match="has no free address left"):
        given_out.fill(Attachment(network="net"), None)


def test_service_addresses_are_outside_all_others_and_stay() -> None:
    assert service_pools(["198.18.0.0/24"], ipv6=True, name="a") == ("198.18.1.0/24", "fd70:7974::/64")
    old = [AddressAssignment(name="db", ipv4="198.18.0.2")]
    assert vips(["web", "db", "api"], old, ["198.18.0.0/24"], "a") == (
        AddressAssignment(name="web", ipv4="198.18.0.1"),
        AddressAssignment(name="db", ipv4="198.18.0.2"),
        AddressAssignment(name="api", ipv4="198.18.0.3"),
    )
    with pytest.raises(PoolExhaustedError):
        vips(["a", "b", "c"], (), ["198.18.0.0/30"], "a")


def test_the_first_free_vni() -> None:
    assert free_vni([VNI_FROM, VNI_FROM + 2]) == VNI_FROM + 1
