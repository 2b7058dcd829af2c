"""Migrates a volume's data to another node: passes of tar, each with the changes since the last, and checksums.

GNU tar keeps owners, times, modes, ACLs, extended attributes, hard links and holes, and its incremental dumps record deletions
too. A checksum covers all that must be equal on both sides; contents are read again only if a file changed.
Source: tar(1), "Using tar to Perform Incremental Dumps" in its manual.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent import files
from agent.contract.failpoints import failpoint
from agent.contract.volume import TreeChecksum
from agent.errors import AgentError, ConflictError, NotFoundError
from agent.trees import workers
from agent.trees.tree import Tree
from agent.volumes.volumes import VolumeRecord, Volumes, check_name

if TYPE_CHECKING:
    from agent.trees.pack import WalkEntry

CHUNK = 1 << 20
INCOMING = ".incoming-"
KEEP = ("--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*", "--sparse")
Seen = dict[str, tuple[tuple[int, ...], str]]
"""Path → (the state by which a change is noticed, the hash of its content)."""


class VolumeMigration:
    """Volumes that leave this node or arrive here."""

    def __init__(self, volumes: Volumes, run: Path) -> None:
        self.volumes = volumes
        self._snapshots = run / "moves"
        self._seen: dict[Path, Seen] = {}

    def incoming(self, name: str) -> Path:
        """The directory that an incoming copy of volume *name* fills. Raises BadRequestError for what is not a name."""
        check_name(name, INCOMING)
        return self.volumes.root / f"{INCOMING}{name}"

    async def dump(self, name: str, *, first: bool) -> AsyncIterator[bytes]:
        """A tar of the volume: all of it the *first* time, then the changes since the last call. Raises AgentError."""
        self.volumes.get(name)
        self._snapshots.mkdir(mode=0o700, exist_ok=True)
        snapshot = self._snapshots / name
        if first:
            snapshot.unlink(missing_ok=True)
        child = await _tar(
            self.volumes.data(name),
            self._snapshots,
            "--create",
            "--file=-",
            "--format=posix",
            f"--listed-incremental=/state/{name}",
            *KEEP,
            "--one-file-system",
            ".",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout
        assert child.stderr
        errors = asyncio.create_task(child.stderr.read())
        try:
            while chunk := await child.stdout.read(CHUNK):
                yield chunk
            # 1: a file changed while it was read; the next pass has it
            if await child.wait() not in (0, 1):
                raise AgentError(f"volume {name}: {(await errors).decode(errors='replace').strip()}")
            _rewind_snapshot(snapshot)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            await errors

    async def receive(self, name: str, chunks: AsyncIterator[bytes], *, first: bool) -> None:
        """Unpack a dump for the arriving volume. Raises AgentError, ConflictError if there is a volume of that name."""
        if name in self.volumes.all:
            raise ConflictError(f"there is a volume {name} on this node already: remove it first, if nothing needs it")
        data = self.incoming(name) / "_data"
        if first:
            await self.discard(name)
        data.mkdir(parents=True, exist_ok=True, mode=0o755)
        failpoint("move.receive")
        child = await _tar(
            data,
            None,
            "--extract",
            "--file=-",
            "--listed-incremental=/dev/null",
            *KEEP,
            "--same-owner",
            "--preserve-permissions",
            "--delay-directory-restore",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert child.stdin
        assert child.stderr
        errors = asyncio.create_task(child.stderr.read())
        try:
            async for chunk in chunks:
                if child.stdin.is_closing():  # tar has ended, and says why
                    raise BrokenPipeError
                child.stdin.write(chunk)
                await child.stdin.drain()
            child.stdin.close()
            if await child.wait():
                raise AgentError(f"volume {name}: {(await errors).decode(errors='replace').strip()}")
        except (BrokenPipeError, ConnectionResetError):
            raise AgentError(f"volume {name}: {(await errors).decode(errors='replace').strip()}") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            await errors

    async def checksum(self, name: str, *, arriving: bool) -> TreeChecksum:
        """The checksum of the volume, or of its data that has arrived."""
        data = self.incoming(name) / "_data" if arriving else self.volumes.data(name)
        if not data.is_dir():
            raise NotFoundError(f"no such volume: {name}")
        seen = self._seen.setdefault(data, {})
        return await asyncio.to_thread(_tree_checksum, data, seen)

    def commit(self, record: VolumeRecord, *, replace: bool = False) -> None:
        """Make the data that has arrived the volume; with *replace* in place of one that is there."""
        there = record.name in self.volumes.all
        if there and not replace:
            raise ConflictError(f"there is a volume {record.name} on this node already")
        failpoint("move.commit")
        self._seen.pop(self.incoming(record.name) / "_data", None)
        self.volumes.adopt(self.incoming(record.name), record, replace=there)

    async def discard(self, name: str) -> None:
        """Abort the migration: delete data that has arrived; the volume itself stays."""
        self._seen.pop(self.incoming(name) / "_data", None)
        self._seen.pop(self.volumes.data(name), None)
        (self._snapshots / name).unlink(missing_ok=True)
        await asyncio.to_thread(files.remove_tree, self.incoming(name))


async def _tar(data: Path, state: Path | None, *arguments: str, stdin: int, stdout: int) -> asyncio.subprocess.Process:
    """GNU tar where all that it can name is the volume's *data*, as its working directory, and *state*, at /state."""
    program = shutil.which("tar") or "/bin/tar"
    return await asyncio.create_subprocess_exec(
        *workers.command("view", (str(data), str(state or ""), program, *arguments)),
        stdin=stdin,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        limit=CHUNK,
        cwd=workers.PROGRAMS,
        env=workers.environment(),
    )


def _rewind_snapshot(snapshot: Path) -> None:
    """Make the next pass begin a second earlier: a file's times are those of the kernel's last tick, up to 10 ms behind the
    clock that tar recorded, and writes in between would look old. Source: GNU tar manual, Snapshot Files."""
    with snapshot.open("r+b") as file:
        head = file.read(256)
        start = head.index(b"\n") + 1
        digits = head[start : head.index(b"\0", start)]
        file.seek(start)
        file.write(str(int(digits) - 1).encode().zfill(len(digits)))


def _tree_checksum(root: Path, seen: Seen) -> TreeChecksum:
    from agent.trees import pack

    entries: dict[str, str] = {}
    groups: dict[tuple[int, int], str] = {}
    now: Seen = {}
    total = 0
    # a file that was just written may be written again within the same tick, and look the same
    settled = time.time_ns() - 10**9
    with Tree.at(root) as tree:
        for entry in pack.walk(tree):
            path, found = entry.path, entry.status
            parts: list[object] = [found.st_mode, found.st_uid, found.st_gid]
            if stat.S_ISDIR(found.st_mode):
                parts.append(found.st_mtime_ns)
            elif stat.S_ISREG(found.st_mode):
                key = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                old = seen.get(path)
                content = old[1] if old and old[0] == key else _content(entry)
                if found.st_ctime_ns < settled:
                    now[path] = key, content
                parts += [found.st_size, found.st_mtime_ns, content]
                total += found.st_size
            elif stat.S_ISLNK(found.st_mode):
                parts.append(os.readlink(entry.name, dir_fd=entry.directory))
            else:
                parts.append(found.st_rdev)
            if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                parts.append(groups.setdefault((found.st_dev, found.st_ino), path))
            here = f"/proc/self/fd/{entry.directory}/{entry.name}"
            names = sorted(os.listxattr(here, follow_symlinks=False))
            parts += [(name, os.getxattr(here, name, follow_symlinks=False)) for name in names]
            entries[path] = hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    seen.clear()
    seen.update(now)
    whole = hashlib.blake2b(msgspec.msgpack.encode(sorted((os.fsencode(p), h) for p, h in entries.items())), digest_size=32)
    safe = {os.fsencode(p).decode(errors="backslashreplace"): h for p, h in entries.items()}
    return TreeChecksum(digest=whole.hexdigest(), files=len(entries), bytes=total, entries=safe)


def _content(entry: WalkEntry) -> str:
    fd = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=entry.directory)
    with os.fdopen(fd, "rb", buffering=0) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
