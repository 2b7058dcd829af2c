"""The chains of the firewall, each by itself. No root."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from netplugins import chains
from netplugins.driver import FirewallPolicy, LoadBalancer, Nodes, PortMapping, WireguardDevice
from netplugins.script import Script

NETWORK = FirewallPolicy(link="psb1", subnets=("10.1.0.0/24",), internal=False)
replace = msgspec.structs.replace
TUNNEL = WireguardDevice(name="pswg", private_key="/k", address="fd70::1", port=1, mtu=1400)


def chain(script: Script, name: str) -> list[str]:
    """The rules of chain *name*."""
    start = script.lines.index(f"  chain {name} {{")
    return [line.strip() for line in script.lines[start + 1 : script.lines.index("  }", start)]]


def rules(add: Callable[[Script], object], name: str) -> list[str]:
    script = Script()
    add(script)
    return chain(script, name)


def port(host_ip: str, protocol: str = "tcp", ipv6: str = "fd00::2") -> PortMapping:
    return PortMapping(endpoint="e", host_ip=host_ip, port=8080, protocol=protocol, ipv4="10.1.0.2", ipv6=ipv6, target=80)


PORTS = {
    "every address": (port(""), {"tcp4_any": "8080 : 10.1.0.2 . 80", "tcp6_any": "8080 : fd00::2 . 80"}),
    "every IPv4 address": (port("0.0.0.0"), {"tcp4_any": "8080 : 10.1.0.2 . 80"}),
    "every IPv6 address": (port("::"), {"tcp6_any": "8080 : fd00::2 . 80"}),
    "one IPv4 address": (port("192.0.2.1", "udp"), {"udp4_exact": "192.0.2.1 . 8080 : 10.1.0.2 . 80"}),
    "one IPv6 address": (port("2001:db8::1"), {"tcp6_exact": "2001:db8::1 . 8080 : fd00::2 . 80"}),
    "a container with IPv4 only": (port("", ipv6=""), {"tcp4_any": "8080 : 10.1.0.2 . 80"}),
    "an address of the family that the container has not": (port("::", ipv6=""), {}),
}


@pytest.mark.parametrize(("mapping", "expected"), PORTS.values(), ids=PORTS)
def test_a_published_port_is_an_element_of_a_map(mapping: PortMapping, expected: dict[str, str]) -> None:
    script = Script()
    found = chains.declare_published(script, [mapping])
    assert {name: next(iter(parts[0])) for name, parts in script.elements.items()} == expected
    assert [rule.rpartition("@")[2] for rule in found] == list(expected)


SOURCE_NAT = {
    "a network": (NETWORK, ['oifname "psb1" ct status dnat masquerade', 'oifname != "psb1" masquerade']),
    "an internal network": (replace(NETWORK, internal=True), ['oifname "psb1" ct status dnat masquerade']),
    "a network without masquerade": (
        replace(NETWORK, masquerade=False),
        ['oifname "psb1" ct status dnat masquerade'],
    ),
    "a service's pool": (
        replace(NETWORK, internal=True, services=("10.1.0.128/25", "fd00::/64")),
        [
            'oifname "psb1" ct status dnat ct original ip daddr 10.1.0.128/25 ip saddr . ip daddr @self4 masquerade',
            'oifname "psb1" ct status dnat ct original ip daddr 10.1.0.128/25 accept',
            'oifname "psb1" ct status dnat masquerade',
        ],
    ),
}


@pytest.mark.parametrize(("network", "expected"), SOURCE_NAT.values(), ids=SOURCE_NAT)
def test_source_nat(network: FirewallPolicy, expected: list[str]) -> None:
    found = rules(lambda s: chains.add_source_nat(s, [network]), "postrouting")
    assert found[1:] == [f"ip saddr 10.1.0.0/24 {rule}" for rule in expected]


def test_a_connection_to_another_node_comes_back_to_this_one() -> None:
    network = replace(NETWORK, own=("10.1.0.9",), internal=True)
    found = rules(lambda s: chains.add_source_nat(s, [network]), "postrouting")
    assert found[1] == ('ip saddr != 10.1.0.0/24 oifname "psb1" ct status dnat ip daddr != @local4 snat ip to 10.1.0.9')


TO_NETWORK = {
    "a network": (NETWORK, ['iifname "psb1" accept', "ct status dnat accept"]),
    "an internal one": (replace(NETWORK, internal=True), ['iifname "psb1" accept']),
    "one without icc": (
        replace(NETWORK, icc=False),
        ['iifname "psb1" ct status != dnat drop', 'iifname "psb1" accept', "ct status dnat accept"],
    ),
}


@pytest.mark.parametrize(("network", "expected"), TO_NETWORK.values(), ids=TO_NETWORK)
def test_what_reaches_a_network(network: FirewallPolicy, expected: list[str]) -> None:
    found = rules(lambda s: chains.add_network(s, network), "to_psb1")
    assert found == ["ct state established,related accept", *expected, "drop"]


def test_containers_reach_only_opened_ports_of_nodes() -> None:
    script = Script()
    balanced = [LoadBalancer(version=4, address="", ports=((443, "tcp", 80),), backends=("10.1.0.2",))]
    nodes = Nodes(
        addresses=frozenset({"10.9.0.2", "fd09::2"}),
        doors=frozenset({("10.9.0.2", "tcp", 80)}),
        opened=frozenset({("udp", 53)}),
    )
    chains.add_node_access(script, [port(""), port("192.0.2.1", "udp")], balanced, nodes)
    assert script.elements["open_everywhere"] == (frozenset({"tcp . 443", "udp . 53"}),)
    assert script.elements["open_here"] == (frozenset({"tcp . 8080"}),)
    assert script.elements["doors4"] == (frozenset({"10.9.0.2 . tcp . 80"}),)
    assert script.elements["doors6"] == (frozenset(),)
    assert script.elements["nodes6"] == (frozenset({"fd09::2"}),)
    for name in ("from_containers", "to_node"):
        found = chain(script, name)
        assert found[0] == "udp dport 4789 drop"
        assert found[-1] == "reject with icmpx admin-prohibited"


def test_containers_send_vxlan_to_no_port_that_it_has_in_the_cluster() -> None:
    script = Script()
    chains.add_node_access(script, [], [], Nodes(addresses=frozenset({"10.9.0.2"}), vxlan_ports=frozenset({4790})))
    assert {chain(script, name)[0] for name in ("from_containers", "to_node")} == {"udp dport { 4789, 4790 } drop"}


def test_without_other_nodes_there_is_no_way_to_them() -> None:
    script = Script()
    chains.add_node_access(script, [], [], Nodes())
    assert [line for line in script.lines if "chain" in line] == ["  chain from_containers {"]
    forward = rules(lambda s: chains.add_forward(s, [NETWORK], Nodes()), "forward")
    assert forward[1:] == ['oifname vmap { "psb1" : jump to_psb1 }']


INPUT: dict[str, tuple[Nodes, list[str]]] = {
    "no overlay": (Nodes(), []),
    "peers": (
        Nodes(peers=frozenset({"10.9.0.2"})),
        ["udp dport 4789 ip saddr != @peers4 drop", "udp dport 4789 ip6 saddr != @peers6 drop"],
    ),
    "a tunnel": (
        Nodes(peers=frozenset(), tunnel=TUNNEL),
        [
            'udp dport 4789 ip6 daddr fd70::1 iifname != "pswg" drop',
            'iifname "pswg" udp dport 4789 accept',
            'iifname "pswg" meta l4proto != ipv6-icmp drop',
            "udp dport 4789 ip saddr != @peers4 drop",
            "udp dport 4789 ip6 saddr != @peers6 drop",
        ],
    ),
    "two ports": (
        Nodes(peers=frozenset(), vxlan_ports=frozenset({4789, 4790})),
        ["udp dport { 4789, 4790 } ip saddr != @peers4 drop", "udp dport { 4789, 4790 } ip6 saddr != @peers6 drop"],
    ),
    "another port, and the usual one is others'": (
        Nodes(peers=frozenset(), vxlan_ports=frozenset({4790})),
        ["udp dport 4790 ip saddr != @peers4 drop", "udp dport 4790 ip6 saddr != @peers6 drop"],
    ),
}


@pytest.mark.parametrize(("nodes", "expected"), INPUT.values(), ids=INPUT)
def test_only_peers_send_vxlan(nodes: Nodes, expected: list[str]) -> None:
    found = rules(lambda s: chains.add_input(s, [NETWORK], nodes), "input")
    assert found[1:] == [*expected, 'iifname { "psb1" } jump from_containers']


def test_loopback_is_never_translated() -> None:
    found = rules(lambda s: chains.add_destination_nat(s, ["SERVICE"], []), "output")
    assert found[1:3] == ["ip daddr 127.0.0.0/8 return", "ip6 daddr ::1 return"]
    assert found[3:] == ["SERVICE", "fib daddr type local jump published"]
