"""Every container of this node: its record in memory and on disk, its lock, its waiters and its events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from agent import files, quotas
from agent.engine.events import Events
from agent.engine.records import Record, encoded, labels, save
from agent.errors import BadRequestError, ConflictError, NotFoundError, user_message
from agent.paths import Paths

MIN_ID_DIGITS = 2
log = logging.getLogger(__name__)


class PendingAttach:
    """A client that wants a container's streams from their first byte: the start waits for it."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.failed = False
        """Set before *ready* if the start failed: there are no streams."""
        self.connected = asyncio.Event()


class ContainerTable:
    """The containers of this node by ID, with their state that lasts as long as the agent runs."""

    def __init__(self, paths: Paths, events: Events) -> None:
        self.records: dict[str, Record] = {}
        self._by_task: dict[str, dict[str, Record]] = {}
        """The same records, of those that have a task, by its name: a change of one task costs no look at every other."""
        self.changed: Callable[[Record], None] = lambda _: None
        """Called after each change of a record."""
        self.attaching: dict[str, list[PendingAttach]] = {}
        """By ID, the clients that the start waits for."""
        self.not_listening: set[str] = set()
        """Containers whose programs have not opened their TCP ports yet."""
        self.stuck: set[str] = set()
        """Containers that were to be removed when they ended, and cannot be."""
        self.waiting: set[str] = set()
        """Containers that wait to be restarted until those whose namespaces they share run."""
        self.leaving: set[str] = set()
        """Containers that are removed as soon as they have ended: what becomes of them until then is not written."""
        self.coming_back: set[str] = set()
        """Containers that were stopped to be started again at once."""
        self._paths = paths
        self._events = events
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        """Those that are held or waited for."""
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._written: dict[str, int] = {}
        """By ID, the hash of what was last written of a record: the same again is not written, as that waits for the disk."""

    def find(self, name: str) -> Record:
        """The container by name, ID, or beginning of an ID. Raises NotFoundError, or BadRequestError if it is ambiguous."""
        name = name.lstrip("/")
        hits = [r for r in self.records.values() if r.name == name or r.id == name]
        if "/" in name:  # OWNER/ALIAS, as of a link
            owner, _, alias = name.partition("/")
            hits = [r for r in self.records.values() if (owner, alias) in ((o.name, a) for o, a in self.linked_to(r))]
        hits = hits or [r for r in self.records.values() if len(name) >= MIN_ID_DIGITS and r.id.startswith(name)]
        if not hits:
            raise NotFoundError(f"No such container: {name}")
        if len(hits) > 1:
            raise BadRequestError(f"{len(hits)} containers' IDs begin with {name}: give more digits")
        return hits[0]

    def linked_to(self, record: Record) -> list[tuple[Record, str]]:
        """The containers with a link to *record*, and what each calls it."""
        return [
            (other, alias)
            for other in self.records.values()
            for alias, name in other.container.links
            if name and (name == record.name or (len(name) >= MIN_ID_DIGITS and record.id.startswith(name)))
        ]

    def require_free_name(self, name: str) -> None:
        """Raises ConflictError, in the words that Docker's tools look for, where a container has the *name*."""
        if other := next((r for r in self.records.values() if r.name == name), None):
            raise ConflictError(
                f'Conflict. The container name "/{name}" is already in use by container "{other.id}". You have to '
                "remove (or rename) that container to be able to reuse that name."
            )

    def users_of_volume(self, volume: str) -> list[str]:
        """The names of the containers that use *volume*."""
        return [
            r.name
            for r in self.records.values()
            if volume in r.anonymous.values() or any(m.kind == "volume" and m.source == volume for m in r.container.mounts)
        ]

    def lock(self, record: Record) -> asyncio.Lock:
        """The lock of the container's state: its holder starts, stops, mounts or removes it."""
        return self._locks.setdefault(record.id, asyncio.Lock())

    def add(self, record: Record) -> None:
        """Add a new container, with its directories. Raises OSError (a full disk); nothing is left of it then."""
        directory = self._paths.container(record.id)
        try:
            for part in ("", "upper", "work"):
                (directory / part).mkdir(mode=0o711 if not part else 0o755)
            if size := record.container.storage_size:
                quotas.limit((directory / "upper", directory / "work"), size)
            save(directory, encoded(record))
        except OSError:
            files.remove_tree(directory)
            raise
        self.adopt(record)
        self._announce(record, "create")

    def adopt(self, record: Record) -> None:
        """Take in a record whose directories are there already."""
        self.records[record.id] = record
        if record.task:
            self._by_task.setdefault(record.task, {})[record.id] = record

    def of_task(self, task: str) -> Record | None:
        """The record of the manifest's task of that name; None if it has no container."""
        return next(iter(self._by_task.get(task, {}).values()), None)

    def transition(self, record: Record, action: str = "", **fields: object) -> None:
        """Change *fields* of a record, write it to disk, and emit the event *action* ("" for none)."""
        for key, value in fields.items():
            setattr(record, key, value)
        raw = encoded(record)
        try:
            if record.id not in self.leaving and self._written.get(record.id) != hash(raw):
                save(self._paths.container(record.id), raw)
                self._written[record.id] = hash(raw)
        except OSError as error:
            # the state of a container must be acted on anyway; the next agent finds it out again
            log.warning("container %s: its state is not written to disk: %s", record.name, user_message(error))
        self._announce(record, action)

    @contextlib.contextmanager
    def is_leaving(self, record: Record) -> Iterator[None]:
        """Meanwhile *record* is about to be removed, as its next agent would find out from the manifest too: no change of it is
        written. One that could not be removed is as it is afterwards."""
        self.leaving.add(record.id)
        try:
            yield
        finally:
            self.leaving.discard(record.id)
            if record.id in self.records:
                self.transition(record)

    def _announce(self, record: Record, action: str) -> None:
        if action:
            self.tell(record, action, {"exitCode": str(record.exit_code)} if action == "die" else {})
        self.changed(record)

    def tell(self, record: Record, action: str, more: Mapping[str, str] = MappingProxyType({})) -> None:
        """Emit an event of a container, with the attributes that each of them has."""
        own = {"image": record.image or record.container.image, "name": record.name}
        self._events.emit("container", action, record.id, {**labels(record), **own, **more})

    def forget(self, record: Record) -> None:
        """Drop a container that is removed; its events are the caller's."""
        self.records.pop(record.id, None)
        if of_task := self._by_task.get(record.task):
            of_task.pop(record.id, None)
            if not of_task:
                del self._by_task[record.task]
        self.attaching.pop(record.id, None)
        self._written.pop(record.id, None)
        for flags in (self.not_listening, self.stuck, self.waiting, self.leaving):
            flags.discard(record.id)

    # --- waiting -----------------------------------------------------------------------------------------------

    def wake(self, record: Record) -> None:
        """Wake all waiters of the container: it has ended or was removed."""
        for waiter in self._waiters.pop(record.id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, record: Record) -> int:
        """The exit code, once the container does not run any more."""
        while record.running or record.state == "starting":
            await self.wait_for_change(record)
        return record.exit_code or 0

    async def wait_for_change(self, record: Record) -> None:
        """Wait until the container starts, ends or goes."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(record.id, []).append(waiter)
        await waiter
