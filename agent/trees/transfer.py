"""Copies files of one tree into another, for COPY and ADD: `python -m agent.trees.transfer SOURCE TARGET LIMITS`.

The order comes on standard input, as JSON: {"owner": [uid, gid] or null, "chown": BOOL, "mode": TEXT, "jobs": […]},
each job one of

    {"do": "mkdir", "goal": PATH}
    {"do": "write", "goal": PATH, "into": BOOL, "name": NAME, "text": TEXT}
    {"do": "copy", "source": PATH, "goal": PATH, "into": BOOL, "without": [PATH…], "above": [[PATH, MODE]…], "unpack": PATH}

"unpack" names the directory into which an archive goes, "" if none is unpacked. SOURCE is "" if nothing is copied. If "owner"
is null, files keep their owners, and new directories are root's;
without "chown" those out of archives keep them too. With --archive as SOURCE the reply tells whether the file
TARGET is an archive. Source: Dockerfile reference, COPY and ADD.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import stat
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from agent.contract.printable import quoted
from agent.trees import confine, modes, sandbox
from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.extract import extract
from agent.trees.layer import finish
from agent.trees.pack import WalkEntry, copy_file, dress, dress_directory, walk
from agent.trees.paths import MAX_LINKS, parts_of
from agent.trees.policy import Policy
from agent.trees.streams import Decompressed, Source
from agent.trees.tree import Tree

BLOCK = 512


class Transfer:
    """Copies from one tree, or from an archive, into another, as a COPY or ADD orders."""

    def __init__(self, source: Tree | None, target: Tree, order: dict[str, Any], bounds: Bounds) -> None:
        self.source, self.target, self.bounds = source, target, bounds
        self.owner: tuple[int, int] | None = tuple(order["owner"]) if order["owner"] else None
        self.inner: tuple[int, int] | None = self.owner if order.get("chown", True) else None
        """The owner of what comes out of archives."""
        self.mode: str = order["mode"]
        self.devices: dict[str, Any] = {}
        self._late: list[tuple[str, os.stat_result]] = []
        """Directories, whose times are set after all entries are made."""

    def run(self, jobs: list[dict[str, Any]]) -> confine.Reply:
        """Do all *jobs*. The reply has the first error, and its job."""
        for job in jobs:
            try:
                {"mkdir": self._mkdir, "write": self._write, "copy": self._copy}[job["do"]](job)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG):
                    raise TreeError(f"{quoted(job['goal'])} cannot be written: {error.strerror}") from error
                raise
        for path, status in reversed(self._late):
            parent, name = self.target.parent(path)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=parent, follow_symlinks=False)
        return {"devices": self.devices, "opaque": []}

    # --- the goal ----------------------------------------------------------------------------------------------

    def _mkdir(self, job: dict[str, Any]) -> None:
        self._directories(job["goal"])

    def _directories(self, path: str, mode: int = 0o755) -> None:
        """Make the directory *path*, and those above it, where they are missing."""
        whole = ""
        for part in parts_of(path):
            whole = f"{whole}/{part}"
            if self.target.exists(whole):
                continue
            self.target.make(whole, directory=True)
            fd = self.target.open(whole, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fchown(fd, *(self.owner or (0, 0)))
                os.fchmod(fd, self._changed(mode, directory=True) if whole == path.rstrip("/") else 0o755)
            finally:
                os.close(fd)
        if not self.target.is_directory(path or "."):
            raise TreeError(f"cannot copy to non-directory: {quoted(path)}")

    def _changed(self, mode: int, *, directory: bool) -> int:
        return modes.changed(self.mode, mode, directory=directory) if self.mode else mode

    def _final(self, goal: str, into: bool, name: str) -> str:
        """The path for a file: *goal*, or *name* in it where it is a directory; a link there is followed."""
        for _ in range(MAX_LINKS):
            if into and self.target.is_directory(goal or "."):
                goal = f"{goal.rstrip('/')}/{name}"
                into = False
            try:
                parent, base = self.target.parent(goal)
                seen = os.stat(base, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return goal
            if not stat.S_ISLNK(seen.st_mode):
                return goal
            text = os.readlink(base, dir_fd=parent)
            goal = posixpath.normpath(posixpath.join(posixpath.dirname(goal), text))
        raise TreeError(f"{quoted(goal)} has too many symbolic links in it")

    def _room(self, path: str) -> tuple[int, str]:
        """The directory for *path* and its name there, free of what was there."""
        parent, name = self.target.parent(path)
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):  # POSIX names the second for a directory
            raise TreeError(f"cannot copy to directory: {quoted(path)}") from None
        return parent, name

    # --- the copied entries --------------------------------------------------------------------------------------

    def _write(self, job: dict[str, Any]) -> None:
        goal = self._final(job["goal"], job["into"], job["name"])
        self._directories(posixpath.dirname(goal))
        parent, name = self._room(goal)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        with os.fdopen(fd, "wb") as file:
            file.write(job["text"].encode("utf-8", "surrogateescape"))
            os.fchown(fd, *(self.owner or (0, 0)))
            os.fchmod(fd, self._changed(0o644, directory=False))

    def _copy(self, job: dict[str, Any]) -> None:
        assert self.source
        for path, mode in job["above"]:
            self._directories(path, mode)
        source: str = job["source"]
        if not source or self.source.is_directory(source):
            self._directory(source, job["goal"].rstrip("/"), job["without"])
            return
        parent, name = self.source.parent(source)
        seen = WalkEntry(source, name, parent, os.stat(name, dir_fd=parent, follow_symlinks=False))
        if job["unpack"] and stat.S_ISREG(seen.status.st_mode) and self._unpacked(source, job["unpack"]):
            return
        goal = self._final(job["goal"], job["into"], posixpath.basename(source))
        self._directories(posixpath.dirname(goal))
        self._one(seen, goal, {})

    def _directory(self, source: str, goal: str, without: list[str]) -> None:
        """Copy the entries of the directory *source* into the directory *goal*, made like it if it is missing."""
        assert self.source
        fd = self.source.open(source or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if goal and not self.target.exists(goal):
                status = self._altered(os.fstat(fd))
                self._directories(posixpath.dirname(goal))
                self.target.make(goal, directory=True)
                made = self.target.open(goal, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    dress(fd, made, status)
                finally:
                    os.close(made)
                self._late.append((goal, status))
            elif goal and not self.target.is_directory(goal):
                raise TreeError(f"cannot copy to non-directory: {quoted(goal)}")
        finally:
            os.close(fd)
        first: dict[tuple[int, int], str] = {}
        for seen in self._wanted(source, without):
            self._one(seen, f"{goal}/{seen.path}", first)

    def _wanted(self, source: str, without: list[str]) -> Iterator[WalkEntry]:
        assert self.source
        gone, below = set(without), tuple(f"{path}/" for path in without)
        for seen in walk(self.source, source):
            if seen.path not in gone and not seen.path.startswith(below):
                yield seen

    def _altered(self, status: os.stat_result) -> os.stat_result:
        """*status* with the owner and the mode that were asked for."""
        uid, gid = self.owner or (status.st_uid, status.st_gid)
        mode = status.st_mode
        if not stat.S_ISLNK(mode):
            mode = stat.S_IFMT(mode) | self._changed(stat.S_IMODE(mode), directory=stat.S_ISDIR(mode))
        times = {"st_atime_ns": status.st_atime_ns, "st_mtime_ns": status.st_mtime_ns}
        return os.stat_result((mode, *status[1:4], uid, gid, *status[6:10]), times)

    def _one(self, seen: WalkEntry, goal: str, first: dict[tuple[int, int], str]) -> None:
        """Copy one entry; of a directory not its entries."""
        before, status = seen.status, self._altered(seen.status)
        seen = seen._replace(status=status)
        key = (before.st_dev, before.st_ino)
        if stat.S_ISDIR(before.st_mode):
            self._made_like(seen, goal)
            self._late.append((goal, status))
        elif before.st_nlink > 1 and key in first:
            held = os.dup(self._room(goal)[0])  # the next look-up may close it
            try:
                above, other = self.target.parent(first[key])
                os.link(other, posixpath.basename(goal), src_dir_fd=above, dst_dir_fd=held, follow_symlinks=False)
            finally:
                os.close(held)
        else:
            first[key] = goal
            self._file(seen, *self._room(goal), goal)

    def _made_like(self, seen: WalkEntry, goal: str) -> None:
        parent, name = self.target.parent(goal)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise TreeError(f"cannot copy to non-directory: {quoted(goal)}") from None
        dress_directory(seen, parent, name)

    def _file(self, seen: WalkEntry, parent: int, name: str, goal: str) -> None:
        status = seen.status
        times = (status.st_atime_ns, status.st_mtime_ns)
        if stat.S_ISREG(status.st_mode):
            copy_file(seen, parent, name)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(seen.name, dir_fd=seen.directory), name, dir_fd=parent)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(name, 0o600, dir_fd=parent)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            device = os.major(status.st_rdev), os.minor(status.st_rdev)
            self.devices[goal] = (status.st_mode, *device, status.st_uid, status.st_gid, status.st_mtime)

    # --- archives ----------------------------------------------------------------------------------------------

    def _unpacked(self, source: str, goal: str) -> bool:
        """Unpack the file *source* into *goal*, if it is an archive."""
        assert self.source
        with os.fdopen(self.source.open_file(source), "rb") as file:
            if not is_archive(file):
                return False
            file.seek(0)
            self._directories(goal)
            names: list[str] = []

            def noted(name: str) -> str:
                names.append(name)
                return name

            plain = Decompressed(Source(file, None), self.bounds.bytes)
            policy = Policy(what=f"archive {quoted(source)}", owners=self.inner is None)
            result = extract(plain, self.target, policy, self.bounds, into=goal, rename=noted if self.inner else None)
            self.devices |= result.devices
            for name in names:
                parent, base = self.target.parent("/".join([goal.rstrip("/"), *parts_of(name)]))
                if base != "." and self.inner and name not in result.devices:
                    os.chown(base, *self.inner, dir_fd=parent, follow_symlinks=False)
        return True


def is_archive(file: BinaryIO) -> bool:
    """Whether *file* begins like a tar, plain or compressed. Source: POSIX pax, "ustar Interchange Format" (the checksum)."""
    try:
        plain = Decompressed(Source(file, None), 1 << 40)
        head = b""
        while len(head) < BLOCK and (data := plain.read(BLOCK - len(head))):
            head += data
        if len(head) < BLOCK or not head.strip(b"\0"):
            return False
        stored = int(head[148:156].strip(b" \0") or b"0", 8)
    except (TreeError, ValueError):
        return False
    return stored == sum(head[:148]) + 8 * 32 + sum(head[156:BLOCK])


def looked_at(path: str) -> int:
    """Whether the file *path* is an archive: {"archive": BOOL}."""
    file = open(path, "rb")  # noqa: SIM115 - the child reads it
    return confine.answer(confine.run(lambda: {"archive": is_archive(file)}, [], calls=sandbox.READ_CALLS, capabilities=()))


def main(source: str, target: str, limits: str) -> int:
    """The process: copies from *source* to *target* as standard input orders. Returns its exit status."""
    if source == "--archive":
        return looked_at(target)
    order = json.load(sys.stdin)
    bounds = Bounds.of(limits)
    try:
        trees = [confine.open_tree(target, read_only=False, nested=False)]
        if source:
            trees.append(confine.open_tree(source, read_only=True, nested=False))
    except OSError as error:
        return confine.answer({"error": f"the files cannot be reached: {error.strerror}", "status": 500})

    def work() -> confine.Reply:
        return Transfer(Tree(trees[1]) if source else None, Tree(trees[0]), order, bounds).run(order["jobs"])

    reply = confine.run(work, trees, calls=sandbox.WRITE_CALLS, capabilities=sandbox.OWNERS)
    if "error" not in reply:
        try:
            finish(target, reply, "")
        except (TreeError, OSError) as error:
            reply = confine.as_reply(error)
    return confine.answer(reply)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
