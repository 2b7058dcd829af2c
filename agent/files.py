"""Files that survive a crash, and paths that cannot leave a container's root."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10


def write_atomically(path: Path, data: bytes, mode: int = 0o644, *, sync: bool = False) -> None:
    """Replace *path* by *data* in one step, or, where that raises OSError, not at all. *sync* makes it survive a power cut too,
    at the cost of an fsync."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        _write_all(fd, data)
        if sync:
            os.fsync(fd)
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    """A disk that becomes full takes a part of what it is given, and says so only when asked to take the rest."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def open_in_root(root: Path, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """Open *path* with *root* as its "/": no symlink leads out (openat2(2), RESOLVE_IN_ROOT). Returns a descriptor."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        fd = _libc.syscall(_SYS_OPENAT2, directory, path.encode(), how, len(how))
        if fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        return int(fd)
    finally:
        os.close(directory)


def read_in_root(root: Path, path: str, limit: int = 1 << 20) -> str:
    """Text of a regular file inside *root*, at most *limit* bytes; "" where there is none."""
    try:
        fd = open_in_root(root, path)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(limit).decode(errors="replace")


def resolve_in_root(root: Path, path: str) -> Path:
    """Where *path* really is on the host, symlinks resolved inside *root*. Raises OSError where it does not exist."""
    fd = open_in_root(root, path, os.O_PATH)
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def make_in_root(root: Path, path: str, *, directory: bool) -> Path:
    """Make *path* and its parents inside *root* where they are missing, and say where it is on the host."""
    current = root
    parts = [p for p in path.split("/") if p not in ("", ".")]
    walked = ""
    for number, part in enumerate(parts):
        walked += f"/{part}"
        last = number == len(parts) - 1
        try:
            current = resolve_in_root(root, walked)
        except FileNotFoundError:
            current = current / part
            if last and not directory:
                current.touch()
            else:
                current.mkdir(mode=0o755)
    return current


def remove_tree(path: Path) -> None:
    """Remove *path* and all below; nothing there is fine. Never follows a symlink and never leaves its file system."""
    import shutil

    def on_error(function: object, name: str, info: object) -> None:
        del function, info
        if os.path.lexists(name) and not os.path.ismount(name):
            os.chmod(os.path.dirname(name), 0o700)
            os.rmdir(name) if os.path.isdir(name) and not os.path.islink(name) else os.unlink(name)

    if os.path.islink(path):
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, onerror=on_error)


def used(path: Path) -> int:
    """Bytes that a tree takes on disk; what vanishes meanwhile counts for nothing."""
    total, seen = 0, set()
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total
