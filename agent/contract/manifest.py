"""The manifest: the desired state of a node. It is sent whole, or as the difference from the last one.

Plain data, immutable. Sizes are bytes, durations seconds, times RFC 3339 strings in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress, count
from operator import is_not
from typing import Any, get_args, get_origin

import msgspec

from agent.contract.cluster import ClusterNode, RemoteEndpoint, ServiceAddress, TunnelPeer
from agent.contract.network import Network
from agent.contract.task import Task
from agent.contract.volume import Volume
from agent.contract.wire import WireStruct


class FileContent(WireStruct, frozen=True, kw_only=True):
    """The content of a config, or of a secret, then *sealed* to the node's key for the purpose of its digest."""

    digest: str
    data: bytes
    sealed: bool = False


class Manifest(WireStruct, frozen=True, kw_only=True):
    """The desired state of *node*.

    *serial* tells one delivery from another. *term* grows with each server that begins to lead, 0 where there can be but one: a
    manifest of an earlier term than the last is one of a server that leads no more. *underlay* is the address at which other
    nodes reach the node, "" if there are none. *member* is the identity under which it was added: another one each time. *mtu*
    is the largest packet, in bytes, that every path between nodes carries, 0 if unknown. *remote_endpoints* are the endpoints
    on other nodes of this node's networks. *tunnels* are the nodes that it shares encrypted networks with. *nodes* are all
    of the cluster, none if there is only one.

    The node removes what pystack made there and the manifest does not name, except volumes (data is removed only on request)
    and containers made through the Docker Engine API."""

    revision: int = 0
    serial: str = ""
    term: int = 0
    node: str = ""
    underlay: str = ""
    member: str = ""
    mtu: int = 0
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    tasks: tuple[Task, ...] = ()
    remote_endpoints: tuple[RemoteEndpoint, ...] = ()
    service_addresses: tuple[ServiceAddress, ...] = ()
    contents: tuple[FileContent, ...] = ()
    tunnels: tuple[TunnelPeer, ...] = ()
    nodes: tuple[ClusterNode, ...] = ()


ENTRY_TYPES: dict[str, type[WireStruct]] = {
    f.name: get_args(f.type)[0] for f in msgspec.structs.fields(Manifest) if get_origin(f.type) is tuple
}
"""The parts of a manifest, each a tuple of entries, with the type of an entry. Everything that handles a manifest part by part
takes the list from here."""
PARTS = tuple(ENTRY_TYPES)


class Delta(WireStruct, frozen=True, kw_only=True):
    """The difference from the manifest with serial *base* to the next: *put* has the next one's head and the entries that are
    new or changed, *drop* the keys of those that are gone, by part."""

    base: str
    put: Manifest
    drop: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


def entry_key(
    part: str, entry: Network | Volume | Task | RemoteEndpoint | ServiceAddress | FileContent | TunnelPeer | ClusterNode
) -> str:
    """The key of an entry within its part of a manifest."""
    if isinstance(entry, RemoteEndpoint):
        return f"{entry.network} {entry.ipv4} {entry.ipv6}"
    if isinstance(entry, ServiceAddress):
        return f"{entry.service} {entry.network}"
    if isinstance(entry, FileContent):
        return entry.digest
    return entry.name


def diff(old: Manifest, new: Manifest) -> Delta:
    """The Delta with which `patched` makes *new* of *old*; its size is that of the change."""
    changed: dict[str, tuple[WireStruct, ...]] = {}
    drop: dict[str, tuple[str, ...]] = {}
    for part in PARTS:
        gone, fresh = _differing(getattr(old, part), getattr(new, part))
        before = {entry_key(part, e): e for e in gone}
        after = {entry_key(part, e): e for e in fresh}
        changed[part] = tuple(e for k, e in after.items() if before.get(k) != e)
        if dropped := tuple(k for k in before if k not in after):
            drop[part] = dropped
    return Delta(base=old.serial, put=msgspec.structs.replace(new, **changed), drop=drop)


def _differing(old: tuple[Any, ...], new: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Both without the objects that they begin and end with in common: parts are long, and changes few."""
    shorter = min(len(old), len(new))
    first = next(compress(count(), map(is_not, old, new)), shorter)
    last = next(compress(count(), map(is_not, reversed(old), reversed(new))), shorter)
    last = min(last, shorter - first)
    return old[first : len(old) - last], new[first : len(new) - last]


def apply_delta(old: Manifest, delta: Delta) -> Manifest:
    """*old* with *delta* laid over it; entries that stayed keep their order. Raises ValueError where *old* is not its base."""
    if old.serial != delta.base:
        raise ValueError(f"the change is one of manifest {delta.base!r}, and here is {old.serial!r}")
    parts: dict[str, tuple[WireStruct, ...]] = {}
    for part in PARTS:
        entries = {entry_key(part, e): e for e in getattr(old, part)}
        for key in delta.drop.get(part, ()):
            entries.pop(key, None)
        entries.update({entry_key(part, e): e for e in getattr(delta.put, part)})
        parts[part] = tuple(entries.values())
    return msgspec.structs.replace(delta.put, **parts)


class Farewell(WireStruct, frozen=True, kw_only=True):
    """To a node that was removed: it is not *member* any more."""

    member: str


class EtcdCredentials(WireStruct, frozen=True, kw_only=True):
    """How a node reads its manifest from etcd: the *members* (HOST:PORT), the *prefix* that is its own, its credentials.
    *ca* is PEM text."""

    members: tuple[str, ...]
    prefix: str
    user: str
    password: str
    ca: str = ""
    tls: bool = False


class ManifestHeader(WireStruct, frozen=True, kw_only=True):
    """The head of a manifest whose entries are stored one by one: the *manifest* without them, and the *digest* of all."""

    manifest: Manifest
    digest: str


def digest_of(entries: Mapping[str, bytes]) -> str:
    """Of the entries of a manifest, by `<part>/<key>`."""
    import hashlib

    found = hashlib.sha256()
    for key in sorted(entries):
        found.update(f"{key} {len(entries[key])} ".encode() + entries[key])
    return found.hexdigest()
