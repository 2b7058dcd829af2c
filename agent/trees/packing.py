"""The writable layer of a container, or all its files, as a tar on standard output; or its changes, as JSON.

    python -m agent.trees.packing layer UPPER ATTRIBUTE        its writable layer, deletions as whiteouts
    python -m agent.trees.packing blob UPPER ATTRIBUTE         the same; the reply has "digest" and "size" of the archive
    python -m agent.trees.packing export ROOT FIRST_ID         all files; FIRST_ID is the host's ID that is root in there
    python -m agent.trees.packing changes UPPER LOWER          {"changes": [[path, kind], …]}, kind as in ContainerChanges

Where it fails, a reply with "error" is the last line of standard error (of standard output for changes), and the exit status 1.
Source: OCI Image Specification, layer.md; Docker Engine API v1.43, ContainerExport, ContainerChanges.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO, cast

from agent.trees import confine, sandbox
from agent.trees.pack import Packer, changes, pack_layer, walk
from agent.trees.tree import Tree

MAX_CHANGES = 1_000_000

NESTED = "nested"
"""An export of what is mounted below the root, too."""


class Counted:
    """*out* with the digest and the size of what went there."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.hash, self.size = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        """Write *data*, and count and hash it."""
        self._out.write(data)
        self.hash.update(data)
        self.size += len(data)

    def flush(self) -> None:
        """Flush what was written."""
        self._out.flush()


def layer(upper: Tree, out: BinaryIO, attribute: str) -> confine.Reply:
    """Write *upper* to *out* as the tar of a layer; *attribute* is the overlay's prefix of extended attributes."""
    packer = Packer(out)
    pack_layer(upper, packer, attribute)
    packer.end()
    return {}


def blob(upper: Tree, out: BinaryIO, attribute: str) -> confine.Reply:
    """Write the layer that the directory *upper* of an overlay makes to *out*; the reply has its digests and size."""
    counted = Counted(out)
    layer(upper, cast("BinaryIO", counted), attribute)
    return {"digest": f"sha256:{counted.hash.hexdigest()}", "size": counted.size}


def export(root: Tree, out: BinaryIO, first_id: int) -> confine.Reply:
    """Write the whole tree to *out* as a tar; owners count from *first_id*."""
    packer = Packer(out, first_id=first_id)
    for seen in walk(root):
        packer.entry(seen, seen.path)
    packer.end()
    return {}


def changed(upper: Tree, lower: Tree) -> confine.Reply:
    """The paths that *upper* changes over *lower*, with their kind; an error beyond MAX_CHANGES."""
    found: list[list[object]] = []
    for path, kind in changes(upper, lower):
        if len(found) >= MAX_CHANGES:
            return {"error": f"it changed more than {MAX_CHANGES} files", "status": 400}
        found.append([path, kind])
    return {"changes": found}


def main(verb: str, root: str, more: str) -> int:
    """Do *verb* (layer, blob, export, nested, changes) on *root*, confined; returns the exit status."""
    out = sys.stdout.buffer
    try:
        trees = [confine.open_tree(root, read_only=True, nested=verb == NESTED)]
        if verb == "changes":
            trees.append(confine.open_tree(more, read_only=True, nested=False))
    except OSError as error:
        return _print_error({"error": f"the container's files cannot be reached: {error.strerror}", "status": 500}, verb)
    works = {
        "layer": lambda: layer(Tree(trees[0]), out, more),
        "blob": lambda: blob(Tree(trees[0]), out, more),
        "export": lambda: export(Tree(trees[0]), out, int(more)),
        NESTED: lambda: export(Tree(trees[0]), out, int(more)),
        "changes": lambda: changed(Tree(trees[0]), Tree(trees[1])),
    }
    # reading trusted.overlay.* takes CAP_SYS_ADMIN of the host's own user namespace; the allowed calls cannot use it otherwise
    noted = verb in ("layer", "blob") and more.startswith("trusted.")
    capabilities: Sequence[str] = (*sandbox.READER, "SYS_ADMIN") if noted else sandbox.READER
    reply = confine.run(works[verb], trees, calls=sandbox.READ_CALLS, capabilities=capabilities, user=not noted)
    return _print_error(reply, verb)


def _print_error(reply: confine.Reply, verb: str) -> int:
    if verb != "changes":
        os.dup2(2, 1)  # the first output is the archive's
    return confine.answer(reply)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
