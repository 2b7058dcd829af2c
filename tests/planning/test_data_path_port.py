"""The UDP port of overlays: new ones get what is set, and each keeps its own for as long as it exists."""

from __future__ import annotations

import msgspec
import pytest

from agent.contract.container import Attachment, Container
from agent.contract.network import Network
from agent.settings import Settings
from netplugins import driver
from netplugins.driver import HostCapabilities, Vxlan
from netplugins.overlay import OverlayDriver
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.planning.expand import Existing, expand
from orchestrator.planning.manifests import Manifests
from orchestrator.planning.state import State
from orchestrator.stackfile.model import Service, Stack, StackNetwork

NODES = tuple(Node(name=f"n{n}", id=f"{n}", underlay=f"10.9.0.{n}") for n in (1, 2))
CONTEXT = PlacementContext(nodes=NODES, ready=frozenset({"n1", "n2"}), local="n1")


def stack(*networks: str) -> Stack:
    own = tuple(StackNetwork(key=n, name=f"s_{n}") for n in networks)
    container = Container(image="x", attachments=tuple(Attachment(network=n.name) for n in own))
    return Stack(name="s", services=(Service(name="w", where="f:1", replicas=2, container=container),), networks=own)


def ports(state: State) -> dict[str, int]:
    return {n.key: n.vxlan_port for n in state.networks}


def test_what_exists_keeps_its_port_and_what_is_new_gets_the_one_that_is_set() -> None:
    first = expand(stack("old"), State(), context=CONTEXT)
    assert ports(first) == {"old": 4789}
    second = expand(stack("old", "new"), first, existing=Existing(vxlan_port=4790), context=CONTEXT)
    assert ports(second) == {"old": 4789, "new": 4790}
    back = expand(stack("old", "new"), second, context=CONTEXT)
    assert back.networks == second.networks


def test_a_bridge_has_none() -> None:
    alone = PlacementContext(nodes=NODES[:1], ready=frozenset({"n1"}), local="n1")
    made = expand(stack("net"), State(), existing=Existing(vxlan_port=4790), context=alone)
    assert made.networks[0].driver == "bridge"
    assert ports(made) == {"net": 4789}
    wider = expand(stack("net"), made, existing=Existing(vxlan_port=4790), context=CONTEXT)  # a second node has come
    assert ports(wider) == {"net": 4790}


def test_each_node_knows_the_ports_of_all_others() -> None:
    made = expand(stack("old"), State(), existing=Existing(vxlan_port=4790), context=CONTEXT)
    networks = {n.name: n for n in made.networks}
    found = Manifests(NODES, 1, networks, {}, made.tasks, [set()])
    assert {n.name: n.vxlan_ports for n in found.of("n1").nodes} == {"n1": (4790,), "n2": (4790,)}
    usual = {n: msgspec.structs.replace(one, vxlan_port=4789) for n, one in networks.items()}
    assert {n.vxlan_ports for n in Manifests(NODES, 1, usual, {}, made.tasks, [set()]).of("n1").nodes} == {()}


def test_the_device_sends_to_it() -> None:
    wide = driver.Network(
        name="w", link="psb1", driver="overlay", subnets=(driver.Subnet("10.1.0.0/24", "10.1.0.1"),), vni=7, vxlan_port=4790,
        underlay="10.9.0.1",
    )  # fmt: skip
    found = OverlayDriver().desired_state(wide, (), HostCapabilities())
    assert [o.port for o in found.objects if isinstance(o, Vxlan)] == [4790]


def test_an_older_record_has_the_usual_port() -> None:
    assert msgspec.json.decode(b'{"name": "w", "driver": "overlay", "vni": 7}', type=Network).vxlan_port == 4789


@pytest.mark.parametrize("port", [0, 80, 1023, 49152, 65536])
def test_a_port_of_the_systems_or_of_clients_is_refused(port: int) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"data_path_port {port}: a UDP port from 1024 to 49151"):
        msgspec.convert({"data_path_port": port}, Settings)
