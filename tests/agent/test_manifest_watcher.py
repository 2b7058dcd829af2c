"""A manifest that goes by way of etcd arrives as it was, whatever is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from agent.contract.cluster import ClusterNode, RemoteEndpoint, ServiceAddress, TunnelPeer
from agent.contract.container import Container
from agent.contract.manifest import PARTS, FileContent, Manifest, apply_delta, diff
from agent.contract.network import Network
from agent.contract.task import Task
from agent.contract.volume import Volume
from agent.manifest_watcher import assembled
from orchestrator.store.sqlite import SqliteStore
from orchestrator.transport.manifest_publisher import EtcdManifestPublisher, prefix_of

OF_EVERYTHING: dict[str, tuple[Any, ...]] = {
    "networks": (Network(name="s_default", internal=True), Network(name="s_other")),
    "volumes": (Volume(name="s_data"),),
    "tasks": (Task(name="s-web-1", stack="s", service="web", container=Container(image="busybox")),),
    "remote_endpoints": (RemoteEndpoint(network="s_default", underlay="10.0.0.2", ipv4="10.1.0.3"),),
    "service_addresses": (ServiceAddress(service="web", network="s_default"),),
    "contents": (FileContent(digest="sha256:0a", data=b"said in confidence"),),
    "tunnels": (TunnelPeer(name="n2", underlay="10.0.0.2", key="AAAA"),),
    "nodes": (ClusterNode(name="n2", addresses=("10.0.0.2",)),),
}


def test_every_part_is_one_of_entries() -> None:
    """What a manifest has several of, and no more, goes entry by entry."""
    assert PARTS == ("networks", "volumes", "tasks", "remote_endpoints", "service_addresses", "contents", "tunnels", "nodes")
    assert OF_EVERYTHING.keys() == set(PARTS)


async def test_it_arrives_as_it_was(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    publisher = EtcdManifestPublisher(store, "n1")
    scalars = Manifest(revision=7, node="n1", underlay="10.0.0.1", mtu=1400)
    whole = msgspec.structs.replace(scalars, **OF_EVERYTHING)
    bare = Manifest(revision=8, node="n1")
    try:
        for manifest in (whole, bare, whole):  # with entries, without any, and with them again
            digest = await publisher.publish(manifest)
            entries = {e.key.removeprefix(prefix_of("n1")): e.value for e in await store.scan(prefix_of("n1"))}
            assert assembled(entries) == (digest, manifest)
    finally:
        await store.close()


def test_what_changes_of_it_leads_to_the_same() -> None:
    whole = msgspec.structs.replace(Manifest(serial="2"), **OF_EVERYTHING)
    bare = Manifest(serial="1")
    assert apply_delta(bare, diff(bare, whole)) == whole
    assert apply_delta(whole, diff(whole, bare)) == bare
