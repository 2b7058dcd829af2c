"""All that makes a cluster, in one file: stacks with their history, secrets and the key that opens them, certificates,
schedules, repositories that are followed, users and tokens, and what the nodes were called.

What follows from these is left out: tasks, addresses and networks are planned again, for the nodes that there are then. The
file is encrypted with a passphrase: scrypt (RFC 7914) makes a key of it for ChaCha20-Poly1305 (RFC 8439).
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from agent.contract.volume import Volume
from agent.contract.wire import WireStruct
from orchestrator.errors import RefusedError
from orchestrator.placement.node import Node
from orchestrator.server.cluster import Cluster
from orchestrator.server.contents import Contents
from orchestrator.server.records import StackRecord
from orchestrator.server.state import ClusterState
from orchestrator.store.interface import Put, Store, batches
from orchestrator.store.transfer import dump, read

MAGIC = b"pystack-cluster-1\n"
SALT, NONCE = 16, 12
WORK = 1 << 15
"""scrypt's cost: 32 MiB of memory, a tenth of a second."""
SHORTEST = 12
"""Characters of a passphrase: a finder of the file can try any number of them."""
DERIVED = (
    "tasks/",
    "networks/",
    "nodes/",
    "seals/",
    "servers/",
    "removed/",
    "moves/",
    "rollouts/",
    "damaged/",
    "manifests/",
    "auditlog/",
    "format",
)
"""What keys begin with that another cluster has of its own."""


class ClusterKept(WireStruct, frozen=True, kw_only=True):
    """What a backup holds: the cluster's *key*, its *nodes*, and the *lines* of its store."""

    key: bytes
    nodes: tuple[Node, ...]
    lines: bytes


class RestoredNode(WireStruct, frozen=True, kw_only=True):
    """A node as it was: *local* is the server's own."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    local: bool = False


class Restored(WireStruct, frozen=True, kw_only=True):
    """What came back: the names of the *stacks*, those with external networks last, the *nodes* that the cluster had, and the
    *volumes* that have backups."""

    stacks: tuple[str, ...]
    nodes: tuple[RestoredNode, ...]
    volumes: tuple[str, ...]


async def backup(store: Store, contents: Contents, cluster: Cluster, passphrase: str) -> bytes:
    """The file. Raises RefusedError for a passphrase that is too short, StoreError."""
    if len(passphrase) < SHORTEST:
        raise RefusedError(
            f"the passphrase has {len(passphrase)} characters: take {SHORTEST} at least, as for all secrets", 400
        )
    nodes = tuple(m.node for _, m in sorted(cluster.members.items()))
    kept = ClusterKept(key=contents.cluster_key, nodes=nodes, lines=b"".join(await dump(store)))
    return await asyncio.to_thread(_sealed, msgspec.json.encode(kept), passphrase)


async def restore(state: ClusterState, contents: Contents, raw: bytes, passphrase: str) -> Restored:
    """Fill the store of a cluster without stacks. The server must restart then. Raises RefusedError."""
    if state.stacks:
        raise RefusedError(f"this cluster has stacks ({', '.join(sorted(state.stacks))}): a backup is for an empty one", 409)
    kept = msgspec.json.decode(await asyncio.to_thread(_opened, raw, passphrase), type=ClusterKept)
    entries = [p for p in read(kept.lines.splitlines(keepends=True), "the backup") if not p.key.startswith(DERIVED)]
    entries = [Put(p.key, _without_node(p.value)) if p.key.startswith("volumes/") else p for p in entries]
    operations = [*entries, *(await contents.replace_key(kept.key) if kept.key else ())]
    for batch in batches(operations):
        await state.store.transact((), batch)
    return _summary(entries, kept.nodes)


def _without_node(raw: bytes) -> bytes:
    """A volume that is nowhere yet: its data were on a node that is gone."""
    volume = msgspec.json.decode(raw, type=Volume)
    return msgspec.json.encode(
        msgspec.structs.replace(volume, node="" if not volume.shared or volume.exported else volume.node)
    )


def _summary(entries: list[Put], nodes: tuple[Node, ...]) -> Restored:
    stacks = [msgspec.json.decode(p.value, type=StackRecord).stack for p in entries if p.key.startswith("stacks/")]
    stacks.sort(key=lambda s: (any(n.external for n in s.networks), s.name))
    return Restored(
        stacks=tuple(s.name for s in stacks),
        nodes=tuple(RestoredNode(name=n.name, labels=n.labels, taints=n.taints, local=n.is_servers_own) for n in nodes),
        volumes=tuple(v.name for s in stacks for v in s.volumes if v.backup and not v.external),
    )


def _sealed(plain: bytes, passphrase: str) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    salt, nonce = os.urandom(SALT), os.urandom(NONCE)
    return MAGIC + salt + nonce + ChaCha20Poly1305(_derived(passphrase, salt)).encrypt(nonce, plain, MAGIC)


def _opened(raw: bytes, passphrase: str) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    body = raw.removeprefix(MAGIC)
    if body == raw or len(body) < SALT + NONCE:
        raise RefusedError("this is not a backup of a cluster: `pystack cluster backup` makes one", 400)
    salt, nonce = body[:SALT], body[SALT : SALT + NONCE]
    try:
        return ChaCha20Poly1305(_derived(passphrase, salt)).decrypt(nonce, body[SALT + NONCE :], MAGIC)
    except InvalidTag:
        raise RefusedError("the passphrase is another one, or the backup is damaged", 400) from None


def _derived(passphrase: str, salt: bytes) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=32, n=WORK, r=8, p=1).derive(passphrase.encode())
