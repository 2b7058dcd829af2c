"""Files into and out of a container's root: `python -m agent.trees.copying stat|get|put ROOT PATH FIRST_ID LIMITS [WISH]`.

FIRST_ID is the host's ID that is root in the container, 0 if it has no user namespace. stat and get print one line of JSON
about PATH, links in it followed inside the root; get then writes a tar of it, put reads one from standard input and unpacks it
in PATH, as WISH says. A failure is one line `{"error": …, "status": …}`. Source: Docker Engine API v1.43, ContainerArchive.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from typing import NamedTuple

from agent.contract.printable import quoted
from agent.contract.times import timestamp
from agent.trees import confine, sandbox
from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.extract import extract
from agent.trees.layer import finish
from agent.trees.pack import Packer, WalkEntry, walk
from agent.trees.policy import Policy
from agent.trees.streams import Decompressed, Source
from agent.trees.tree import Tree

# Go's os.FileMode keeps the kind of a file in bits of its own
_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: (1 << 26) | (1 << 21),
}


def describe(seen: WalkEntry, name: str) -> confine.Reply:
    """Docker's path statistics: name, size, mode (of Go), mtime, linkTarget."""
    status = seen.status
    mode = stat.S_IMODE(status.st_mode) & 0o777 | _KINDS.get(stat.S_IFMT(status.st_mode), 0)
    stamp = timestamp(status.st_mtime)
    return {
        "name": name,
        "size": status.st_size,
        "mode": mode,
        "mtime": stamp,
        "linkTarget": _target(seen) if stat.S_ISLNK(status.st_mode) else "",
    }


def _target(seen: WalkEntry) -> str:
    """Where a link leads, from the container's root on."""
    target = os.readlink(seen.name, dir_fd=seen.directory)
    return os.path.normpath(os.path.join("/", os.path.dirname(seen.path), target))


def find(tree: Tree, path: str) -> tuple[WalkEntry, str]:
    """The entry at *path*, and its name; a link as its last part is followed only before a slash or ".". Raises TreeError."""
    try:
        if path.endswith(("/", "/.", "/..")):
            parent, base = tree.open(path, os.O_PATH | os.O_DIRECTORY), "."
        else:
            parent, base = tree.parent(path)
        seen = WalkEntry(path, base, parent, os.stat(base, dir_fd=parent, follow_symlinks=False))
    except OSError as error:
        raise _tree_error(error, path) from error
    return seen, os.path.basename(path.rstrip("/")) or "/"


def _tree_error(error: OSError, path: str) -> TreeError:
    shown = quoted(path)
    if error.errno == errno.ENOENT:
        return TreeError(f"{shown} does not exist in the container", 404)
    if error.errno == errno.ENOTDIR:
        return TreeError(f"{shown} leads through a file that is not a directory", 400)
    if error.errno == errno.ELOOP:
        return TreeError(f"{shown} has too many symbolic links in it", 400)
    return TreeError(f"{shown}: {error.strerror}", 400 if error.errno in (errno.EINVAL, errno.ENAMETOOLONG) else 500)


def get(tree: Tree, path: str) -> confine.Reply:
    """Write the line about *path*, and the archive. An error after the line is "late": it only ends the archive."""
    seen, name = find(tree, path)
    confine.answer(describe(seen, name))
    try:
        packer = Packer(sys.stdout.buffer)
        name = name.lstrip("/") or "."
        packer.entry(seen, name)
        if stat.S_ISDIR(seen.status.st_mode):
            for one in walk(tree, path):
                packer.entry(one, f"{name}/{one.path}")
        packer.end()
    except Exception as error:  # the line is out already: any error only ends the archive
        return {**confine.as_reply(error), "late": True}
    return {}


class PutRequest(NamedTuple):
    """How an archive is put: whether directories and other files may not replace each other, and the owner of its files, (user,
    group) in the container's numbers, None for the archive's own."""

    keep_kinds: bool = False
    owner: tuple[int, int] | None = None


def put(tree: Tree, path: str, bounds: Bounds, request: PutRequest) -> confine.Reply:
    """Unpack standard input in the directory *path*. The reply holds devices, for `finish`."""
    try:
        fd = tree.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise TreeError(f"extraction point is not a directory: {quoted(path)}", 400) from error
        raise _tree_error(error, path) from error
    os.close(fd)
    plain = Decompressed(Source(sys.stdin.buffer, None), bounds.bytes)
    policy = Policy(what="archive", keep_directories=request.keep_kinds, keep_others=request.keep_kinds, owner=request.owner)
    result = extract(plain, tree, policy, bounds, into=path)
    plain.drain()
    return {"devices": result.devices, "opaque": []}


def main(verb: str, root: str, path: str, first_id: str, limits: str, asked: str = "{}") -> int:
    """Do *verb* at *path* below *root*, confined; answers on standard output, returns the exit status."""
    first = int(first_id)
    path = "/" + path.lstrip("/")
    try:
        tree = confine.open_tree(root, read_only=verb != "put", nested=True)
    except OSError as error:
        return confine.answer({"error": f"the container's files cannot be reached: {error.strerror}", "status": 500})
    if verb == "put":
        bounds, request = Bounds.of(limits), PutRequest(**json.loads(asked))
        reply = confine.run(
            lambda: put(Tree(tree), path, bounds, request),
            [tree],
            calls=sandbox.WRITE_CALLS,
            capabilities=sandbox.OWNERS,
            first_id=first,
        )
        if "error" not in reply:
            if first:
                reply["devices"] = {}  # the runtime would refuse their use there
            try:
                finish(root, reply, "")
            except (TreeError, OSError) as error:
                reply = confine.as_reply(error)
        return confine.answer(reply)
    if verb == "stat":
        reply = confine.run(
            lambda: describe(*find(Tree(tree), path)),
            [tree],
            calls=sandbox.READ_CALLS,
            capabilities=sandbox.READER,
            first_id=first,
        )
        return confine.answer(reply)
    reply = confine.run(
        lambda: get(Tree(tree), path), [tree], calls=sandbox.READ_CALLS, capabilities=sandbox.READER, first_id=first
    )
    if "error" not in reply:
        return 0
    return 1 if reply.get("late") else confine.answer(reply)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:7]))
