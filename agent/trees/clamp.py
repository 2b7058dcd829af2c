"""Makes no file of a tree newer than a moment: `python -m agent.trees.clamp TREE SECONDS`.

Source: reproducible-builds.org, SOURCE_DATE_EPOCH, "Last-resort using …" (clamping of times).
"""

from __future__ import annotations

import os
import sys

from agent.trees import confine, sandbox
from agent.trees.pack import walk
from agent.trees.tree import Tree


def clamp(tree: Tree, seconds: int) -> confine.Reply:
    """Times after *seconds* since the epoch become that."""
    most = seconds * 10**9
    for seen in walk(tree):
        if seen.status.st_mtime_ns > most:
            os.utime(seen.name, ns=(most, most), dir_fd=seen.directory, follow_symlinks=False)
    return {}


def main(root: str, seconds: str) -> int:
    """The process: no time in the tree *root* is later than *seconds* of the epoch. Returns its exit status."""
    try:
        tree = confine.open_tree(root, read_only=False, nested=False)
    except OSError as error:
        return confine.answer({"error": f"the layer cannot be reached: {error.strerror}", "status": 500})
    return confine.answer(
        confine.run(lambda: clamp(Tree(tree), int(seconds)), [tree], calls=sandbox.WRITE_CALLS, capabilities=sandbox.OWNERS)
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
