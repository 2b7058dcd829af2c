"""What a container wrote, as an OCI layer: `python -m agent.containers.layer UPPER [FIRST]` writes a tar of it to standard
output; FIRST is the owner that is root there.

A process of its own, since it can be long. overlayfs notes a deletion as a character device 0:0 and a replaced folder by
an attribute; a layer has files `.wh.NAME` and `.wh..wh..opq` for these. Source: OCI Image Format Specification, layer.md,
"Whiteouts"; Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from agent.mounts import overlay_attribute

NOTES = ("trusted.overlay.", "user.overlay.")

def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, overlay_attribute("opaque"), follow_symlinks=False) == b"y"
    except OSError:
        return False


def changes(upper: Path, lower: Path | None = None) -> Iterator[tuple[str, int]]:
    """Paths below the container's root with Docker's kind of change: 0 modified, 1 added, 2 deleted.

    *lower* is the image's root, by which modified is told from added."""
    for directory, prefix, names in _walk(upper):
        for name in names:
            path = f"/{prefix}{name}"
            if is_whiteout(os.lstat(os.path.join(directory, name))):
                yield path, 2
            else:
                yield path, 0 if lower is not None and os.path.lexists(f"{lower}{path}") else 1


def _walk(upper: str | Path) -> Iterator[tuple[str, str, list[str]]]:
    """Each folder, the beginning of its entries' names below *upper* ("" or "a/b/"), and the entries, in order."""
    for directory, folders, files in os.walk(upper):
        folders.sort()
        base = os.path.relpath(directory, upper)
        yield directory, "" if base == "." else f"{base}/", sorted((*folders, *files))


def write(upper: str, out: tarfile.TarFile, first: int = 0) -> None:
    for directory, prefix, names in _walk(upper):
        if prefix and is_opaque(directory):
            out.addfile(tarfile.TarInfo(f"{prefix}.wh..wh..opq"))
        for name in names:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if is_whiteout(status):
                out.addfile(tarfile.TarInfo(f"{prefix}.wh.{name}"))
            elif not stat.S_ISSOCK(status.st_mode):
                info = out.gettarinfo(path, f"{prefix}{name}")
                info.uid, info.gid = info.uid - first, info.gid - first
                info.pax_headers = {
                    f"SCHILY.xattr.{key}": os.getxattr(path, key, follow_symlinks=False).decode("utf-8", "surrogateescape")
                    for key in os.listxattr(path, follow_symlinks=False) if not key.startswith(NOTES)
                }
                if info.isreg():
                    with open(path, "rb") as file:
                        out.addfile(info, file)
                else:
                    out.addfile(info)


if __name__ == "__main__":
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        write(sys.argv[1], archive, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
