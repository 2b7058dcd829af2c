"""Encrypted networks: who can carry them, who knows whom, and that nothing of them is described in the clear."""

from __future__ import annotations

import pytest

from agent.contract.container import Attachment, Container
from agent.contract.manifest import Manifest, apply_delta, diff
from agent.contract.status import NodeInfo
from netplugins.driver import FdbEntry, HostCapabilities, Network, Nodes, RemoteEndpoint, Vxlan, WireguardDevice
from netplugins.firewall import render
from netplugins.overlay import OverlayDriver
from netplugins.wireguard import address_of
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.explain import UnschedulableError, explain
from orchestrator.placement.node import Node
from orchestrator.planning.expand import expand
from orchestrator.planning.manifests import Manifests
from orchestrator.planning.state import State
from orchestrator.stackfile.model import Service, Stack, StackNetwork

KEYS = {n: "=".rjust(44, n) for n in "123"}


def node(number: str, *features: str) -> Node:
    info = NodeInfo(hostname=f"n{number}", cpus=4, memory=1 << 33, features=features, tunnel_key=KEYS[number])
    return Node(name=f"n{number}", id=number, underlay=f"10.9.0.{number}", info=info)


STACK = Stack(
    name="s",
    services=(
        Service(name="w", replicas=4, where="f:1", container=Container(image="x", attachments=(Attachment(network="s_net"),))),
    ),
    networks=(StackNetwork(key="net", name="s_net", driver="overlay", options=(("encrypted", ""),)),),
)


def context(*nodes: Node) -> PlacementContext:
    return PlacementContext(nodes=nodes, ready=frozenset(n.name for n in nodes), local="n1")


def test_only_nodes_with_wireguard_carry_it() -> None:
    nodes = (node("1", "wireguard"), node("2"), node("3", "wireguard"))
    state = expand(STACK, State(), context=context(*nodes))
    assert {t.node for t in state.tasks} == {"n1", "n3"}
    why = explain(STACK, "w", "", (), context(*nodes))
    said = [r.detail for c in why.candidates if c.node == "n2" for r in c.reasons if r.filter == "encryption"]
    assert said == ["network s_net needs WireGuard: it is neither in the kernel nor is wireguard-go installed"]
    with pytest.raises(UnschedulableError, match="needs WireGuard"):
        expand(STACK, State(), context=context(node("1"), node("2")))


def test_on_a_node_that_is_alone_nothing_is_asked_for() -> None:
    assert len(expand(STACK, State(), context=context(node("1"))).tasks) == 4


def test_those_who_carry_it_know_each_other() -> None:
    nodes = tuple(node(n, "wireguard") for n in "123")
    state = expand(STACK, State(), context=context(nodes[0], nodes[1]))
    networks = {n.name: n for n in state.networks}

    def of(name: str) -> Manifest:
        return Manifests(nodes, 1, networks, {}, state.tasks, ()).of(name)

    assert [(t.name, t.underlay, t.key) for t in of("n1").tunnels] == [("n2", "10.9.0.2", KEYS["2"])]
    assert of("n3").tunnels == ()
    assert apply_delta(of("n1"), diff(of("n1"), of("n1"))) == of("n1")


def test_addresses_follow_from_keys() -> None:
    assert len({address_of(k) for k in KEYS.values()}) == 3
    assert all(address_of(k).startswith("fd70:7973:7461:636b:") for k in KEYS.values())


def test_what_is_described_stays_in_the_tunnel() -> None:
    tunnel = WireguardDevice(name="pswg", private_key="/k", address=address_of(KEYS["1"]), port=51871, mtu=1440)
    remotes = (
        RemoteEndpoint(underlay=address_of(KEYS["2"]), ipv4="172.18.0.9"),
        RemoteEndpoint(underlay="", ipv4="172.18.0.10"),
    )
    network = Network(
        name="n", link="psb1", driver="overlay", vni=4096, underlay=tunnel.address, remotes=remotes, tunnel=tunnel
    )
    missing = OverlayDriver().missing(network, HostCapabilities(features=frozenset({"bridge", "vxlan"})))
    assert len(missing) == 1
    assert "WireGuard" in missing[0]
    description = OverlayDriver().desired_state(network, (), HostCapabilities(mtu=1500))
    assert description.firewall
    (vxlan,) = (o for o in description.objects if isinstance(o, Vxlan))
    assert (vxlan.local, vxlan.mtu) == (tunnel.address, 1370)
    assert tunnel in description.objects
    assert description.fdb == frozenset(
        {
            FdbEntry(
                bridge="psb1",
                vxlan=vxlan.name,
                mac="02:42:ac:12:00:09",
                underlay=address_of(KEYS["2"]),
                addresses=("172.18.0.9",),
            )
        }
    )
    rules = render("t", [description.firewall], [], nodes=Nodes(peers=frozenset({"10.9.0.2"}), tunnel=tunnel)).whole(1)
    assert f'udp dport 4789 ip6 daddr {tunnel.address} iifname != "pswg" drop' in rules
