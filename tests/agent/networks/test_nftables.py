"""What of services' addresses and ports goes to the firewall, and where a ruleset sends connections."""

from __future__ import annotations

from agent.contract.cluster import ServiceAddress
from agent.contract.container import Port
from agent.contract.network import AddressAssignment
from agent.engine.networks import nftables
from netplugins.conntrack import Targets
from netplugins.driver import LoadBalancer, PortMapping

BOTH = tuple(AddressAssignment(name=f"t{n}", ipv4=f"10.1.0.{n}", ipv6=f"fd01::{n}") for n in (1, 2))
FOUR = AddressAssignment(name="t3", ipv4="10.1.0.3")
PORTS = (Port(target=80, published=8080),)


def service(*, weights: tuple[int, ...] = (), ipv6: str = "fd02::1", ports: tuple[Port, ...] = PORTS) -> ServiceAddress:
    return ServiceAddress(
        service="s/web", network="net", ipv4="10.2.0.1", ipv6=ipv6, ports=ports, backends=(*BOTH, FOUR), weights=weights
    )


def test_each_address_leads_to_the_backends_of_its_version() -> None:
    assert [(b.version, b.address, b.backends, b.weights) for b in nftables.vip_backends(service(weights=(1, 2, 3)))] == [
        (4, "10.2.0.1", ("10.1.0.1", "10.1.0.2", "10.1.0.3"), (1, 2, 3)),
        (6, "fd02::1", ("fd01::1", "fd01::2"), (1, 2)),
    ]
    assert [b.version for b in nftables.vip_backends(service(ipv6=""))] == [4]


def test_ports_lead_to_near_backends_first() -> None:
    def backends(near: set[str], weights: tuple[int, ...] = ()) -> list[tuple[str, ...]]:
        return [b.backends for b in nftables.port_backends(service(weights=weights), frozenset(near))]

    assert backends({"10.1.0.2", "10.1.0.9"}) == [("10.1.0.2",), ("fd01::1", "fd01::2")]
    assert backends(set()) == [("10.1.0.1", "10.1.0.2", "10.1.0.3"), ("fd01::1", "fd01::2")]
    assert backends({"10.1.0.2"}, (1, 2, 3)) == backends(set())  # the weights say who gets how many
    found = nftables.port_backends(service(), frozenset())
    assert [(b.address, b.ports) for b in found] == [("", ((8080, "tcp", 80),))] * 2


def test_a_service_without_backends_has_addresses_and_no_ports() -> None:
    empty = ServiceAddress(service="s/web", network="net", ipv4="10.2.0.1", ports=PORTS)
    assert [b.backends for b in nftables.vip_backends(empty)] == [()]
    assert nftables.port_backends(empty, frozenset()) == ()


def test_where_connections_go() -> None:
    published = [
        PortMapping(endpoint="e", host_ip=host, port=53, protocol="udp", ipv4=ipv4, ipv6="fd01::5", target=53)
        for host, ipv4 in (("", "10.1.0.5"), ("10.9.0.1", "10.1.0.6"), ("::", ""))
    ]
    balanced = [
        LoadBalancer(version=4, address="10.2.0.1", ports=(), backends=("10.1.0.1",)),
        LoadBalancer(version=4, address="", ports=((80, "tcp", 8080), (53, "udp", 53)), backends=("10.1.0.7",)),
    ]
    found = nftables.targets(published, balanced)
    assert found == Targets(
        {
            ("", 0): frozenset({"10.1.0.1"}),
            ("tcp", 80): frozenset({"10.1.0.7"}),
            ("udp", 53): frozenset({"10.1.0.5", "10.1.0.6", "fd01::5", "10.1.0.7"}),
        }
    )
