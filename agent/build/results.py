"""What all builds of a node share: the cache of steps, cache mounts, layers, and work in progress that several wait for."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent import files
from agent.build.cache import Cache, Entry
from agent.build.layers import Layers
from agent.engine.context import EngineContext

MOUNT_NAME = 40
"""Hex digits of a cache mount's folder name."""


class CacheMounts:
    """Folders that RUN steps of many builds share, by their IDs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.locks: dict[str, asyncio.Lock] = {}
        self.used: Counter[Path] = Counter()

    def name(self, ident: str) -> str:
        """The name of the folder of *ident*, which may be any text."""
        return hashlib.sha256(ident.encode("utf-8", "surrogateescape")).hexdigest()[:MOUNT_NAME]

    def place(self, ident: str, *, private: bool) -> tuple[Path, bool]:
        """The folder of *ident*, and whether it is new. A *private* one is nobody else's as long as it is in use."""
        number = 0
        while True:
            folder = self.folder / (self.name(ident) + (f".{number}" if number else ""))
            if not private or not self.used[folder]:
                break
            number += 1
        fresh = not (folder / "data").exists()
        (folder / "data").mkdir(parents=True, exist_ok=True, mode=0o755)
        os.utime(folder)
        return folder / "data", fresh

    def lock(self, ident: str) -> asyncio.Lock:
        """The lock of the mount *ident*, for `sharing=locked`."""
        return self.locks.setdefault(ident, asyncio.Lock())


class BuildResults:
    """The results of steps below the folder *root*, as layers in the store of *engine*."""

    def __init__(self, engine: EngineContext, root: Path) -> None:
        self.engine = engine
        self.cache = Cache(root / "cache", lambda name: (engine.paths.layers / name).is_dir())
        self.cache_mounts = CacheMounts(root / "mounts")
        self.transient: set[str] = set()
        """Names of layers, and beginnings of blobs' digests, that builds in progress use."""
        self.layers = Layers(engine.images, self.cache, self.transient)
        self._flights: dict[str, asyncio.Future[Entry]] = {}
        """By key, steps in progress."""

    def held(self) -> set[str]:
        """Names of layers, and beginnings of blobs' digests, that no collection of the store may take."""
        entries = self.cache.entries.values()
        return self.transient | {e.layer for e in entries} | {e.digest[7:27] for e in entries if e.digest}

    async def result(self, key: str, note: str, make: Callable[[], Awaitable[str]], *, cached: bool) -> tuple[Entry, bool]:
        """What the step *key* comes to, and whether it was known: from the cache, from somebody who is at it, or by *make*,
        which gives the name of a layer."""
        while cached:
            if entry := self.cache.find(key):
                return entry, True
            flight = self._flights.get(key)
            if flight is None:
                break
            await asyncio.wait({flight})
            if not flight.cancelled():
                return flight.result(), True
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        mine = self._flights.setdefault(key, future) is future
        try:
            layer = await make()
            disk = await asyncio.to_thread(files.used, self.engine.paths.layers / layer) if layer else 0
            entry = self.cache.put(key, note, layer, disk)
            future.set_result(entry)
            return entry, False
        finally:
            if not future.done():
                future.cancel()
            if mine:
                del self._flights[key]
