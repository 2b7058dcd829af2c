"""The Store on both backends against a bare client of the same one: commits, a long list, delivery of watches."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from bench.rows import Row, row, size
from orchestrator.store.etcd import rpc
from orchestrator.store.etcd.address import Address
from orchestrator.store.etcd.client import CHANNEL
from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.interface import Put, Store
from orchestrator.store.sqlite import SqliteStore
from tests.store.members import Members

T = TypeVar("T")
COMMITS, WRITERS, KEYS, ROUNDS, WATCHED = size(2000, 64), 8, size(50_000, 200), size(3, 1), size(500, 20)
VALUE = b"x" * 200


async def commits(store: Store) -> float:
    """Transactions a second, of WRITERS at once."""

    async def write(writer: int) -> None:
        for number in range(COMMITS // WRITERS):
            await store.transact([], [Put(f"c/{writer}/{number % 50}", VALUE)])

    began = time.perf_counter()
    await asyncio.gather(*(write(w) for w in range(WRITERS)))
    return COMMITS / (time.perf_counter() - began)


async def filled(store: Store) -> None:
    """Write the KEYS keys below `l/`, 64 a transaction."""
    for start in range(0, KEYS, 64):
        await store.transact([], [Put(f"l/{n:06d}", VALUE) for n in range(start, min(start + 64, KEYS))])


async def listing(store: Store) -> float:
    """Seconds that one scan of all keys below `l/` takes."""
    began = time.perf_counter()
    assert len(await store.scan("l/")) == KEYS
    return time.perf_counter() - began


async def delivery(store: Store) -> float:
    """99th percentile of the time from the answer to a write until its watcher has it, in seconds; 0 where it had it before."""
    seen: dict[int, float] = {}
    after = await store.revision()

    async def follow() -> None:
        async for changes in store.watch("w/", after=after):
            seen[changes[0].revision] = time.perf_counter()

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.2)
    written = {}
    for number in range(WATCHED):
        began = time.perf_counter()
        written[(await store.transact([], [Put("w/a", str(number).encode())])).revision] = began
    while len(seen) < WATCHED:
        await asyncio.sleep(0.01)
    task.cancel()
    return _p99([seen[r] - written[r] for r in written])


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


class Bare:
    """etcd's API with nothing around it."""

    def __init__(self, address: Address) -> None:
        parts = [Path(p).read_bytes() for p in (address.ca, address.key, address.cert)]
        self.channel = grpc.aio.secure_channel(address.members[0], grpc.ssl_channel_credentials(*parts), options=CHANNEL)
        self.prefix = f"/{address.prefix}/".encode()

    async def call(self, method: rpc.Rpc[T], request: Message) -> T:
        """The answer to one unary RPC; it may take 30 s."""
        answer: T = await method.unary(self.channel)(request, timeout=30)
        return answer

    async def put(self, key: str) -> int:
        """Write VALUE to *key*. Returns the revision."""
        request = rpc.txn_request((), [rpc.put_request(self.prefix + key.encode(), VALUE)])
        return int((await self.call(rpc.TXN, request)).header.revision)

    async def commits(self) -> float:
        """Transactions per second with WRITERS writers at once."""

        async def write(writer: int) -> None:
            for number in range(COMMITS // WRITERS):
                await self.put(f"c/{writer}/{number % 50}")

        began = time.perf_counter()
        await asyncio.gather(*(write(w) for w in range(WRITERS)))
        return COMMITS / (time.perf_counter() - began)

    async def listing(self) -> float:
        """Seconds that one range over all keys below `l/` takes, each key decoded."""
        began = time.perf_counter()
        found = await self.call(rpc.RANGE, rpc.range_request(self.prefix + b"l/", self.prefix + b"l0"))
        assert len([(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version) for kv in found.kvs]) == KEYS
        return time.perf_counter() - began

    async def delivery(self) -> float:
        """Seconds from a write to its event on a watch, as the 99th percentile of WATCHED writes."""
        seen: dict[int, float] = {}
        stream = rpc.WATCH.stream(self.channel)()
        await stream.write(rpc.watch_request(self.prefix + b"w/", self.prefix + b"w0"))

        async def follow() -> None:
            while True:
                answer = await stream.read()
                for event in answer.events:
                    seen[event.kv.mod_revision] = time.perf_counter()

        task = asyncio.create_task(follow())
        await asyncio.sleep(0.2)
        written = {}
        for _ in range(WATCHED):
            began = time.perf_counter()
            written[await self.put("w/a")] = began
        while len(seen) < WATCHED:
            await asyncio.sleep(0.01)
        task.cancel()
        stream.cancel()
        return _p99([seen[r] - written[r] for r in written])


async def on_etcd(members: Members) -> dict[str, Row]:
    """Rows of the Store on etcd against a bare client of the same cluster."""
    address = members.address("bench")
    store, bare = await EtcdStore.open(address), Bare(address)
    await store.lead("bench")
    await filled(store)
    took: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, ours, theirs in (
            ("commits", commits(store), bare.commits()),
            ("list", listing(store), bare.listing()),
            ("watch", delivery(store), bare.delivery()),
        ):
            took.setdefault(name, []).append(await ours)
            took.setdefault(f"bare {name}", []).append(await theirs)
    await store.close()
    await bare.channel.close()
    middle = {name: statistics.median(values) for name, values in took.items()}
    return {
        "store_etcd_commits": row(middle["commits"], middle["bare commits"], "1/s", "higher"),
        "store_etcd_list_50000": row(middle["list"], middle["bare list"]),
        "store_etcd_watch_p99": row(middle["watch"], middle["bare watch"]),
    }


def bare_sqlite(path: Path) -> tuple[float, float]:
    """Commits a second, and seconds for the list, of the sqlite3 module alone, one commit after the other."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
        "CREATE TABLE t (key TEXT PRIMARY KEY, value BLOB, created INT, modified INT, version INT) WITHOUT ROWID;"
    )
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO t VALUES (?, ?, 1, 1, 1)", [(f"l/{n:06d}", VALUE) for n in range(KEYS)])
    connection.execute("COMMIT")
    began = time.perf_counter()
    for number in range(COMMITS):
        connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?, 1, 1, 1)", (f"c/{number % 400}", VALUE))
    rate = COMMITS / (time.perf_counter() - began)
    began = time.perf_counter()
    assert len(connection.execute("SELECT * FROM t WHERE key >= 'l/' AND key < 'l0' ORDER BY key").fetchall()) == KEYS
    listed = time.perf_counter() - began
    connection.close()
    return rate, listed


async def on_sqlite(folder: Path) -> dict[str, Row]:
    """Rows of the Store on SQLite in *folder* against the bare library."""
    store = await SqliteStore.open(folder / "store.db")
    await filled(store)
    took: dict[str, list[float]] = {"commits": [], "list": [], "bare commits": [], "bare list": []}
    for number in range(ROUNDS):
        took["commits"].append(await commits(store))
        took["list"].append(await listing(store))
        rate, listed = bare_sqlite(folder / f"bare{number}.db")
        took["bare commits"].append(rate)
        took["bare list"].append(listed)
    await store.close()
    middle = {name: statistics.median(values) for name, values in took.items()}
    return {
        "store_sqlite_commits": row(middle["commits"], middle["bare commits"], "1/s", "higher"),
        "store_sqlite_list_50000": row(middle["list"], middle["bare list"]),
    }


def measure() -> dict[str, Row]:
    """In a namespace of its own: three members talk a lot."""
    if os.environ.get("PYSTACK_BENCH_INSIDE") != "store":
        command = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, "-m", "bench.store"]
        inside = {**os.environ, "PYSTACK_BENCH_INSIDE": "store"}
        done = subprocess.run(command, env=inside, capture_output=True, text=True, check=True)
        rows: dict[str, Row] = json.loads(done.stdout.splitlines()[-1])
        return rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = asyncio.run(on_sqlite(folder))
        (folder / "etcd").mkdir()
        members = Members(folder / "etcd")
        try:
            rows |= asyncio.run(on_etcd(members))
        finally:
            members.stop()
    return rows


if __name__ == "__main__":
    print(json.dumps(measure()))
