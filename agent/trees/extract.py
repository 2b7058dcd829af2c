"""A tar stream into a tree: layers of images, archives copied into containers, build contexts, archives out of containers.

`tarfile` parses headers; nothing of its extraction is used. Source: POSIX.1-2008 pax; GNU tar manual, "Sparse Formats"; OCI
Image Specification, layer.md (whiteouts); kernel Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from agent.trees import removal
from agent.trees.errors import TreeError
from agent.trees.streams import CHUNK
from agent.trees.tree import Tree, parts_of, working_in

MAX_FIXUPS = 100_000
"""Devices and opaque directories of one layer: more than any real one has."""
_NAME_BYTES = 255
_MAX_OWNER = (1 << 31) - 1
_MAX_TIME = 1 << 32
_MAX_MAJOR, _MAX_MINOR = 1 << 12, 1 << 20
"""Of Linux's device numbers. Source: include/linux/kdev_t.h."""
_LOST = (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)
"""A file system, or a user, without a kind of attribute loses it, as in Docker."""
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


class Bounds(NamedTuple):
    """What one archive may hold: entries, bytes of all files (holes count), bytes and parts of a path."""

    entries: int = 2_000_000
    bytes: int = 64 << 30
    path_bytes: int = 4096
    path_depth: int = 255

    @classmethod
    def of(cls, text: str) -> Bounds:
        """From a worker's argument: a JSON object with these names, "" for the defaults."""
        return cls(**json.loads(text)) if text else cls()


class Policy(NamedTuple):
    """How an archive becomes files. *whiteouts* are made as overlayfs has them, under the attribute *opaque*, or, where that is
    "", left to the caller as devices are; *owners* are kept; *attributes* are kept."""

    what: str = "archive"
    """What messages call the archive."""
    whiteouts: bool = False
    opaque: str = ""
    owners: bool = True
    attributes: bool = True
    devices: bool = True
    """Off: devices are left out, since this process cannot make any."""
    modes: int = 0o7777
    """The bits of a mode that are kept."""
    keep_directories: bool = False
    """On: a directory that is there is not replaced by something else."""
    owner: tuple[int, int] | None = None
    """The owner of each file, (user, group), in place of the archive's."""
    keep_others: bool = False
    """On: what is there and is no directory is not replaced by one."""


class ExtractedTree:
    """What was done: bytes in files; and what only the host's root can do, in this order: *devices*, path → mode with its kind,
    major, minor, owner, group, time; and *opaque* directories."""

    def __init__(self) -> None:
        self.size = 0
        self.devices: dict[str, tuple[int, int, int, int, int, float]] = {}
        self.opaque: set[str] = set()


class Readable(Protocol):
    """What an archive is read from."""

    def read(self, size: int = ..., /) -> bytes:
        """At most *size* bytes, b"" at the end."""
        ...


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
    """Unpack the tar *stream* below the directory *into* of *tree*. *rename* gives each entry its name, None to leave it out;
    *progress* hears of bytes written.

    Raises TreeError, OSError where the disk or the tree refuses."""
    return _Extraction(stream, tree, policy, bounds, into, rename, progress).run()


class _Extraction:
    def __init__(
        self,
        stream: Readable,
        tree: Tree,
        policy: Policy,
        bounds: Bounds,
        into: str,
        rename: Callable[[str], str | None] | None,
        progress: Callable[[int], None],
    ) -> None:
        self.source, self.tree, self.policy, self.bounds = _Forward(stream), tree, policy, bounds
        self.into = "/".join(parts_of(into))
        self.rename, self.progress = rename, progress
        self.result = ExtractedTree()
        self.directories: list[tuple[str, tarfile.TarInfo]] = []
        self.claimed = 0
        self.entry = ""

    def run(self) -> ExtractedTree:
        archive = self._open()
        count = 0
        while (entry := self._next(archive)) is not None:
            count += 1
            if count > self.bounds.entries:
                raise TreeError(f"the {self.policy.what} has more than {self.bounds.entries} entries")
            try:
                self._one(entry)
            except OSError as error:
                raise self._told(error) from error
        self._settle_directories()
        return self.result

    def _open(self) -> tarfile.TarFile:
        try:
            return tarfile.TarFile(
                fileobj=self.source,  # type: ignore[arg-type]
                mode="r",
                errorlevel=2,
                encoding="utf-8",
                errors="surrogateescape",
            )
        except (TreeError, OSError):
            raise
        except Exception as error:
            raise self._invalid(error) from error

    def _next(self, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        """The next header. Any error of `tarfile` for garbage (ValueError, IndexError, …) is a fault of the archive."""
        try:
            entry = archive.next()
        except (TreeError, OSError, MemoryError):
            raise
        except Exception as error:
            raise self._invalid(error) from error
        archive.members = []  # type: ignore[attr-defined]  # or all headers would stay in memory
        if entry is None and self.source.last.strip(b"\0"):
            raise self._invalid(tarfile.ReadError("a header is damaged"))  # which `tarfile` takes for the end
        return entry

    def _invalid(self, error: Exception) -> TreeError:
        after = f" after {quoted(self.entry)}" if self.entry else ""
        why = quoted(str(error)) or type(error).__name__
        return TreeError(f"the {self.policy.what} is not a valid tar archive{after}: {why}")

    def _wrong(self, entry: tarfile.TarInfo, why: str) -> TreeError:
        return TreeError(f"the {self.policy.what}'s entry {quoted(entry.name)} {why}")

    def _told(self, error: OSError) -> Exception:
        """An error of the system at an entry, in words that name the entry; a full disk stays what it is."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            return OSError(error.errno, os.strerror(error.errno), quoted(self.entry))
        if error.errno == errno.EFBIG:
            return TreeError(f"the {self.policy.what}'s entry {quoted(self.entry)} is larger than a file may be")
        why = {
            errno.ELOOP: "leads through a symbolic link",
            errno.EXDEV: "leads out of the directory",
            errno.ENOTDIR: "lies below a file",
            errno.EEXIST: "contradicts an earlier entry",
            errno.ENOENT: "names a file that is not there",
            errno.EBUSY: "is in use: something is mounted there",
        }.get(error.errno or 0, f"cannot be written: {error.strerror}")
        return TreeError(f"the {self.policy.what}'s entry {quoted(self.entry)} {why}")

    def _path(self, name: str) -> str:
        """*name* relative to the tree's root. Raises TreeError where it leaves it or is out of bounds."""
        what = f"the {self.policy.what}'s entry {quoted(name)}"
        if "\0" in name:
            raise TreeError(f"{what} has a zero byte in its name")
        parts = parts_of(name)
        if ".." in parts:
            raise TreeError(f"{what} leaves its root")
        if len(parts) > self.bounds.path_depth:
            raise TreeError(f"{what} is more than {self.bounds.path_depth} directories deep")
        if len(os.fsencode(name)) > self.bounds.path_bytes:
            raise TreeError(f"{what} has a path longer than {self.bounds.path_bytes} bytes")
        if any(len(os.fsencode(part)) > _NAME_BYTES for part in parts):
            raise TreeError(f"{what} has a name longer than {_NAME_BYTES} bytes")
        return "/".join([self.into, *parts] if self.into else parts)

    def _one(self, entry: tarfile.TarInfo) -> None:
        name: str | None = entry.name
        self.entry = entry.name
        if self.rename and (name := self.rename(entry.name)) is None:
            return
        path = self._path(name or "")
        base = path.rpartition("/")[2]
        if self.policy.whiteouts and base.startswith(_WHITEOUT):
            self._whiteout(path, base)
            return
        if self.policy.owner:
            entry.uid, entry.gid = self.policy.owner
        if not (0 <= entry.uid <= _MAX_OWNER and 0 <= entry.gid <= _MAX_OWNER):
            raise self._wrong(entry, "has an owner out of range")
        if entry.isdir():
            self._not_below_a_device(entry, path)
            self.result.devices.pop(path, None)
            self._directory(path, entry)
            return
        if not path or path == self.into:
            raise self._wrong(entry, "would replace its root")
        self._not_below_a_device(entry, path)
        parent, base = self._room(path)
        if entry.isreg():
            self._file(entry, parent, base)
        elif entry.islnk():
            self._hard_link(entry, parent, base, path)
        elif entry.issym():
            self._symbolic_link(entry, parent, base)
        elif entry.isfifo():
            os.mkfifo(base, entry.mode & self.policy.modes, dir_fd=parent)
            self._attributes_of(entry, parent, base)
            os.chmod(base, entry.mode & self.policy.modes, dir_fd=parent)
        elif entry.ischr() or entry.isblk():
            self._device(entry, path)
        else:
            raise self._wrong(entry, f"is of unknown type {entry.type!r}")

    def _room(self, path: str) -> tuple[int, str]:
        """The directory for *path*, made where it is missing, and its name there, free of what an earlier entry put there."""
        parent, base = self._parent(path)
        return self._parent(path) if self._clear(parent, base, path) else (parent, base)

    def _parent(self, path: str) -> tuple[int, str]:
        try:
            return self.tree.parent(path)
        except FileNotFoundError:
            self.tree.make(path.rpartition("/")[0], directory=True)
            return self.tree.parent(path)

    def _clear(self, parent: int, base: str, path: str) -> bool:
        """Take away what is at *path*; True where that was a directory, so that others must be looked up anew."""
        directory = False
        try:
            os.unlink(base, dir_fd=parent)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):  # POSIX names the second for a directory
            if self.policy.keep_directories:
                raise TreeError(
                    f"the {self.policy.what}'s entry {quoted(self.entry)} cannot overwrite a directory with a non-directory"
                ) from None
            directory = True
            removal.remove(parent, base)
            self.tree.forget_parents()
        if self.result.devices or self.result.opaque:
            self.result.devices.pop(path, None)
            below = f"{path}/"
            for gone in [p for p in self.result.opaque if p == path or p.startswith(below)]:
                self.result.opaque.discard(gone)
            for gone in [p for p in self.result.devices if p.startswith(below)]:
                del self.result.devices[gone]
        return directory

    def _whiteout(self, path: str, base: str) -> None:
        above = path.rpartition("/")[0]
        if base == _OPAQUE:
            self.tree.make(above, directory=True)
            if self.policy.opaque:
                fd = self.tree.open(above or ".", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.setxattr(fd, self.policy.opaque, b"y")
                finally:
                    os.close(fd)
            else:
                self.result.opaque.add(above)
                self._bound_fixups()
        elif base[len(_WHITEOUT) :] not in ("", ".", "..") and not base.startswith(".wh..wh."):
            hidden = f"{above}/{base[len(_WHITEOUT) :]}".lstrip("/")
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
                        raise TreeError(
                            f"the {self.policy.what}'s entry {quoted(self.entry)} cannot overwrite a "
                            "non-directory with a directory"
                        ) from None
                    parent, base = self._room(path)
                    os.mkdir(base, 0o700, dir_fd=parent)
        # owner and mode at once, time in the end; both by descriptor
        fd = self.tree.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._dress(fd, entry, times=False)
        finally:
            os.close(fd)
        self.directories.append((path, entry))

    def _settle_directories(self) -> None:
        for path, entry in self.directories:
            try:
                parent, base = self.tree.parent(path)
                if stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
                    when = _seconds(entry)
                    os.utime(base, (when, when), dir_fd=parent, follow_symlinks=False)
            except OSError:
                continue  # a later entry took it away

    def _file(self, entry: tarfile.TarInfo, parent: int, base: str) -> None:
        self.claimed += entry.size
        if entry.size < 0 or self.claimed > self.bounds.bytes:
            raise self._wrong(entry, f"claims {entry.size} bytes, which makes more than {self.bounds.bytes} in all")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(base, flags, 0o600, dir_fd=parent)
        try:
            if entry.sparse is None:
                self._copy(fd, entry.size)
            else:
                self._holes(fd, entry)
            self._dress(fd, entry)
        finally:
            os.close(fd)
        self.result.size += entry.size

    def _copy(self, fd: int, size: int) -> None:
        while size > 0:
            data = self.source.read(min(size, CHUNK))
            if not data:
                raise TreeError(f"the {self.policy.what} ends within its entry {quoted(self.entry)}")
            size -= len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            self.progress(len(data))

    def _holes(self, fd: int, entry: tarfile.TarInfo) -> None:
        """A sparse file: its data stand one after the other in the archive, what lies between are holes, and stay so."""
        end = 0
        holes = cast("list[tuple[int, int]]", entry.sparse)
        for offset, size in holes:
            if not size:
                continue  # an unused place of the map
            if offset < end or size < 0 or offset + size > entry.size:
                raise self._wrong(entry, "has a map of holes that contradicts itself")
            end = offset + size
            os.lseek(fd, offset, os.SEEK_SET)
            self._copy(fd, size)
        os.ftruncate(fd, entry.size)

    def _dress(self, fd: int, entry: tarfile.TarInfo, *, times: bool = True) -> None:
        """Owner, attributes, mode and time of an open file, in the order in which one does not undo the other."""
        if self.policy.owners:
            os.fchown(fd, entry.uid, entry.gid)
        for name, value in self._xattrs(entry):
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in _LOST:
                    raise
        os.fchmod(fd, entry.mode & self.policy.modes)
        if times:
            when = _seconds(entry)
            os.utime(fd, (when, when))

    def _xattrs(self, entry: tarfile.TarInfo) -> list[tuple[str, bytes]]:
        if not self.policy.attributes:
            return []
        out = []
        for key, value in entry.pax_headers.items():
            name = key.removeprefix("SCHILY.xattr.")
            if name == key or name.startswith(("trusted.overlay.", "user.overlay.")):
                continue
            if "\0" in name:
                raise self._wrong(entry, "has an attribute with a zero byte in its name")
            out.append((name, value.encode(errors="surrogateescape")))
        return out

    def _attributes_of(self, entry: tarfile.TarInfo, parent: int, base: str) -> None:
        """Owner, attributes and time of what can only be named: links and FIFOs."""
        if self.policy.owners:
            os.chown(base, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if attributes := self._xattrs(entry):
            with working_in(parent):
                for name, value in attributes:
                    try:
                        os.setxattr(base, name, value, follow_symlinks=False)
                    except OSError as error:
                        if error.errno not in _LOST:
                            raise
        when = _seconds(entry)
        os.utime(base, (when, when), dir_fd=parent, follow_symlinks=False)

    def _symbolic_link(self, entry: tarfile.TarInfo, parent: int, base: str) -> None:
        if not entry.linkname or "\0" in entry.linkname:
            raise self._wrong(entry, "is a link to an impossible name")
        os.symlink(entry.linkname, base, dir_fd=parent)
        self._attributes_of(entry, parent, base)

    def _hard_link(self, entry: tarfile.TarInfo, parent: int, base: str, path: str) -> None:
        target: str | None = entry.linkname
        if self.rename and (target := self.rename(entry.linkname)) is None:
            raise self._wrong(entry, f"is a link to {quoted(entry.linkname)}, which is left out")
        source = self._path(target or "")
        if source in self.result.devices:
            self.result.devices[path] = self.result.devices[source]
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
        if not (0 <= entry.devmajor < _MAX_MAJOR and 0 <= entry.devminor < _MAX_MINOR):
            raise self._wrong(entry, "has a device number out of range")
        kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
        mode = kind | entry.mode & 0o7777
        self.result.devices[path] = (mode, entry.devmajor, entry.devminor, entry.uid, entry.gid, _seconds(entry))
        self._bound_fixups()

    def _not_below_a_device(self, entry: tarfile.TarInfo, path: str) -> None:
        """Devices are made last: on the disk nothing is there yet that would say so."""
        above = path.rpartition("/")[0]
        while above and self.result.devices:
            if above in self.result.devices:
                raise self._wrong(entry, "lies below a device")
            above = above.rpartition("/")[0]

    def _bound_fixups(self) -> None:
        if len(self.result.devices) + len(self.result.opaque) > MAX_FIXUPS:
            raise TreeError(f"the {self.policy.what} has more than {MAX_FIXUPS} devices and replaced directories")


class _Raw(io.RawIOBase):
    """A stream as the raw side of a buffered reader."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Forward:
    """The file that `tarfile` reads headers from: it can only go forward, and knows the block that was read last."""

    def __init__(self, stream: Readable) -> None:
        self._file = io.BufferedReader(cast("io.FileIO", _Raw(stream)), CHUNK)
        self._at = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        self.last = self._file.read(size)
        self._at += len(self.last)
        return self.last

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        if position < self._at:
            raise tarfile.ReadError("a header leads back")
        while self._at < position and self.read(min(position - self._at, CHUNK)):
            pass


def _seconds(entry: tarfile.TarInfo) -> float:
    when = float(entry.mtime)
    return when if 0 <= when < _MAX_TIME else 0.0  # also for a NaN


def quoted(name: str) -> str:
    """A name of an archive's in a message: short, and of characters that a terminal can be trusted with."""
    text = name if len(name) <= 120 else f"{name[:100]}…"
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) < 0xE000 else ascii(c)[1:-1] for c in text)
