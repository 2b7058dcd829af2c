"""Lists a tree with a digest of each file: `python -m agent.trees.listing ROOT LIMITS` reads the request from standard input.

The request is JSON, [[PATH, DEPTH]…]: of each path, links on its way followed inside ROOT, itself and all below it; links that
lie less than DEPTH deep below it are followed too. The reply is {"entries": {path: [kind, mode, uid, gid, size, content]}}:
kinds are f, d, l and o, the content a file's SHA-256 or a link's target.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterable
from typing import Any

from agent.trees import confine, sandbox
from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.pack import WalkEntry, walk
from agent.trees.paths import Step, follow
from agent.trees.streams import CHUNK
from agent.trees.tree import Tree

Entries = dict[str, list[Any]]


class TreeListing:
    """The entries of a tree with their modes, owners and digests, within bounds."""

    def __init__(self, tree: Tree, bounds: Bounds) -> None:
        self.tree, self.bounds = tree, bounds
        self.entries: Entries = {}
        self._known: dict[tuple[int, int], str] = {}
        self._walked: set[str] = set()

    def take(self, wanted: Iterable[tuple[str, int]]) -> Entries:
        """All that *wanted* names. Raises TreeError, OSError."""
        pending = [(path, depth) for path, depth in wanted]
        while pending:
            path, depth = pending.pop()
            where = self._way(path)
            if where is None or where in self._walked:
                continue
            self._walked.add(where)
            for seen in self._below(where):
                whole = f"{where}/{seen.path}" if where else seen.path
                self._note(whole, seen)
                if depth > seen.path.count("/") and self.entries[whole][0] == "l":
                    pending.append((whole, 0))
        return self.entries

    def _below(self, where: str) -> Iterable[WalkEntry]:
        if where and self.entries[where][0] != "d":
            return ()
        return walk(self.tree, where)

    def _way(self, path: str) -> str | None:
        """Where *path* leads, relative to the root, None if nowhere; each step on the way becomes an entry."""

        def look(step: str) -> Step | None:
            try:
                parent, name = self.tree.parent(step)
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                    return None
                raise
            self._note(step, WalkEntry(step, name, parent, status))
            kind, content = self.entries[step][0], self.entries[step][5]
            return Step(kind == "d", content if kind == "l" else "")

        return follow(path, look)

    def _note(self, path: str, seen: WalkEntry) -> None:
        if path in self.entries:
            return
        if len(self.entries) >= self.bounds.entries:
            raise TreeError(f"there are more than {self.bounds.entries} files")
        status = seen.status
        kind, content = "o", ""
        if stat.S_ISDIR(status.st_mode):
            kind = "d"
        elif stat.S_ISLNK(status.st_mode):
            kind, content = "l", os.readlink(seen.name, dir_fd=seen.directory)
        elif stat.S_ISREG(status.st_mode):
            kind, content = "f", self._digest(seen)
        else:
            content = f"{stat.S_IFMT(status.st_mode):o} {status.st_rdev}"
        size = status.st_size if kind == "f" else 0
        self.entries[path] = [kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, size, content]

    def _digest(self, seen: WalkEntry) -> str:
        key = (seen.status.st_dev, seen.status.st_ino)
        if seen.status.st_nlink > 1 and key in self._known:
            return self._known[key]
        fd = os.open(seen.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=seen.directory)
        try:
            found = hashlib.sha256()
            while data := os.read(fd, CHUNK):
                found.update(data)
            digest = found.hexdigest() + _capabilities(fd)
        finally:
            os.close(fd)
        self._known[key] = digest
        return digest


def _capabilities(fd: int) -> str:
    """The file capabilities of a program, the one attribute that images carry, as hexadecimal digits."""
    try:
        return f" {os.getxattr(fd, 'security.capability').hex()}"
    except OSError:
        return ""


def main(root: str, limits: str) -> int:
    """The process: lists the tree *root* as standard input asks, within *limits* (JSON). Returns its exit status."""
    bounds = Bounds.of(limits)
    wanted = json.load(sys.stdin)
    try:
        tree = confine.open_tree(root, read_only=True, nested=False)
    except OSError as error:
        return confine.answer({"error": f"the files cannot be reached: {error.strerror}", "status": 500})
    return confine.answer(
        confine.run(
            lambda: {"entries": TreeListing(Tree(tree), bounds).take(wanted)},
            [tree],
            calls=sandbox.READ_CALLS,
            capabilities=sandbox.READER,
        )
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
