"""A directory as the root of every look-up below it: no link, no `..` and no magic link leads out of it.

Source: openat2(2), RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from agent.trees.paths import MAX_LINKS, parts_of
from netplugins.linux import uapi
from netplugins.linux.syscalls import libc

_IN_TREE = uapi.RESOLVE_IN_ROOT | uapi.RESOLVE_NO_MAGICLINKS
_NO_LINK_AT_ALL = uapi.RESOLVE_BENEATH | uapi.RESOLVE_NO_SYMLINKS | uapi.RESOLVE_NO_MAGICLINKS
_TRIES = 256
"""openat2 gives EAGAIN where a rename anywhere on the host races with a `..`."""
MAX_DEPTH = 255
"""Directories on the way to a path that is made for a container."""
CACHED_PARENTS = 64


@contextlib.contextmanager
def working_in(directory: int) -> Iterator[None]:
    """The open *directory* as the working directory of this process, for calls that take no directory beside a name: those for
    attributes before Linux 6.13."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(directory)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


class Tree:
    """Paths below the directory *fd*, which is closed with the tree. With *links* off no symbolic link is followed at all.

    Every method raises OSError with the path as its filename: ELOOP for a link that may not be followed, EXDEV for a `..` that
    leaves a tree without links."""

    def __init__(self, fd: int, *, links: bool = True) -> None:
        self.fd = fd
        self._resolve = _IN_TREE if links else _NO_LINK_AT_ALL
        self._parents: OrderedDict[str, int] = OrderedDict()

    @classmethod
    def at(cls, path: Path | str, *, links: bool = True) -> Tree:
        """The tree at *path* of the host, which must be a directory that foreign hands cannot replace."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), links=links)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        self.forget_parents()
        os.close(self.fd)

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0, *, links: bool = True) -> int:
        """A descriptor of *path*. Without *links* no part of it may be a symbolic link."""
        resolve = self._resolve if links else self._resolve | uapi.RESOLVE_NO_SYMLINKS
        how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
        name = os.fsencode(path.lstrip("/") or ".")
        if b"\0" in name:
            raise OSError(errno.EINVAL, "a path cannot hold a zero byte", path)
        for _ in range(_TRIES):
            fd = libc.syscall(uapi.SYS_OPENAT2, self.fd, name, how, len(how))
            if fd >= 0:
                return int(fd)
            code = ctypes.get_errno()
            if code not in (errno.EAGAIN, errno.EINTR):
                break
        raise OSError(code, os.strerror(code), path)

    def parent(self, path: str) -> tuple[int, str]:
        """A descriptor of the directory that *path* lies in, valid until the next call, and its name there; "." is the root."""
        above, _, name = path.strip("/").rpartition("/")
        if name in (".", ".."):
            above, name = path.strip("/"), "."
        if name == "" or above == ".":
            return self.fd, "."
        if not above:
            return self.fd, name
        if (fd := self._parents.get(above)) is not None:
            self._parents.move_to_end(above)
            return fd, name
        fd = self.open(above, os.O_PATH | os.O_DIRECTORY)
        self._parents[above] = fd
        if len(self._parents) > CACHED_PARENTS:
            os.close(self._parents.popitem(last=False)[1])
        return fd, name

    def forget_parents(self) -> None:
        """Look up every directory again: one of them was replaced."""
        while self._parents:
            os.close(self._parents.popitem()[1])

    def lstat(self, path: str) -> os.stat_result:
        """The status of *path* itself; a link as its last part is not followed."""
        fd = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        """Whether *path* leads anywhere, links followed inside the tree."""
        try:
            os.close(self.open(path, os.O_PATH))
        except OSError:
            return False
        return True

    def is_file(self, path: str) -> bool:
        """Whether *path* is a regular file."""
        return self._is(path, stat.S_ISREG)

    def is_directory(self, path: str) -> bool:
        """Whether *path* is a directory."""
        return self._is(path, stat.S_ISDIR)

    def _is(self, path: str, kind: object) -> bool:
        try:
            fd = self.open(path, os.O_PATH)
        except OSError:
            return False
        try:
            return bool(kind(os.fstat(fd).st_mode))  # type: ignore[operator]
        finally:
            os.close(fd)

    def open_file(self, path: str) -> int:
        """A descriptor of a regular file, for reading. Raises OSError (EINVAL) for anything else: a device or a FIFO is not
        even opened for reading, since that alone can have an effect, or block."""
        probe = self.open(path, os.O_PATH)
        try:
            seen = os.fstat(probe)
        finally:
            os.close(probe)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(seen.st_mode) else errno.EINVAL, "not a regular file", path)
        fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # replaced since
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return fd

    def read(self, path: str, limit: int) -> bytes:
        """A regular file's content. Raises OSError, EFBIG where it has more than *limit* bytes."""
        with os.fdopen(self.open_file(path), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
        return data

    def host_path(self, path: str) -> Path:
        """Where *path* is on the host, links resolved inside the tree; for callers that trust it not to change meanwhile."""
        fd = self.open(path, os.O_PATH)
        try:
            return Path(os.readlink(f"/proc/self/fd/{fd}"))
        finally:
            os.close(fd)

    def make(self, path: str, *, directory: bool, mode: int = 0o755) -> None:
        """Make *path*, a directory or an empty file, and the directories above it, where they are missing.

        Links are followed as in a process whose root the tree is; the target of a dangling one is made. Raises OSError: ELOOP,
        ENOTDIR, ENAMETOOLONG, EINVAL if another kind of file is there."""
        pending, links = list(reversed(parts_of(path))), 0
        above: list[int] = []  # descriptors from the tree's root down to here
        try:
            while pending:
                part = pending.pop()
                here = above[-1] if above else self.fd
                if part == "..":
                    if above:
                        os.close(above.pop())
                    continue
                link = self._step(here, part, above, directory=directory or bool(pending), mode=mode, path=path)
                if link is not None:
                    links += 1
                    if links > MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                    if link.startswith("/"):
                        while above:
                            os.close(above.pop())
                    pending += reversed(parts_of(link))
                if len(above) > MAX_DEPTH:
                    raise OSError(errno.ENAMETOOLONG, f"more than {MAX_DEPTH} directories deep", path)
        finally:
            for fd in above:
                os.close(fd)

    def _step(self, here: int, part: str, above: list[int], *, directory: bool, mode: int, path: str) -> str | None:
        """Go from *here* to *part*, made if it is missing. Returns the target if it is a link."""
        if "\0" in part:
            raise OSError(errno.EINVAL, "a path cannot hold a zero byte", path)
        if not directory:
            try:
                fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=here)
                os.close(fd)
                return None
            except FileExistsError:
                pass
        else:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, mode, dir_fd=here)
        seen = os.stat(part, dir_fd=here, follow_symlinks=False)
        if stat.S_ISLNK(seen.st_mode):
            return os.readlink(part, dir_fd=here)
        if directory:
            above.append(os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here))
        elif stat.S_ISDIR(seen.st_mode):
            raise OSError(errno.EISDIR, "a directory is there, where a file is to be", path)
        return None
