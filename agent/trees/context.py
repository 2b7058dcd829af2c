"""Unpacks the context of a build: `python -m agent.trees.context TARGET LIMITS [GONE]` reads a tar on standard input.

It may be compressed. TARGET may hold an earlier context, which the tar brings up to date; GONE is then a file with a JSON list
of paths that are in it no more. All files become the builder's own, devices are left out; the reply has the "entries" of a
listing. Source: Docker Engine API v1.48, ImageBuild.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from agent.trees import confine, removal, sandbox
from agent.trees.bounds import Bounds
from agent.trees.extract import extract
from agent.trees.listing import TreeListing
from agent.trees.policy import Policy
from agent.trees.streams import Decompressed, Source
from agent.trees.tree import Tree


def unpack(tree: Tree, source: BinaryIO, bounds: Bounds, gone: Sequence[str] = ()) -> confine.Reply:
    """Unpack a build context, compressed or not, into *tree*, without the paths *gone*. Raises TreeError."""
    for path in gone:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            removal.remove(*tree.parent(path))
    tree.forget_parents()
    plain = Decompressed(Source(source, None), bounds.bytes)
    extract(plain, tree, Policy(what="build context", owners=False, attributes=False, devices=False), bounds)
    plain.drain()
    return {"entries": TreeListing(tree, bounds).take([("", 0)])}


def main(target: str, limits: str, gone: str = "") -> int:
    """Unpack standard input into the directory *target*, confined; answers on standard output, returns the exit status."""
    bounds = Bounds.of(limits)
    paths = json.loads(Path(gone).read_bytes()) if gone else ()
    try:
        tree = confine.open_tree(target, read_only=False, nested=False)
    except OSError as error:
        return confine.answer({"error": f"the build's folder cannot be reached: {error.strerror}", "status": 500})
    work = partial(unpack, Tree(tree), sys.stdin.buffer, bounds, paths)
    return confine.answer(confine.run(work, [tree], calls=sandbox.WRITE_CALLS, capabilities=sandbox.OWNERS))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
