"""The embedded Store: one SQLite file, one connection that writes and checkpoints, on one thread.

There is a single connection because SQLite before 3.51.3 can corrupt a WAL that two connections checkpoint at the same time.
Writes that arrive together are committed together (synchronous=FULL: one fsync for all); each is still a revision of its own.
A ballast file is deleted when the disk is full, because even DELETE needs space.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from agent.contract.failpoints import failpoint
from agent.contract.manifest import EtcdCredentials
from agent.contract.wire import WireStruct
from orchestrator.store.interface import (
    CompactedError,
    Compare,
    Delete,
    Entry,
    KeyChange,
    Op,
    StoreError,
    TransactionResult,
    validate_ops,
)

T = TypeVar("T")
SCHEMA_VERSION = 1
APPLICATION_ID = 0x70737461
BALLAST_BYTES = 4 << 20
SCHEMA = """
CREATE TABLE log (
    revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, created INTEGER NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (revision, key)
) WITHOUT ROWID;
CREATE INDEX log_by_key ON log (key, revision);
CREATE TABLE current (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
    version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 1), ('compacted', 1);
"""


class _Write(WireStruct, frozen=True, kw_only=True):
    compare: tuple[Compare, ...]
    then: tuple[Op, ...]


class SqliteStore:
    """A Store. Open it with `await SqliteStore.open(path)`."""

    term = 0
    """One server has the file, or none."""

    def __init__(self, connection: sqlite3.Connection, path: Path, thread: ThreadPoolExecutor, lock: int) -> None:
        self._connection = connection
        self._path = path
        self._thread = thread
        self._lock = lock
        self._pending: list[tuple[_Write, asyncio.Future[TransactionResult]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._news: set[asyncio.Event] = set()

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """The store in the file *path*, which is made if it does not exist.

        Raises StoreError if the file is damaged, in use, or of a newer version."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StoreError(f"{path} is in use by another server") from None
        thread = ThreadPoolExecutor(1, "store")
        try:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _open, path)
        except StoreError:
            os.close(lock)
            thread.shutdown()
            raise
        return cls(connection, path, thread, lock)

    async def _on_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except sqlite3.OperationalError:
            raise  # the disk, not the file: the caller words the error
        except sqlite3.DatabaseError as error:
            raise _damaged(self._path, error) from error

    async def revision(self) -> int:
        """See `Store.revision`."""
        return await self._on_thread(self._revision)

    def _revision(self) -> int:
        return int(self._connection.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0])

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        return await self._on_thread(self._get, key)

    def _get(self, key: str) -> Entry | None:
        row = self._connection.execute(
            "SELECT key, value, created, modified, version FROM current WHERE key = ?", (key,)
        ).fetchone()
        return Entry(*row) if row else None

    async def scan(self, prefix: str, *, at: int = 0) -> Sequence[Entry]:
        """See `Store.scan`."""
        return await self._on_thread(self._list, prefix, at)

    def _list(self, prefix: str, at: int) -> Sequence[Entry]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"
        if not at:
            rows = self._connection.execute(
                "SELECT key, value, created, modified, version FROM current WHERE key >= ? AND key < ? ORDER BY key",
                (prefix, end),
            )
            return [Entry(*row) for row in rows]
        self._check_compacted(at)
        rows = self._connection.execute(
            "SELECT key, value, created, MAX(revision), version FROM log WHERE key >= ? AND key < ? AND revision <= ? "
            "GROUP BY key ORDER BY key",
            (prefix, end, at),
        )
        return [Entry(*row) for row in rows if row[1] is not None]

    def _check_compacted(self, revision: int) -> None:
        oldest = int(self._connection.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()[0])
        if revision < oldest:
            raise CompactedError(oldest)

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> TransactionResult:
        """See `Store.transact`."""
        validate_ops(then)
        future: asyncio.Future[TransactionResult] = asyncio.get_running_loop().create_future()
        self._pending.append((_Write(compare=tuple(compare), then=tuple(then)), future))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all())
        return await asyncio.shield(future)

    async def _commit_all(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            failpoint("store.commit")
            try:
                outcomes = await self._on_thread(self._commit, [write for write, _ in batch])
            except (sqlite3.Error, StoreError) as error:
                problem = error if isinstance(error, StoreError) else StoreError(f"{self._path}: {error}")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(problem)
                continue
            failpoint("store.committed")
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)
            for event in self._news:
                event.set()

    def _commit(self, writes: Sequence[_Write]) -> list[TransactionResult]:
        try:
            return self._commit_once(writes)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            # without the ballast there is room for deletions, with which the user can make more
            self._path.with_suffix(".ballast").unlink(missing_ok=True)
            raise StoreError(f"the disk of {self._path.parent} is full: make room, nothing was changed") from error

    def _commit_once(self, writes: Sequence[_Write]) -> list[TransactionResult]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            revision = self._revision()
            outcomes: list[TransactionResult] = []
            for write in writes:
                if not all(self._holds(compare) for compare in write.compare):
                    outcomes.append(TransactionResult(False, revision))
                    continue
                if write.then:
                    revision += 1
                    self._apply_ops(write.then, revision)
                outcomes.append(TransactionResult(True, revision))
            connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return outcomes

    def _holds(self, compare: Compare) -> bool:
        row = self._connection.execute("SELECT modified FROM current WHERE key = ?", (compare.key,)).fetchone()
        return (row[0] if row else 0) == compare.modified

    def _apply_ops(self, operations: Sequence[Op], revision: int) -> None:
        for op in operations:
            old = self._get(op.key)
            if isinstance(op, Delete):
                if old is None:
                    continue
                self._connection.execute("DELETE FROM current WHERE key = ?", (op.key,))
                self._connection.execute("INSERT OR REPLACE INTO log VALUES (?, ?, NULL, 0, 0)", (revision, op.key))
            else:
                created, version = (old.created, old.version + 1) if old else (revision, 1)
                row = (op.key, op.value, created, revision, version)
                self._connection.execute("INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?)", row)
                self._connection.execute(
                    "INSERT OR REPLACE INTO log VALUES (?, ?, ?, ?, ?)", (revision, op.key, op.value, created, version)
                )

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        """See `Store.watch`."""
        event = asyncio.Event()
        self._news.add(event)
        try:
            while True:
                event.clear()
                changes = await self._on_thread(self._since, prefix, after)
                for group in changes:
                    yield group
                    after = group[0].revision
                if not changes:
                    await event.wait()
        finally:
            self._news.discard(event)

    def _since(self, prefix: str, after: int) -> Sequence[Sequence[KeyChange]]:
        self._check_compacted(after + 1)
        rows = self._connection.execute(
            "SELECT revision, key, value, created, version FROM log WHERE revision > ? AND substr(key, 1, ?) = ? "
            "ORDER BY revision, key LIMIT 1000",
            (after, len(prefix), prefix),
        ).fetchall()
        groups: dict[int, list[KeyChange]] = {}
        for revision, key, value, created, version in rows:
            entry = None if value is None else Entry(key, value, created, revision, version)
            groups.setdefault(revision, []).append(KeyChange(key, revision, entry))
        if len(rows) == 1000 and len(groups) > 1:
            groups.popitem()  # the rest of it may be behind the limit
        return list(groups.values())

    async def grant_read(self, reader: str, prefix: str) -> EtcdCredentials:
        """Raises StoreError: no other process can read this store."""
        raise StoreError(
            "only this server can read the embedded store: agents that read their manifests themselves need --store etcd://…"
        )

    async def revoke_read(self, reader: str) -> None:
        """Nothing to do: no reader has been granted anything."""

    async def compact(self, before: int) -> None:
        """See `Store.compact`."""
        await self._on_thread(self._compact, before)

    def _compact(self, before: int) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "DELETE FROM log WHERE revision < ? AND (value IS NULL OR revision < (SELECT MAX(l.revision) FROM log l "
            "WHERE l.key = log.key AND l.revision <= ?))",
            (before, before),
        )
        connection.execute("UPDATE meta SET value = MAX(value, ?) WHERE name = 'compacted'", (before,))
        connection.execute("COMMIT")

    async def close(self) -> None:
        """See `Store.close`."""
        if self._committer:
            await asyncio.gather(self._committer, return_exceptions=True)
        await self._on_thread(self._connection.close)
        self._thread.shutdown()
        os.close(self._lock)


def _open(path: Path) -> sqlite3.Connection:
    ballast = path.with_suffix(".ballast")
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        for setting in ("synchronous = FULL", "cell_size_check = ON", "trusted_schema = OFF", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise StoreError(f"{path} was written by a newer pystack (store version {version}): upgrade this one")
        if version == 0:
            script = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            connection.executescript(f"BEGIN; {SCHEMA} {script} COMMIT;")
        if not ballast.exists():
            try:
                with ballast.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
            except OSError:  # an empty file would look like a ballast
                ballast.unlink(missing_ok=True)
        return connection
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} is damaged ({error}): restore a backup, or move it away to start with an empty store (containers keep running)"
    )
