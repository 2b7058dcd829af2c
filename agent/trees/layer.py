"""Unpacks one layer while it streams in: `python -m agent.trees.layer TARGET DIGEST DIFF_ID KEEP ATTRIBUTE LIMITS`.

The compressed blob comes on standard input, is checked, copied to the file KEEP where one is named, decompressed, checked
against DIFF_ID and extracted below TARGET by a confined process; the reply is one line of JSON on standard output. ATTRIBUTE is
the extended attribute by which overlayfs marks a directory that replaces those below it. Source: OCI Image Specification,
layer.md."""

from __future__ import annotations

import os
import stat
import sys
from typing import BinaryIO

from agent.contract.printable import quoted
from agent.trees import confine, sandbox
from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.extract import extract
from agent.trees.policy import Policy
from agent.trees.streams import Decompressed, Source
from agent.trees.tree import Tree


def unpack(
    tree: Tree, source: BinaryIO, keep: BinaryIO | None, digest: str, diff_id: str, attribute: str, bounds: Bounds
) -> confine.Reply:
    """The work itself; the reply has what the worker may not do (devices, trusted attributes), for `finish`."""
    compressed = Source(source, keep)
    plain = Decompressed(compressed, bounds.bytes)
    rootless = attribute.startswith("user.")
    policy = Policy(what="layer", whiteouts=True, opaque=attribute if rootless else "", devices=not rootless)
    result = extract(plain, tree, policy, bounds)
    plain.drain()
    blob, diff = f"sha256:{compressed.hash.hexdigest()}", f"sha256:{plain.hash.hexdigest()}"
    if digest and blob != digest:
        raise TreeError(f"the layer has digest {blob}, the manifest says {digest}")
    if diff_id and diff != diff_id:
        raise TreeError(f"the unpacked layer has digest {diff}, the image's config says {diff_id}")
    if keep:
        keep.flush()  # its disk is waited for by who gives it its name
    return {"digest": blob, "diff_id": diff, "blob_size": compressed.size} | {
        "size": result.size,
        "devices": result.devices,
        "opaque": sorted(result.opaque),
    }


def finish(target: str, reply: confine.Reply, attribute: str) -> None:
    """Do the work for a layer that only the host's root can do: devices, and directories that replace those below.

    Raises TreeError, OSError."""
    with Tree.at(target) as tree:
        for path, (mode, major, minor, uid, gid, when) in reply.pop("devices").items():
            parent, name = tree.parent(path)
            above = os.stat(parent)
            if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
                continue
            try:
                os.mknod(name, stat.S_IFMT(mode) | 0o600, os.makedev(major, minor), dir_fd=parent)
            except FileExistsError:  # by another name, through a link
                raise TreeError(f"the device {quoted(path)} contradicts another entry") from None
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
            os.chmod(name, stat.S_IMODE(mode), dir_fd=parent)
            os.utime(name, (when, when), dir_fd=parent, follow_symlinks=False)
            os.utime(f"/proc/self/fd/{parent}", ns=(above.st_atime_ns, above.st_mtime_ns))
        for path in reply.pop("opaque"):
            fd = tree.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.setxattr(fd, attribute, b"y")
            finally:
                os.close(fd)


def main(target: str, digest: str, diff_id: str, keep: str, attribute: str, limits: str) -> int:
    """Unpack a layer from standard input into *target*, confined; answers on standard output, returns the exit status."""
    try:
        kept = open(keep, "wb") if keep else None  # noqa: SIM115 - the child writes it
        tree = confine.open_tree(target, read_only=False, nested=False)
        reply = confine.run(
            lambda: unpack(Tree(tree), sys.stdin.buffer, kept, digest, diff_id, attribute, Bounds.of(limits)),
            [tree],
            calls=sandbox.WRITE_CALLS,
            capabilities=sandbox.OWNERS,
        )
        if "error" not in reply:
            finish(target, reply, attribute)
    except (TreeError, OSError) as error:
        reply = confine.as_reply(error)
    if "errno" in reply:
        reply["error"] = f"the layer cannot be written: {reply['error']}"
    return confine.answer(reply)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:7]))
