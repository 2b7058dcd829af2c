"""What this node makes of the manifest while it sees that other nodes do not answer. Pure.

The control plane says the same some seconds later, if there is one. A service of which nobody answers stays as it is: this node
may be the one that is cut off.
"""

from __future__ import annotations

from collections.abc import Set

import msgspec

from agent.contract.cluster import RemoteEndpoint, ServiceAddress
from agent.contract.manifest import Manifest


def without_silent(manifest: Manifest, silent: Set[str]) -> Manifest:
    """*manifest* without the backends and names of endpoints on nodes whose underlay addresses are in *silent*, wherever others
    are left."""
    gone = {
        (peer.network, address)
        for peer in manifest.remote_endpoints
        if peer.underlay in silent
        for address in (peer.ipv4, peer.ipv6)
        if address
    }
    if not gone:
        return manifest
    names = {(p.network, n) for p in manifest.remote_endpoints if p.underlay not in silent for n in p.names}
    return msgspec.structs.replace(
        manifest,
        service_addresses=tuple(_answering(s, gone) for s in manifest.service_addresses),
        remote_endpoints=tuple(_named(p, names) if p.underlay in silent else p for p in manifest.remote_endpoints),
    )


def _answering(service: ServiceAddress, gone: Set[tuple[str, str]]) -> ServiceAddress:
    left = tuple(b for b in service.backends if not {(service.network, b.ipv4), (service.network, b.ipv6)} & gone)
    return msgspec.structs.replace(service, backends=left) if left and left != service.backends else service


def _named(peer: RemoteEndpoint, names: Set[tuple[str, str]]) -> RemoteEndpoint:
    """*peer*, which does not answer, without the names that one that does has, too."""
    left = tuple(n for n in peer.names if (peer.network, n) not in names)
    return msgspec.structs.replace(peer, names=left) if left != peer.names else peer
