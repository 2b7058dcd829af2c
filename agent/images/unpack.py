"""Unpack one layer while it streams in: the child process that does it, and its parent's side.

The child reads the compressed blob from stdin, checks its digest, keeps a copy where asked, decompresses, checks the
uncompressed digest (DiffID) and extracts; so several layers use several cores, and hostile input meets a process that
has changed its root to the layer's own folder: no `..`, no symlink and no hard link leads out of it. Whiteouts become
what overlayfs understands. `tarfile` only parses headers here; its extraction is never used (CVE-2025-4517 and kin).

Source: OCI Image Specification, layer.md (whiteouts); kernel Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import sys
import tarfile
import zlib
from typing import BinaryIO, Protocol

from agent import rootless
from agent.errors import told
from agent.mounts import overlay_attribute

MAX_ENTRIES = 2_000_000
MAX_BYTES = 64 << 30
CHUNK = 1 << 18


class RefusedError(Exception):
    """The layer is broken or hostile; the text is for the user."""


class _Decoder(Protocol):
    def decompress(self, data: bytes) -> bytes: ...


class _Plain:
    def decompress(self, data: bytes) -> bytes:
        return data


class _Gzip:
    """gzip with any number of members (RFC 1952 §2.2)."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(31)

    def decompress(self, data: bytes) -> bytes:
        out = self._object.decompress(data)
        while self._object.eof and self._object.unused_data:
            rest = self._object.unused_data
            if not rest.strip(b"\0"):
                break
            self._object = zlib.decompressobj(31)
            out += self._object.decompress(rest)
        return out


def _decoder(head: bytes) -> _Decoder:
    """By the first bytes, since media types are wrong in the wild."""
    if head[:2] == b"\x1f\x8b":
        return _Gzip()
    if head[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj(read_across_frames=True)
    return _Plain()


class Verified(io.RawIOBase):
    """The uncompressed stream; hashes both sides on the way and copies the compressed one to *keep*."""

    def __init__(self, source: BinaryIO, keep: BinaryIO | None) -> None:
        self._source, self._keep = source, keep
        self.blob, self.diff = hashlib.sha256(), hashlib.sha256()
        self.blob_size = self.size = 0
        self._ready = b""
        self._decoder: _Decoder | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while not self._ready:
            data = self._source.read(CHUNK)
            if not data:
                return 0
            self.blob.update(data)
            self.blob_size += len(data)
            if self._keep:
                self._keep.write(data)
            if self._decoder is None:
                self._decoder = _decoder(data)
            try:
                self._ready = self._decoder.decompress(data)
            except Exception as error:
                raise RefusedError(f"the layer does not decompress: {error}") from error
            self.diff.update(self._ready)
            self.size += len(self._ready)
            if self.size > MAX_BYTES:
                raise RefusedError(f"the layer is larger than {MAX_BYTES >> 30} GiB when unpacked")
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def _inside(name: str) -> str:
    """*name* relative to the layer's root. Raises RefusedError where it has a `..` part."""
    parts = [p for p in name.split("/") if p not in ("", ".")]
    if ".." in parts:
        raise RefusedError(f"the layer's entry {name!r} leaves its root")
    if any(len(p.encode(errors="surrogateescape")) > 255 for p in parts):
        raise RefusedError(f"the layer's entry {name[:60]!r}… has a name longer than 255 bytes")
    return "/" + "/".join(parts)


def _clear(path: str) -> None:
    """Make room for an entry: what an earlier one of the same layer put there goes."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        import shutil

        shutil.rmtree(path)
    else:
        os.unlink(path)


def extract(stream: BinaryIO) -> int:
    """Unpack the tar *stream* into "/" (the caller has changed its root). Returns the number of bytes in files."""
    total = 0
    directories: list[tuple[str, float]] = []
    made: set[str] = {"/"}
    try:
        archive = tarfile.open(fileobj=stream, mode="r|", errorlevel=2)  # noqa: SIM115
        for count, entry in enumerate(archive):
            if count >= MAX_ENTRIES:
                raise RefusedError(f"the layer has more than {MAX_ENTRIES} entries")
            path = _inside(entry.name)
            parent, base = os.path.split(path)
            if parent not in made:
                os.makedirs(parent, mode=0o755, exist_ok=True)
                made.add(parent)
            if base.startswith(".wh."):
                if base == ".wh..wh..opq":
                    os.setxattr(parent, overlay_attribute("opaque"), b"y")
                elif base[4:] not in ("", ".", "..") and not base.startswith(".wh..wh."):
                    hidden = os.path.join(parent, base[4:])
                    _clear(hidden)
                    os.mknod(hidden, 0o600 | stat.S_IFCHR, os.makedev(0, 0))
                continue
            total += _entry(archive, entry, path, made, directories)
        # trailing padding must pass through the digests too
        while stream.read(CHUNK):
            pass
    except tarfile.TarError as error:
        raise RefusedError(f"the layer is no valid tar archive: {error}") from error
    except (FileExistsError, NotADirectoryError, FileNotFoundError, IsADirectoryError, OverflowError) as error:
        raise RefusedError(f"the layer contradicts itself: {error}") from error
    for path, when in directories:
        os.utime(path, (when, when))
    return total


def _entry(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str, made: set[str], directories: list[tuple[str, float]]
) -> int:
    """One entry other than a whiteout; returns its bytes."""
    size = 0
    when = max(0.0, min(float(entry.mtime), 4e9))
    if entry.uid >= 1 << 31 or entry.gid >= 1 << 31 or min(entry.uid, entry.gid) < 0:
        raise RefusedError(f"the layer's entry {entry.name!r} has an owner out of range")
    if entry.isdir():
        if not os.path.isdir(path) or os.path.islink(path):
            _clear(path)
            os.mkdir(path)
        made.add(path)
        directories.append((path, when))
    else:
        if path in made:
            made.clear()
            made.add("/")
        _clear(path)
        if entry.isreg():
            source = archive.extractfile(entry)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                while source and (data := source.read(CHUNK)):
                    os.write(fd, data)
                    size += len(data)
            finally:
                os.close(fd)
        elif entry.islnk():
            os.link(_inside(entry.linkname), path, follow_symlinks=False)
            return 0
        elif entry.issym():
            os.symlink(entry.linkname, path)
        elif entry.isfifo():
            os.mkfifo(path)
        elif entry.ischr() or entry.isblk():
            if rootless.inside():
                return 0  # a user cannot make devices, and containers get theirs from the runtime
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(path, 0o600 | kind, os.makedev(entry.devmajor, entry.devminor))
        else:
            raise RefusedError(f"the layer's entry {entry.name!r} is of unknown type {entry.type!r}")
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    for key, value in entry.pax_headers.items():
        name = key.removeprefix("SCHILY.xattr.")
        if name != key and not name.startswith(("trusted.overlay.", "user.overlay.")):
            try:
                os.setxattr(path, name, value.encode(errors="surrogateescape"), follow_symlinks=False)
            except OSError as error:
                if error.errno not in (95, 22):  # a file system without this kind of attribute loses it, as in Docker
                    raise
    if not entry.issym():
        os.chmod(path, entry.mode & 0o7777)
        if not entry.isdir():
            os.utime(path, (when, when))
    return size


def _main(target: str, blob: str, diff_id: str, keep: str) -> int:
    """The child: unpack stdin below *target*; one JSON line on stdout says how it went."""
    import encodings.idna  # noqa: F401 - whatever is imported lazily must be in memory before the root changes
    import shutil  # noqa: F401

    import zstandard  # noqa: F401

    kept = open(keep, "wb") if keep else None  # noqa: SIM115
    out = sys.stdout
    reply: dict[str, object] = {}
    try:
        stream = Verified(sys.stdin.buffer, kept)
        os.umask(0)
        os.chroot(target)
        os.chdir("/")
        reply["size"] = extract(io.BufferedReader(stream, CHUNK))  # type: ignore[type-var]
        got = "sha256:" + stream.blob.hexdigest()
        if blob and got != blob:
            raise RefusedError(f"the layer has digest {got}, the manifest says {blob}")
        diff = "sha256:" + stream.diff.hexdigest()
        if diff_id and diff != diff_id:
            raise RefusedError(f"the unpacked layer has digest {diff}, the image's config says {diff_id}")
        reply |= {"digest": got, "diff_id": diff, "blob_size": stream.blob_size}
        if kept:
            kept.flush()
            os.fsync(kept.fileno())
    except RefusedError as error:
        reply = {"error": str(error)}
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = told(error) if full else f"{error.strerror}: {error.filename or ''}".rstrip(": ")
        reply = {"error": f"the layer cannot be written: {why}"}
    out.write(json.dumps(reply) + "\n")
    return 1 if "error" in reply else 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:5]))
