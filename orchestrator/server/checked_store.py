"""The store as the control plane uses it: what cannot be read is set aside, and what only a newer server knows is kept.

A record that is garbage goes to `damaged/<key>`, with a line that names it, and everything else goes on. Servers of two
versions may take turns: fields that this one does not know stay in a record when it writes it.
"""

from __future__ import annotations

import builtins
import functools
import logging
import types
import typing
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from agent.contract.manifest import EtcdCredentials
from agent.contract.network import Network
from agent.contract.task import Task
from agent.contract.timings import Histogram
from agent.contract.volume import Volume
from orchestrator.placement.node import Node
from orchestrator.planning.autoscale import ScaleMemory
from orchestrator.planning.schedules import ScheduleState
from orchestrator.server.access.log import AuditLine
from orchestrator.server.access.model import Token, User
from orchestrator.server.contents import ExternalContent, Seal, StoredContent
from orchestrator.server.jobs.records import JobRun
from orchestrator.server.joining import NodeToken
from orchestrator.server.node_authority import UplinkServer
from orchestrator.server.records import StackRecord
from orchestrator.server.removed_nodes import RemovedNode
from orchestrator.server.rollouts.records import RolloutRecord
from orchestrator.store.interface import Compare, Delete, Entry, KeyChange, Op, Put, Store, StoreError, TransactionResult

TYPES: dict[str, type[msgspec.Struct]] = {
    "stacks/": StackRecord,
    "history/": StackRecord,
    "tasks/": Task,
    "networks/": Network,
    "volumes/": Volume,
    "nodes/": Node,
    "removed/": RemovedNode,
    "contents/": StoredContent,
    "named/": ExternalContent,
    "seals/": Seal,
    "runs/": JobRun,
    "schedules/": ScheduleState,
    "rollouts/": RolloutRecord,
    "autoscale/": ScaleMemory,
    "users/": User,
    "tokens/": Token,
    "auditlog/": AuditLine,
    "node-tokens/": NodeToken,
    "uplinks/": UplinkServer,
    "uplink-seals/": Seal,
}
"""What lies below each prefix."""
DAMAGED = "damaged/"
NAMES = ("name", "target", "service")
"""Fields by which a record in a list is the same one after a change."""
Unknown = Mapping[str, Any]
log = logging.getLogger(__name__)


class CheckedStore:
    """A Store over *inner*. *timings* are how long its operations took."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.timings = {"get": Histogram(), "scan": Histogram(), "transact": Histogram()}
        self._unknown: dict[str, Unknown] = {}
        """Of records that a newer server wrote, what this one does not know, by `_identity` of their keys."""

    @property
    def term(self) -> int:
        """See `Store.term`."""
        return self._inner.term

    async def revision(self) -> int:
        """See `Store.revision`."""
        return await self._inner.revision()

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        with self.timings["get"].timed():
            return await self._inner.get(key)

    async def scan(self, prefix: str, *, at: int = 0) -> Sequence[Entry]:
        """See `Store.scan`. Entries that cannot be read are set aside, and are not among those that it returns."""
        with self.timings["scan"].timed():
            entries = await self._inner.scan(prefix, at=at)
        if at or not (kind := _type_of(prefix)):
            return entries
        return [entry for entry in entries if await self._is_sound(entry, kind)]

    async def _is_sound(self, entry: Entry, kind: type[msgspec.Struct]) -> bool:
        try:
            msgspec.json.decode(entry.value, type=kind)
        except msgspec.MsgspecError as error:
            log.warning(
                "the store's record %s cannot be read (%s): it is set aside as %s", entry.key, error, DAMAGED + entry.key
            )
            try:
                await self._inner.transact(
                    [Compare(entry.key, entry.modified)], [Delete(entry.key), Put(DAMAGED + entry.key, entry.value)]
                )
            except StoreError as failed:  # a full disk: the next start tries again
                log.warning("%s stays where it is: %s", entry.key, failed)
            return False
        if unknown := unknown_fields(msgspec.json.decode(entry.value), kind):
            self._unknown[_identity(entry.key)] = unknown
        return True

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> TransactionResult:
        """See `Store.transact`."""
        with self.timings["transact"].timed():
            done = await self._inner.transact(compare, [self._completed(op) for op in then] if self._unknown else then)
        if done.succeeded and self._unknown:
            stays = {_identity(op.key) for op in then if isinstance(op, Put)}
            for gone in {_identity(op.key) for op in then if isinstance(op, Delete)} - stays:
                self._unknown.pop(gone, None)
        return done

    def _completed(self, op: Op) -> Op:
        """*op* with the fields of its record that only a newer server knows."""
        unknown = self._unknown.get(_identity(op.key)) if isinstance(op, Put) else None
        if unknown is None or not isinstance(op, Put):
            return op
        return Put(op.key, msgspec.json.encode(merged(msgspec.json.decode(op.value), unknown)))

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        """See `Store.watch`."""
        async for changes in self._inner.watch(prefix, after=after):
            yield changes

    async def compact(self, before: int) -> None:
        """See `Store.compact`."""
        await self._inner.compact(before)

    async def grant_read(self, reader: str, prefix: str) -> EtcdCredentials:
        """See `Store.grant_read`."""
        return await self._inner.grant_read(reader, prefix)

    async def revoke_read(self, reader: str) -> None:
        """See `Store.revoke_read`."""
        await self._inner.revoke_read(reader)

    async def close(self) -> None:
        """See `Store.close`."""
        await self._inner.close()


class Optional(msgspec.Struct, frozen=True):
    """What is unknown of a field's record, which a writer may leave out."""

    fields: Unknown


class Rows(msgspec.Struct, frozen=True):
    """What is unknown of records in a list: each as this version writes it, and the rest of it."""

    rows: tuple[tuple[Any, Unknown], ...]


def unknown_fields(found: Any, kind: Any) -> Unknown:
    """What of the decoded record *found* the type *kind* has no field for, in the same shape; of inner structs too, where they
    may be left out as Optional, and in lists as Rows."""
    if not (isinstance(found, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    fields = _types_of(kind)
    tag = kind.__struct_config__.tag_field
    out: dict[str, Any] = {}
    for name, value in found.items():
        if name in fields:
            if inner := _unknown_inside(value, fields[name]):
                out[name] = inner
        elif name != tag:
            out[name] = value
    return out


@functools.cache
def _types_of(kind: type[msgspec.Struct]) -> Mapping[str, Any]:
    return {f.encode_name: f.type for f in msgspec.structs.fields(kind)}


def _unknown_inside(value: Any, kind: Any) -> Unknown | Optional | Rows | None:
    """Of the value of a known field; nothing of unions of several types."""
    inside = [argument for argument in typing.get_args(kind) if argument is not types.NoneType]
    match typing.get_origin(kind), inside:
        case types.UnionType | typing.Union, [only]:
            inner = _unknown_inside(value, only)
            return Optional(inner) if inner and isinstance(inner, Mapping) else inner
        case builtins.tuple, [item, builtins.Ellipsis] if isinstance(value, list):
            parts = [(row, unknown_fields(row, item)) for row in value]
            rows = tuple((_as_written(row, item), unknown) for row, unknown in parts if unknown)
            return Rows(rows) if rows else None
        case None, _:
            return unknown_fields(value, kind)
    return None


def _as_written(record: Any, kind: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(record), type=kind)))


def merged(record: Any, unknown: Unknown) -> Any:
    """*record* with the fields of *unknown*, in the places that it names, as far as those are there."""
    out = dict(record)
    for name, value in unknown.items():
        match value, out.get(name):
            case Optional(fields=fields), dict() as known:
                out[name] = merged(known, fields)
            case Rows(rows=rows), list() as items:
                out[name] = _with_rows(items, rows)
            case ((Optional() | Rows()), _):
                pass  # what they belong to is gone
            case _, None if name not in out:
                out[name] = value
            case Mapping(), dict() as known:
                out[name] = merged(known, value)
    return out


def _with_rows(items: Sequence[Any], rows: Sequence[tuple[Any, Unknown]]) -> list[Any]:
    """*items* with what is unknown of those that are as they were, or still have their name."""
    left, out = list(rows), []
    for item in items:
        same = [row for row in left if row[0] == item] or [row for row in left if _has_name_of(item, row[0])]
        if same:
            left.remove(same[0])
        out.append(merged(item, same[0][1]) if same else item)
    return out


def _has_name_of(one: Any, other: Any) -> bool:
    names = [{key: record[key] for key in NAMES if key in record} for record in (one, other) if isinstance(record, dict)]
    return len(names) == 2 and names[0] == names[1] != {}


def _type_of(prefix: str) -> type[msgspec.Struct] | None:
    return next((kind for known, kind in TYPES.items() if prefix.startswith(known)), None)


def _identity(key: str) -> str:
    """*key* without what changes when its record moves: a task's key names its node."""
    return f"tasks/{key.rpartition('/')[2]}" if key.startswith("tasks/") else key
