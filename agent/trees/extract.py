"""A tar stream into a tree: layers of images, archives copied into containers, build contexts, archives out of containers.

Source: POSIX.1-2008 pax; GNU tar manual, "Sparse Formats"; OCI Image Specification, layer.md (whiteouts); kernel
Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable
from typing import cast

from agent.contract.printable import quoted
from agent.trees import removal
from agent.trees.attributes import Attributes, seconds
from agent.trees.bounds import Bounds
from agent.trees.extracted import ExtractedTree
from agent.trees.paths import parts_of
from agent.trees.policy import Policy
from agent.trees.tar_reader import Readable, TarReader
from agent.trees.tree import Tree

MAX_MAJOR, MAX_MINOR = 1 << 12, 1 << 20
"""Of Linux's device numbers. Source: include/linux/kdev_t.h."""
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
PASSED_ON = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""Errors that the archive does not cause."""
REASONS = {
    errno.EFBIG: "is larger than a file may be",
    errno.ELOOP: "leads through a symbolic link",
    errno.EXDEV: "leads out of the directory",
    errno.ENOTDIR: "lies below a file",
    errno.EEXIST: "contradicts an earlier entry",
    errno.ENOENT: "names a file that is not there",
    errno.EBUSY: "is in use: something is mounted there",
}


def extract(
    stream: Readable,
    tree: Tree,
    policy: Policy,
    bounds: Bounds,
    *,
    into: str = "",
    rename: Callable[[str], str | None] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> ExtractedTree:
    """Unpack the tar *stream* below the directory *into* of *tree*. *rename* returns each entry's new name, None to skip it;
    *progress* is called with the number of bytes written.

    Raises TreeError, and OSError for a full or failing disk."""
    reader = TarReader(stream, policy.what, bounds)
    return _Extraction(reader, tree, policy, bounds, into, rename, progress).run()


class _Extraction:
    """Makes each entry of *reader* in *tree*."""

    def __init__(
        self,
        reader: TarReader,
        tree: Tree,
        policy: Policy,
        bounds: Bounds,
        into: str,
        rename: Callable[[str], str | None] | None,
        progress: Callable[[int], None],
    ) -> None:
        self.reader, self.tree, self.policy, self.bounds = reader, tree, policy, bounds
        self.into = "/".join(parts_of(into))
        self.rename, self.progress = rename, progress
        self.attributes = Attributes(policy)
        self.result = ExtractedTree(policy.what)
        self.directories: list[tuple[str, tarfile.TarInfo]] = []
        self.claimed = 0

    def run(self) -> ExtractedTree:
        for entry in self.reader.entries():
            try:
                self._make(entry)
            except OSError as error:
                raise self._explained(error) from error
        self._settle_directories()
        return self.result

    def _explained(self, error: OSError) -> Exception:
        """A TreeError that names the entry, for an error of the system; errors of the disk stay OSErrors."""
        if error.errno in PASSED_ON:
            return OSError(error.errno, os.strerror(error.errno or 0), quoted(self.reader.entry))
        return self.reader.wrong(REASONS.get(error.errno or 0, f"cannot be written: {error.strerror}"))

    def _path(self, name: str) -> str:
        """*name* relative to the tree's root. Raises TreeError if it leaves it or is out of bounds."""
        parts = self.bounds.parts(name, self.policy.what)
        return "/".join([self.into, *parts] if self.into else parts)

    def _make(self, entry: tarfile.TarInfo) -> None:
        name: str | None = entry.name
        if self.rename and (name := self.rename(entry.name)) is None:
            return
        path = self._path(name or "")
        base = path.rpartition("/")[2]
        if self.policy.whiteouts and base.startswith(WHITEOUT):
            self._whiteout(path, base)
            return
        self.attributes.set_owner(entry)
        if not entry.isdir() and (not path or path == self.into):
            raise self.reader.wrong("would replace its root")
        if self.result.is_below_device(path):
            raise self.reader.wrong("lies below a device")
        if entry.isdir():
            self.result.devices.pop(path, None)
            self._directory(path, entry)
            return
        if entry.isreg():
            return self._file(entry, path)
        parent, base = self._room(path)
        if entry.islnk():
            self._hard_link(entry, parent, base, path)
        elif entry.issym():
            self._symbolic_link(entry, parent, base)
        elif entry.isfifo():
            os.mkfifo(base, entry.mode & self.policy.modes, dir_fd=parent)
            self.attributes.apply_by_name(entry, parent, base)
            os.chmod(base, entry.mode & self.policy.modes, dir_fd=parent)
        elif entry.ischr() or entry.isblk():
            self._device(entry, path)
        else:
            raise self.reader.wrong(f"is of unknown type {entry.type!r}")

    def _room(self, path: str) -> tuple[int, str]:
        """The directory for *path*, made if it is missing, and its name there, after removing an earlier entry of that name."""
        parent, base = self._parent(path)
        return self._parent(path) if self._clear(parent, base, path) else (parent, base)

    def _parent(self, path: str) -> tuple[int, str]:
        try:
            return self.tree.parent(path)
        except FileNotFoundError:
            self.tree.make(path.rpartition("/")[0], directory=True)
            return self.tree.parent(path)

    def _clear(self, parent: int, base: str, path: str) -> bool:
        """Remove the file at *path*. Returns True if that was a directory, so that parents must be looked up again."""
        directory = False
        try:
            os.unlink(base, dir_fd=parent)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):  # POSIX names the second for a directory
            if self.policy.keep_directories:
                raise self.reader.wrong("cannot overwrite a directory with a non-directory") from None
            directory = True
            removal.remove(parent, base)
            self.tree.forget_parents()
        self.result.forget(path)
        return directory

    def _whiteout(self, path: str, base: str) -> None:
        above = path.rpartition("/")[0]
        if base == OPAQUE:
            self.tree.make(above, directory=True)
            if self.policy.opaque:
                fd = self.tree.open(above or ".", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.setxattr(fd, self.policy.opaque, b"y")
                finally:
                    os.close(fd)
            else:
                self.result.add_opaque(above)
        elif base[len(WHITEOUT) :] not in ("", ".", "..") and not base.startswith(".wh..wh."):
            hidden = f"{above}/{base[len(WHITEOUT) :]}".lstrip("/")
            parent, name = self._room(hidden)
            os.mknod(name, 0o600 | stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _directory(self, path: str, entry: tarfile.TarInfo) -> None:
        if path and path != self.into:
            parent, base = self._parent(path)
            try:
                os.mkdir(base, 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
                    if self.policy.keep_others:
                        raise self.reader.wrong("cannot overwrite a non-directory with a directory") from None
                    parent, base = self._room(path)
                    os.mkdir(base, 0o700, dir_fd=parent)
        # owner and mode at once, time in the end; both by descriptor
        fd = self.tree.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self.attributes.apply(entry, fd, times=False)
        finally:
            os.close(fd)
        self.directories.append((path, entry))

    def _settle_directories(self) -> None:
        """Set the times of directories, which change with each entry in them."""
        for path, entry in self.directories:
            try:
                parent, base = self.tree.parent(path)
                if stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
                    when = seconds(entry)
                    os.utime(base, (when, when), dir_fd=parent, follow_symlinks=False)
            except OSError:
                continue  # a later entry took it away

    def _file(self, entry: tarfile.TarInfo, path: str) -> None:
        self.claimed += entry.size
        if entry.size < 0 or self.claimed > self.bounds.bytes:
            raise self.reader.wrong(f"claims {entry.size} bytes, which makes more than {self.bounds.bytes} in all")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        parent, base = self._parent(path)
        self.result.forget(path)
        try:
            fd = os.open(base, flags, 0o600, dir_fd=parent)
        except FileExistsError:  # seldom: so it is tried before room is made
            parent, base = self._room(path)
            fd = os.open(base, flags, 0o600, dir_fd=parent)
        try:
            if entry.sparse is None:
                self._copy(fd, entry.size)
            else:
                self._copy_sparse(fd, entry)
            self.attributes.apply(entry, fd)
        finally:
            os.close(fd)
        self.result.size += entry.size

    def _copy(self, fd: int, size: int) -> None:
        for data in self.reader.data(size):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            self.progress(len(data))

    def _copy_sparse(self, fd: int, entry: tarfile.TarInfo) -> None:
        """Copy a sparse file: the archive has its data without the holes, which are made again."""
        end = 0
        for offset, size in cast("list[tuple[int, int]]", entry.sparse):
            if not size:
                continue  # an unused place of the map
            if offset < end or size < 0 or offset + size > entry.size:
                raise self.reader.wrong("has a map of holes that contradicts itself")
            end = offset + size
            os.lseek(fd, offset, os.SEEK_SET)
            self._copy(fd, size)
        os.ftruncate(fd, entry.size)

    def _symbolic_link(self, entry: tarfile.TarInfo, parent: int, base: str) -> None:
        if not entry.linkname or "\0" in entry.linkname:
            raise self.reader.wrong("is a link to an impossible name")
        os.symlink(entry.linkname, base, dir_fd=parent)
        self.attributes.apply_by_name(entry, parent, base)

    def _hard_link(self, entry: tarfile.TarInfo, parent: int, base: str, path: str) -> None:
        target: str | None = entry.linkname
        if self.rename and (target := self.rename(entry.linkname)) is None:
            raise self.reader.wrong(f"is a link to {quoted(entry.linkname)}, which is left out")
        source = self._path(target or "")
        if source in self.result.devices:
            self.result.add_device(path, self.result.devices[source])
            return
        kept = os.dup(parent)  # the next look-up may close it
        try:
            above, name = self.tree.parent(source)
            os.link(name, base, src_dir_fd=above, dst_dir_fd=kept, follow_symlinks=False)
        finally:
            os.close(kept)

    def _device(self, entry: tarfile.TarInfo, path: str) -> None:
        if not self.policy.devices:
            return
        if not (0 <= entry.devmajor < MAX_MAJOR and 0 <= entry.devminor < MAX_MINOR):
            raise self.reader.wrong("has a device number out of range")
        kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
        mode = kind | entry.mode & 0o7777
        self.result.add_device(path, (mode, entry.devmajor, entry.devminor, entry.uid, entry.gid, seconds(entry)))
