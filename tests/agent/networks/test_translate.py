"""What follows from networks and endpoints, without a kernel."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agent.contract.cluster import ClusterNode, OpenPort, RemoteEndpoint, ServiceAddress, TunnelPeer
from agent.contract.container import Container, Port
from agent.contract.manifest import Manifest
from agent.contract.network import AddressAssignment, Network, Subnet
from agent.contract.status import PublishedPort
from agent.engine.networks.translate import Desired, Snapshot, TunnelKeys, translate
from agent.engine.networks.views import EndpointCache
from agent.engine.records import Endpoint, Record
from agent.errors import AgentError, ConflictError
from netplugins import wireguard
from netplugins.bridge import BridgeDriver
from netplugins.driver import HostCapabilities, Veth, WireguardDevice
from netplugins.overlay import OverlayDriver
from netplugins.resolver.table import Forward

NOTHING = Manifest()
NET = Network(name="n", subnets=(Subnet(cidr="10.1.0.0/24"),))
WIDE = Network(name="w", driver="overlay", subnets=(Subnet(cidr="10.2.0.0/24"),), vni=4097)
SECRET = Network(name="x", driver="overlay", subnets=(Subnet(cidr="10.3.0.0/24"),), vni=4098, options=(("encrypted", ""),))
FEATURES = frozenset({"bridge", "veth", "vxlan", "wireguard"})
KEY = base64.b64encode(bytes(32)).decode()
FAR_KEY = base64.b64encode(bytes([1] * 32)).decode()


def published_at(port: int, host_ip: str = "") -> PublishedPort:
    return PublishedPort(target=80, published=port, protocol="tcp", host_ip=host_ip)


def record(name: str, network: str, ipv4: str, *ports: PublishedPort, task: str = "") -> Record:
    return Record(
        id=name.ljust(64, "0"),
        name=name,
        container=Container(image="x"),
        created="",
        task=task,
        stack="s" if task else "",
        service="web" if task else "",
        endpoints=[Endpoint(network=network, ipv4=ipv4, default=True)],
        ports=list(ports),
    )


def desired(networks: Sequence[Network], records: Sequence[Record] = (), manifest: Manifest = NOTHING, **other: Any) -> Desired:
    cache = EndpointCache()
    given: dict[str, Any] = {
        "networks": {n.name: n for n in networks},
        "links": {n.name: f"psb{n.name}" for n in networks},
        "records": tuple(records),
        "views": {r.id: cache.of(r, f"/ns/{r.name}") for r in records},
        "manifest": manifest,
        "host": HostCapabilities(mtu=1500, features=FEATURES),
        "drivers": {"bridge": BridgeDriver("ps"), "overlay": OverlayDriver("ps")},
        "tunnel_keys": None,
        "prefix": "ps",
        "table": "pystack",
        "opened": frozenset(),
        "rootless": False,
    }
    return translate(Snapshot(**given | other))


def test_the_same_snapshot_gives_the_same_state() -> None:
    one = record("web", "n", "10.1.0.2", published_at(8080))
    assert desired([NET], [one]) == desired([NET], [one])


def test_an_endpoint_has_a_link_an_address_a_name_and_its_port() -> None:
    web = record("web", "n", "10.1.0.2", published_at(8080, "127.0.0.1"))
    state = desired([NET], [web])
    assert [o.addresses for o in state.objects if isinstance(o, Veth)] == [("10.1.0.2/24",)]
    assert state.dataplane.names["n"]["web"] == ("10.1.0.2",)
    assert state.dataplane.views[web.id].networks == ("n",)
    assert state.dataplane.forwards == (
        Forward(protocol="tcp", host="127.0.0.1", port=8080, targets=("10.1.0.2",), target_port=80),
    )
    assert [(p.port, p.ipv4, p.target) for p in state.published] == [(8080, "10.1.0.2", 80)]


def test_a_network_that_cannot_be_made_matters_only_to_those_on_it() -> None:
    weave = Network(name="v", driver="weave", subnets=NET.subnets)
    assert desired([weave]).objects == frozenset()
    with pytest.raises(AgentError, match="network v: driver 'weave' is not known on this node"):
        desired([weave], [record("web", "v", "10.1.0.2")])
    with pytest.raises(AgentError, match="CONFIG_VXLAN"):
        desired([WIDE], [record("web", "w", "10.2.0.2")], host=HostCapabilities(features=FEATURES - {"vxlan"}))


def test_of_two_replicas_the_one_that_stays_has_the_port() -> None:
    port = published_at(8080)
    both = [record("s-web-10", "n", "10.1.0.9", port, task="b"), record("s-web-9", "n", "10.1.0.2", port, task="a")]
    assert [p.ipv4 for p in desired([NET], both).published] == ["10.1.0.2"]


def test_a_port_of_a_whole_service_is_balanced_and_near_tasks_go_first() -> None:
    port = published_at(8080)
    service = ServiceAddress(
        service="s/web",
        network="w",
        ipv4="198.18.0.1",
        names=("web",),
        ports=(Port(target=80, published=8080),),
        backends=(AddressAssignment(name="a", ipv4="10.2.0.2"), AddressAssignment(name="b", ipv4="10.2.0.3")),
    )
    state = desired([WIDE], [record("t", "w", "10.2.0.2", port, task="t")], Manifest(service_addresses=(service,)))
    assert state.published == []
    assert [(b.address, b.backends) for b in state.balanced] == [
        ("198.18.0.1", ("10.2.0.2", "10.2.0.3")),
        ("", ("10.2.0.2",)),
    ]
    assert state.dataplane.names["w"]["web"] == ("198.18.0.1",)
    assert {(f.host, f.targets) for f in state.dataplane.forwards} == {
        (host, ("10.2.0.2", "10.2.0.3")) for host in ("0.0.0.0", "::")
    }
    assert state.near == ("10.2.0.2",)
    alike = Manifest(service_addresses=(msgspec.structs.replace(service, balanced=True),))
    state = desired([WIDE], [record("t", "w", "10.2.0.2", port, task="t")], alike)
    assert [b.backends for b in state.balanced] == [("10.2.0.2", "10.2.0.3")] * 2


def test_endpoints_on_other_nodes_are_reached_at_their_node() -> None:
    far = RemoteEndpoint(network="w", underlay="192.0.2.2", ipv4="10.2.0.9", mac="02:00:00:00:00:09", names=("db",))
    state = desired([WIDE], (), Manifest(node="n1", underlay="192.0.2.1", remote_endpoints=(far,)))
    assert [(f.underlay, f.mac) for f in state.fdb] == [("192.0.2.2", "02:00:00:00:00:09")]
    assert state.dataplane.names["w"] == {"db": ("10.2.0.9",)}
    assert state.nodes.peers == frozenset({"192.0.2.2"})
    assert "10.2.0.9" in state.alive()


def test_an_encrypted_network_is_never_reached_in_the_clear() -> None:
    far = RemoteEndpoint(network="x", underlay="192.0.2.2", ipv4="10.3.0.9", mac="02:00:00:00:00:09")
    manifest = Manifest(underlay="192.0.2.1", remote_endpoints=(far,))
    without = desired([SECRET], (), manifest)
    assert not any(isinstance(o, WireguardDevice) for o in without.objects)
    assert all(f.underlay != "192.0.2.2" for f in without.fdb)
    peer = TunnelPeer(name="n2", underlay="192.0.2.2", key=FAR_KEY)
    keys = TunnelKeys(private=KEY, public=KEY)
    through = desired([SECRET], (), Manifest(underlay="192.0.2.1", remote_endpoints=(far,), tunnels=(peer,)), tunnel_keys=keys)
    (device,) = [o for o in through.objects if isinstance(o, WireguardDevice)]
    assert device.mtu == 1500 - wireguard.OVERHEAD[4]
    assert [(p.endpoint, p.key) for p in device.peers] == [("192.0.2.2", FAR_KEY)]
    assert [f.underlay for f in through.fdb] == [wireguard.address_of(FAR_KEY)]
    assert through.nodes.tunnel == device


def test_the_ports_of_the_clusters_nodes() -> None:
    nodes = (
        ClusterNode(name="n1", addresses=("192.0.2.1", "2001:db8::1"), ports=(OpenPort(port=80),)),
        ClusterNode(name="n2", addresses=("192.0.2.2",), ports=(OpenPort(port=53, protocol="udp", host_ip="192.0.2.2"),)),
    )
    state = desired([NET], (), Manifest(nodes=nodes), opened=frozenset({("tcp", 22)}))
    assert state.nodes.doors == {("192.0.2.1", "tcp", 80), ("2001:db8::1", "tcp", 80), ("192.0.2.2", "udp", 53)}
    assert state.nodes.addresses == {"192.0.2.1", "2001:db8::1", "192.0.2.2"}
    assert state.nodes.peers is None  # no overlay here: nobody sends VXLAN packets
    assert state.nodes.opened == {("tcp", 22)}


def test_without_root_the_host_forwards_what_it_can() -> None:
    def published(*ports: PublishedPort) -> Desired:
        return desired([NET], [record("web", "n", "10.1.0.2", *ports)], rootless=True)

    state = published(published_at(8080, "127.0.0.1"))
    assert state.forwarded == {("tcp", "127.0.0.1", 8080)}
    assert [p.host_ip for p in state.published] == [""]
    with pytest.raises(ConflictError, match="cannot be published without root"):
        published(published_at(8080, "::1"))
    with pytest.raises(ConflictError, match="is published at two addresses"):
        published(
            published_at(8080, "127.0.0.1"),
            published_at(8080, "127.0.0.2"),
        )
