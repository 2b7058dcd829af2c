"""What the attacks are made with: an image that has Python, the numbers of system calls, and a disk of the host's."""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

INSIDE = Path(__file__).with_name("inside.py")
PYTHON = "/usr/bin/python3"
"""Debian's own, which tools/setup installs: its libraries are few."""
LOOK = """
import sys, ctypes, encodings.idna, errno, fcntl, json, mmap, os, re, resource, select, signal, socket, struct, time, traceback
files = {getattr(module, "__file__", None) for module in sys.modules.values()} - {None}
print(json.dumps([os.path.realpath(sys.executable), *sorted(files)]))
"""
OBSOLETE = ("_sysctl", "create_module", "get_kernel_syms", "query_module", "uselib", "ustat", "sysfs")
DESCRIPTORS = range(3, 12)
"""Those that a runtime may leave open; /srv/fdN of the image leads to each."""
AT_FDCWD = -100
MAX_HANDLE = 128
_libc = ctypes.CDLL(None, use_errno=True)


def pack(entries: Mapping[tarfile.TarInfo, bytes]) -> bytes:
    """A tar of exactly these *entries*, in PAX format."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries.items():
            archive.addfile(info, io.BytesIO(content) if content else None)
    return out.getvalue()


def entry(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """An entry of an archive; *fields* are those of TarInfo."""
    info = tarfile.TarInfo(name)
    info.mode, info.size = 0o755, len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def python_layer(block: tuple[int, int] = (7, 0)) -> bytes:
    """The interpreter, the modules that `inside.py` imports and the libraries of both. In /srv a set-user-ID copy of it, one
    with a file capability, the block device *block*, and links to descriptors."""
    named = json.loads(subprocess.run([PYTHON, "-E", "-s", "-c", LOOK], capture_output=True, text=True, check=True).stdout)
    files = {name: Path(name).read_bytes() for name in named}
    for name in named:
        if name == named[0] or name.endswith(".so"):
            said = subprocess.run(["ldd", name], capture_output=True, text=True, check=True).stdout
            files |= {library: Path(library).read_bytes() for library in re.findall(r"(/\S+) \(0x", said)}
    program = files.pop(named[0])
    entries = dict(entry(name.lstrip("/"), content) for name, content in files.items())
    entries |= dict([entry("usr/bin/python3", program), entry("srv/suid-python", program, mode=0o4755)])
    admin = struct.pack("<IIIII", 0x0200_0001, 1 << 21, 0, 0, 0)  # VFS_CAP_REVISION_2 with the effective bit, CAP_SYS_ADMIN
    capable, _ = entry("srv/capable-python", program)
    # PAX text is UTF-8: surrogateescape carries what is none
    capable.pax_headers = {"SCHILY.xattr.security.capability": admin.decode("utf-8", "surrogateescape")}
    entries[capable] = program
    entries |= dict(
        [
            entry("inside.py", INSIDE.read_bytes()),
            entry("srv/disk", type=tarfile.BLKTYPE, devmajor=block[0], devminor=block[1], mode=0o666),
            *(entry(f"srv/fd{number}", type=tarfile.SYMTYPE, linkname=f"/proc/self/fd/{number}") for number in DESCRIPTORS),
        ]
    )
    return pack(entries)


def numbers() -> dict[str, int]:
    """The number of every system call that `inside.py` names, on this machine; below 0 where it has none."""
    library = ctypes.CDLL("libseccomp.so.2")
    names = {*re.findall(r'(?:call|reach)\("(\w+)"', INSIDE.read_text()), *OBSOLETE}
    return {name: library.seccomp_syscall_resolve_name(name.encode()) for name in names}


def handle(path: Path) -> str:
    """The file handle of *path* (name_to_handle_at(2)), its type and bytes, as hexadecimal digits."""
    buffer = ctypes.create_string_buffer(struct.pack("=Ii", MAX_HANDLE, 0), 8 + MAX_HANDLE)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(mount), 0) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return buffer.raw[: 8 + struct.unpack_from("=I", buffer)[0]].hex()


@contextmanager
def disk(path: Path, content: bytes) -> Iterator[tuple[int, int]]:
    """Major and minor number of a block device of this machine, made of the file *path*, that begins with *content*."""
    path.write_bytes(content.ljust(1 << 20, b"\0"))
    words = [program("losetup"), "--find", "--show", "--read-only", str(path)]
    device = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    try:
        number = os.stat(device).st_rdev
        yield os.major(number), os.minor(number)
    finally:
        subprocess.run([program("losetup"), "--detach", device], check=True)


def program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not installed: run `make setup`"
    return found
