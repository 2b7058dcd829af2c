"""What a node keeps for itself (`reserve` in config.yml): memory that its containers together cannot take, room on its disk.

Memory is the kernel's part: the group above all containers has a limit, and where that is reached the kernel ends a process in
it, by size and oom_score_adj. There is no such limit for a disk, so it is watched: below the reserve no container starts, and
of those that write, the one that wrote most since the look before is killed, one a second. Files stay: people must make room.
Source: cgroups(7); Linux, cgroup-v1/memory.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from agent import cgroups
from agent.disk_watch import Room

log = logging.getLogger(__name__)
EVERY_S = 1.0
NOTICED = 1 << 20
"""A container whose files grew by less than this between two looks does not count as one that writes."""
MOST_FILES = 200_000
"""So many files of a container are counted: a look must end."""
Folders = Mapping[str, Iterable[Path]]


def bound_memory(group: str, kept: int) -> None:
    """The containers below *group* (a path from the root of a hierarchy, "" for none), one of which runs, may take together
    what the host has but for *kept* bytes of memory."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - kept & -os.sysconf("SC_PAGE_SIZE")
    file = cgroups.directory("memory", group) / ("memory.max" if cgroups.unified() else "memory.limit_in_bytes")
    try:
        if group and file.read_text().strip() != str(limit):
            file.write_text(str(limit))
    except OSError as error:
        log.warning("reserve.memory is not kept: %s: %s", file, error.strerror)


def size_of(paths: Iterable[Path]) -> int:
    """Bytes that the files at *paths* and below take on the disk; of very many files a part."""
    total = count = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # it went meanwhile
            for _, _, names, here in os.fwalk(path, follow_symlinks=False):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        total += os.stat(name, dir_fd=here, follow_symlinks=False).st_blocks << 9
                count += len(names)
                if count > MOST_FILES:
                    return total
    return total


def worst(before: Mapping[str, int], now: Mapping[str, int]) -> tuple[str, int]:
    """Which container's files grew most between two looks, and by how much; ("", 0) if none did that counts."""
    grown = {ident: size - before[ident] for ident, size in now.items() if ident in before}
    if not grown:
        return "", 0
    found = max(sorted(grown), key=lambda ident: grown[ident])
    return (found, grown[found]) if grown[found] >= NOTICED else ("", 0)


class DiskReserve:
    """Keeps *room_for* (bytes, of those that the disk has) free on the disk of *path*. *folders* gives what each container that
    runs can write to; *evict* kills one, with the reason; *changed* is called when `problem` changes."""

    def __init__(
        self,
        path: Path,
        kept: Callable[[int], int],
        folders: Callable[[], Folders],
        evict: Callable[[str, str], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        self.problem = ""
        """Why no container starts, "" if there is room."""
        self._path = path
        self._kept = kept
        self._folders = folders
        self._evict = evict
        self._changed = changed
        self._sizes: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look(Room.at(self._path))
            except OSError as error:
                log.warning("the disk of %s cannot be looked at: %s", self._path, error)
            await asyncio.sleep(EVERY_S)

    def look_now(self) -> bool:
        """Bring `problem` up to date, and return whether less is left than is kept. Raises OSError."""
        return self._is_low(Room.at(self._path))

    def _is_low(self, room: Room) -> bool:
        kept, before = self._kept(room.total), self.problem
        low = room.bytes < kept
        self.problem = f"the disk of {self._path} has less left than its reserve of {kept >> 20} MiB: make room" if low else ""
        if bool(before) != low:
            log.warning("%s", self.problem or f"the disk of {self._path} has its reserve again")
            self._changed()
        return low

    async def look(self, room: Room) -> None:
        """Act on what is left."""
        if not self._is_low(room):
            self._sizes = {}
            return
        folders = self._folders()
        sizes = await asyncio.to_thread(lambda: {ident: size_of(paths) for ident, paths in folders.items()})
        ident, grown = worst(self._sizes, sizes)
        self._sizes = sizes
        if ident:
            del self._sizes[ident]
            await self._evict(ident, f"evicted: it wrote {grown >> 20} MiB while {self.problem}")
