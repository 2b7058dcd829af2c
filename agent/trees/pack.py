"""A tree, or a part of it, as a tar stream: files out of containers, exports, writable layers.

Source: POSIX.1-2008 pax; OCI Image Specification, layer.md (whiteouts); Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from agent.trees.streams import CHUNK
from agent.trees.tree import Tree, working_in

_NOTES = ("trusted.overlay.", "user.overlay.", "security.selinux")
"""The extended attributes of overlayfs itself."""
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


class WalkEntry(NamedTuple):
    """One entry of a walk: *directory* is its open directory, *path* is relative to the walk's start."""

    path: str
    name: str
    directory: int
    status: os.stat_result


def walk(tree: Tree, start: str = "") -> Iterator[WalkEntry]:
    """All entries below the directory *start*, each directory before its entries, in order of names; links are not followed.

    Files that vanish meanwhile are left out. Raises OSError: ENAMETOOLONG for a path that no system call takes."""
    pending = [""]
    while pending:
        below = pending.pop()
        try:
            fd = tree.open(f"{start}/{below}", os.O_RDONLY | os.O_DIRECTORY, links=not below)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:  # replaced by a link since
                continue
            raise
        try:
            inner = []
            for name in sorted(os.listdir(fd)):
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                path = f"{below}/{name}" if below else name
                if stat.S_ISDIR(status.st_mode):
                    inner.append(path)
                yield WalkEntry(path, name, fd, status)
            pending += reversed(inner)
        finally:
            os.close(fd)


def is_whiteout(status: os.stat_result) -> bool:
    """A deletion, as overlayfs writes it down."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


class Packer:
    """Writes entries of a tree to *out*. Owners count from *first_id* on, the host's ID of the container's root."""

    def __init__(self, out: BinaryIO, *, first_id: int = 0) -> None:
        self._out, self._first_id = out, first_id
        self._linked: dict[tuple[int, int], str] = {}

    def entry(self, seen: WalkEntry, name: str) -> None:
        """One entry under *name*, with its content; sockets are left out, as everywhere."""
        kind = _TYPES.get(stat.S_IFMT(seen.status.st_mode))
        if kind is None:
            return
        try:
            if kind == tarfile.REGTYPE:
                self._file(seen, name)
            else:
                info = self._header(seen.status, name, kind)
                if kind == tarfile.SYMTYPE:
                    info.linkname = os.readlink(seen.name, dir_fd=seen.directory)
                info.pax_headers = self._attributes(seen, -1)
                self._write(info)
        except FileNotFoundError:
            pass  # gone since it was listed

    def mark(self, name: str) -> None:
        """An empty file: a whiteout of a layer."""
        self._write(tarfile.TarInfo(name))

    def end(self) -> None:
        """The two blocks that end an archive."""
        self._out.write(b"\0" * 1024)
        self._out.flush()

    def _file(self, seen: WalkEntry, name: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(seen.name, flags, dir_fd=seen.directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a FIFO since it was listed
                return
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            info = self._header(status, name, tarfile.REGTYPE)
            if status.st_nlink > 1:
                first = self._linked.setdefault((status.st_dev, status.st_ino), name)
                if first != name:
                    info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
                    self._write(info)
                    return
            info.pax_headers = self._attributes(seen, fd)
            self._write(info)
            self.content(fd, info.size)
        finally:
            os.close(fd)

    def content(self, fd: int, size: int) -> None:
        """Exactly *size* bytes, as in the header: a file that shrinks meanwhile is padded with zeros."""
        padding = -size % tarfile.BLOCKSIZE
        while size > 0:
            data = os.read(fd, min(size, CHUNK)) or b"\0" * min(size, CHUNK)
            self._out.write(data)
            size -= len(data)
        self._out.write(b"\0" * padding)

    def _header(self, status: os.stat_result, name: str, kind: bytes) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = kind, stat.S_IMODE(status.st_mode), int(status.st_mtime)
        info.uid, info.gid = max(0, status.st_uid - self._first_id), max(0, status.st_gid - self._first_id)
        info.size = status.st_size if kind == tarfile.REGTYPE else 0
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        return info

    def _attributes(self, seen: WalkEntry, fd: int) -> dict[str, str]:
        """Extended attributes as pax records. Those of links and the like are read by name in their directory."""
        out: dict[str, str] = {}
        follow = fd >= 0
        target: int | str = fd if follow else seen.name
        try:
            with contextlib.nullcontext() if follow else working_in(seen.directory):
                for key in os.listxattr(target, follow_symlinks=follow):
                    if not key.startswith(_NOTES):
                        value = os.getxattr(target, key, follow_symlinks=follow)
                        out[f"SCHILY.xattr.{key}"] = value.decode("utf-8", "surrogateescape")
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA, errno.ENOENT, errno.EPERM):
                raise
        return out

    def _write(self, info: tarfile.TarInfo) -> None:
        self._out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def pack_layer(tree: Tree, packer: Packer, opaque: str) -> None:
    """All of the tree as a layer: deletions become whiteouts; *opaque* is overlayfs' attribute of directories that replace
    others."""
    for seen in walk(tree):
        if is_whiteout(seen.status):
            above = seen.path[: -len(seen.name)]
            packer.mark(f"{above}.wh.{seen.name}")
            continue
        packer.entry(seen, seen.path)
        if stat.S_ISDIR(seen.status.st_mode) and is_opaque(seen, opaque):
            packer.mark(f"{seen.path}/.wh..wh..opq")


def is_opaque(seen: WalkEntry, attribute: str) -> bool:
    """Whether the directory hides what lower layers have in it, by overlayfs' *attribute*."""
    try:
        fd = os.open(seen.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=seen.directory)
    except OSError:
        return False
    try:
        return os.getxattr(fd, attribute) == b"y"
    except OSError:
        return False
    finally:
        os.close(fd)


def changes(upper: Tree, lower: Tree) -> Iterator[tuple[str, int]]:
    """Paths that the tree *upper* changes of *lower*, with Docker's kind of change: 0 modified, 1 added, 2 deleted."""
    for seen in walk(upper):
        if is_whiteout(seen.status):
            yield seen.path, 2
            continue
        try:
            lower.lstat(seen.path)
        except OSError:
            yield seen.path, 1
        else:
            yield seen.path, 0


def copy_tree(source: Tree, start: str, target: Tree) -> None:
    """All below the directory *start* of *source* into the root of *target*: owners, modes, times, attributes, links and holes.

    Devices are left out, since containers get theirs from the runtime, and sockets, which belong to a process.
    Raises OSError."""
    first: dict[tuple[int, int], str] = {}
    directories: list[tuple[str, os.stat_result]] = []
    top = source.open(start, os.O_RDONLY | os.O_DIRECTORY)
    try:
        directories.append(("", os.fstat(top)))
        _dress_root(top, target, directories[0][1])
    finally:
        os.close(top)
    for seen in walk(source, start):
        status, key = seen.status, (seen.status.st_dev, seen.status.st_ino)
        parent, name = target.parent(seen.path)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=parent)
            directories.append((seen.path, status))
            dress_directory(seen, parent, seen.name)
        elif status.st_nlink > 1 and key in first:
            held = os.dup(parent)  # the next look-up may close it
            try:
                above, other = target.parent(first[key])
                os.link(other, name, src_dir_fd=above, dst_dir_fd=held, follow_symlinks=False)
            finally:
                os.close(held)
        elif stat.S_ISREG(status.st_mode):
            first[key] = seen.path
            copy_file(seen, parent, name)
        elif stat.S_ISLNK(status.st_mode) or stat.S_ISFIFO(status.st_mode):
            first[key] = seen.path
            if stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(seen.name, dir_fd=seen.directory), name, dir_fd=parent)
            else:
                os.mkfifo(name, 0o600, dir_fd=parent)
                os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=parent, follow_symlinks=False)
    for path, status in reversed(directories):
        parent, name = target.parent(path)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=parent, follow_symlinks=False)


def copy_file(seen: WalkEntry, parent: int, name: str) -> None:
    """One regular file, its data only: holes stay holes (lseek(2), SEEK_DATA)."""
    source = os.open(seen.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=seen.directory)
    try:
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            size, at = os.fstat(source).st_size, 0
            while at < size:
                try:
                    at = os.lseek(source, at, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                        break
                    raise
                end = os.lseek(source, at, os.SEEK_HOLE)
                os.lseek(source, at, os.SEEK_SET)
                os.lseek(target, at, os.SEEK_SET)
                while at < end and (data := os.read(source, min(end - at, CHUNK))):
                    at += len(data)
                    view = memoryview(data)
                    while view:
                        view = view[os.write(target, view) :]
                at = max(at, end)
            os.ftruncate(target, size)
            dress(source, target, seen.status)
        finally:
            os.close(target)
    finally:
        os.close(source)


def dress_directory(seen: WalkEntry, parent: int, name: str) -> None:
    """Give the directory *name* in *parent* the owner, mode, attributes and times of the directory *seen*."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    source = os.open(seen.name, flags, dir_fd=seen.directory)
    try:
        target = os.open(name, flags, dir_fd=parent)
        try:
            dress(source, target, seen.status)
        finally:
            os.close(target)
    finally:
        os.close(source)


def dress(source: int, target: int, status: os.stat_result) -> None:
    """Owner, attributes, mode and times of the open file *source* for *target*; a file system without a kind of attribute, or a
    user without the right to it, loses it."""
    os.fchown(target, status.st_uid, status.st_gid)
    for key in os.listxattr(source):
        if not key.startswith(_NOTES):
            try:
                os.setxattr(target, key, os.getxattr(source, key))
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ENODATA):
                    raise
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _dress_root(source: int, target: Tree, status: os.stat_result) -> None:
    fd = target.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        dress(source, fd, status)
    finally:
        os.close(fd)
