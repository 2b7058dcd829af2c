"""What of the cluster's state one node must know. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent.manifest import Manifest, Network, Peer, Task, Volume
from orchestrator.placement.node import Node


def manifest_of(
    node: str, nodes: Sequence[Node], revision: int, networks: Mapping[str, Network], volumes: Mapping[str, Volume],
    tasks: Iterable[Task],
) -> Manifest:
    """The manifest of *node*: its own tasks, the networks and volumes that they use, and the far ends of its overlays.

    A node that is alone has all networks and volumes, used or not."""
    everything = list(tasks)
    mine = tuple(t for t in everything if t.node == node)
    if len(nodes) < 2:
        return Manifest(
            revision=revision, networks=tuple(networks.values()), volumes=tuple(volumes.values()), tasks=mine
        )
    used = {a.network for t in mine for a in t.container.attachments}
    mounted = {m.source for t in mine for m in t.container.mounts if m.kind == "volume"}
    overlays = {n for n in used if n in networks and networks[n].driver == "overlay"}
    underlays = {n.name: n.underlay for n in nodes}
    peers = [
        Peer(
            network=a.network, underlay=underlays.get(t.node, ""), ipv4=a.ipv4, ipv6=a.ipv6, mac=a.mac,
            names=names(t, a.aliases),
        )
        for t in everything if t.node != node for a in t.container.attachments if a.network in overlays
    ]
    return Manifest(
        revision=revision, underlay=underlays.get(node, ""),
        networks=tuple(n for n in networks.values() if n.name in used),
        volumes=tuple(v for v in volumes.values() if v.name in mounted), tasks=mine, peers=tuple(peers),
    )


def names(task: Task, aliases: Sequence[str]) -> tuple[str, ...]:
    """What containers on a network call *task*."""
    own = [task.container_name or task.name, *aliases, task.container.hostname, task.service, f"tasks.{task.service}"]
    return tuple(dict.fromkeys(n.lower() for n in own if n))
