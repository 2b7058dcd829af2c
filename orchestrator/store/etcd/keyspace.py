"""Our keys in etcd: all are below one prefix, which the rest of the store does not see."""

from __future__ import annotations

from google.protobuf.message import Message

from orchestrator.store.etcd.rpc import KeyValue, range_request
from orchestrator.store.interface import Entry

FIRST = "\x01"
"""The first key of the store's users. Keys before it are our own: the fences and the leader."""


class Keyspace:
    """The keys below `/<prefix>/`."""

    def __init__(self, prefix: str) -> None:
        self._root = f"/{prefix}/"

    def encode(self, key: str) -> bytes:
        """*key* as etcd has it."""
        return (self._root + key).encode()

    def decode(self, key: bytes) -> str:
        """The inverse of `encode`."""
        return key.decode()[len(self._root) :]

    def entry(self, kv: KeyValue) -> Entry:
        """*kv* as an Entry."""
        return Entry(self.decode(kv.key), kv.value, int(kv.create_revision), int(kv.mod_revision), int(kv.version))

    def range(self, start: str, end: str = "", *, revision: int = 0, limit: int = 0, keys_only: bool = False) -> Message:
        """A request for *start*, or for all keys from *start* up to *end*."""
        last = self.encode(end) if end else b""
        return range_request(self.encode(start), last, revision=revision, limit=limit, keys_only=keys_only)


def end_of(prefix: str) -> str:
    """The first key behind all that begin with *prefix*."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"
