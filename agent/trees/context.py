"""Unpacks the context of a build: `python -m agent.trees.context TARGET LIMITS` reads a tar on standard input.

It may be compressed. All files become the builder's own, devices are left out; the reply has the "entries" of a
listing. Source: Docker Engine API v1.48, ImageBuild.
"""

from __future__ import annotations

import sys
from typing import BinaryIO

from agent.trees import confine, sandbox
from agent.trees.bounds import Bounds
from agent.trees.extract import extract
from agent.trees.listing import TreeListing
from agent.trees.policy import Policy
from agent.trees.streams import Decompressed, Source
from agent.trees.tree import Tree


def unpack(tree: Tree, source: BinaryIO, bounds: Bounds) -> confine.Reply:
    """Unpack a build context, compressed or not, into *tree*. Raises TreeError."""
    plain = Decompressed(Source(source, None), bounds.bytes)
    extract(plain, tree, Policy(what="build context", owners=False, attributes=False, devices=False), bounds)
    plain.drain()
    return {"entries": TreeListing(tree, bounds).take([("", 0)])}


def main(target: str, limits: str) -> int:
    """Unpack standard input into the directory *target*, confined; answers on standard output, returns the exit status."""
    bounds = Bounds.of(limits)
    try:
        tree = confine.open_tree(target, read_only=False, nested=False)
    except OSError as error:
        return confine.answer({"error": f"the build's folder cannot be reached: {error.strerror}", "status": 500})
    return confine.answer(
        confine.run(
            lambda: unpack(Tree(tree), sys.stdin.buffer, bounds), [tree], calls=sandbox.WRITE_CALLS, capabilities=sandbox.OWNERS
        )
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
