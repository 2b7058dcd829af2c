"""Copies a directory of an image into a fresh volume: `python -m agent.trees.filling ROOT PATH TARGET`.

All that is below PATH, links in it followed inside ROOT, comes into the directory TARGET, owners and attributes kept. The reply
is {"found": whether PATH is a directory}. Source: Docker documentation, "Populate a volume using a container".
"""

from __future__ import annotations

import sys

from agent.trees import confine, sandbox
from agent.trees.pack import copy_tree
from agent.trees.tree import Tree


def fill(source: Tree, path: str, target: Tree) -> confine.Reply:
    """Copy the directory *path* into *target*; `found` in the reply is false if there is none."""
    if not source.is_directory(path):
        return {"found": False}
    copy_tree(source, path, target)
    return {"found": True}


def main(root: str, path: str, target: str) -> int:
    """Copy the directory *path* below *root* into *target*, confined; returns the exit status."""
    try:
        trees = [
            confine.open_tree(root, read_only=True, nested=False),
            confine.open_tree(target, read_only=False, nested=False),
        ]
    except OSError as error:
        return confine.answer({"error": f"{error.filename} cannot be reached: {error.strerror}", "status": 500})
    return confine.answer(
        confine.run(
            lambda: fill(Tree(trees[0]), path, Tree(trees[1])), trees, calls=sandbox.WRITE_CALLS, capabilities=sandbox.OWNERS
        )
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
