"""Faults put into the production code on purpose: the simulator must find each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from agent.contract.manifest import Manifest
from agent.engine.boot_fence import BootFence
from agent.engine.membership import Membership
from orchestrator.server import store_keys
from orchestrator.server.cluster import Cluster
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.drain import NodeDrainer
from orchestrator.server.preemption import PreemptedReturn
from orchestrator.server.state import ClusterState
from orchestrator.store.interface import Delete, Put


def _never_fenced(self: Cluster, name: str) -> bool:
    """A strict task goes to another node as soon as its own is silent."""
    del self, name
    return True


def _speaks_on(self: Cluster) -> None:
    """A leader that was succeeded goes on speaking to nodes until it has ended."""
    del self


def _holds_nothing(self: BootFence, task: str) -> bool:
    """A booted node starts what it had, whoever has it by now."""
    del self, task
    return False


async def _moves_in_two(self: ClusterState, *, tasks: Any = (), networks: Any = ()) -> None:
    """A task that moves is deleted in one transaction, and written in the next, a second later."""
    gone = [Delete(store_keys.of_task(self.tasks[t.name])) for t in tasks if t.name in self.tasks]
    await self.transact(gone)
    await asyncio.sleep(1)
    await self.transact([Put(store_keys.of_task(t), msgspec.json.encode(t)) for t in tasks])
    await self.transact([Put(store_keys.of_network(n), msgspec.json.encode(n)) for n in networks])
    self.networks.update({n.name: n for n in networks})
    self.tasks.update({t.name: t for t in tasks})


async def _stays_drained(self: Dispatcher, names: Any) -> None:
    """Connections never go to a task again that was drained once."""
    del self, names


def _hears_anybody(self: Membership, manifest: Manifest, present: Manifest) -> None:
    """A node takes the manifest of a server that led before, too."""
    del self, manifest, present


async def _forgets(self: NodeDrainer) -> None:
    """A leader does not go on with the drains that another one began."""
    del self


def _never_has_room(self: PreemptedReturn, stack: str) -> bool:
    """What made room for others waits for ever."""
    del self, stack
    return False


BUGS: dict[str, tuple[type, str, Any]] = {
    "back": (PreemptedReturn, "_has_room", _never_has_room),
    "fence": (Cluster, "is_fenced", _never_fenced),
    "resign": (Cluster, "resign", _speaks_on),
    "boot": (BootFence, "holds", _holds_nothing),
    "move": (ClusterState, "put", _moves_in_two),
    "drain": (Dispatcher, "undrain_tasks", _stays_drained),
    "forgotten drain": (NodeDrainer, "resume_all", _forgets),
    "term": (Membership, "check", _hears_anybody),
}
"""By name: whose attribute is replaced by what."""


@contextmanager
def put_in(name: str) -> Iterator[None]:
    """Have the bug *name* for a while."""
    owner, attribute, bug = BUGS[name]
    before = getattr(owner, attribute)
    setattr(owner, attribute, bug)
    try:
        yield
    finally:
        setattr(owner, attribute, before)
