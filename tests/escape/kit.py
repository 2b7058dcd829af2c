"""What the attacks are made with: an image that has Python, the numbers of system calls, and what of the host they are after."""

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
from collections.abc import Mapping
from pathlib import Path

INSIDE = Path(__file__).with_name("inside.py")
PYTHON = "/usr/bin/python3"
"""Debian's own, which tools/setup installs: its libraries are few."""
LOOK = """
import sys, ctypes, socket, json, struct, resource, mmap, fcntl, signal, errno, os, time, select, traceback, platform, stat
print(json.dumps([os.path.realpath(sys.executable), *{m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)}]))
"""
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


def python_layer() -> bytes:
    """The interpreter, the modules that `inside.py` imports and the libraries of both; a set-user-ID copy of it in /srv, and one
    with a file capability."""
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
    entries |= dict([entry("inside.py", INSIDE.read_bytes())])
    return pack(entries)


def numbers() -> dict[str, int]:
    """The number of every system call that `inside.py` names, on this machine; below 0 where it has none."""
    library = ctypes.CDLL("libseccomp.so.2")
    names = set(re.findall(r'(?:call|reach)\("(\w+)"', INSIDE.read_text()))
    return {name: library.seccomp_syscall_resolve_name(name.encode()) for name in names}


def handle(path: Path) -> str:
    """The file handle of *path* (name_to_handle_at(2)), its type and bytes, as hexadecimal digits."""
    buffer = ctypes.create_string_buffer(struct.pack("=Ii", MAX_HANDLE, 0), 8 + MAX_HANDLE)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(mount), 0) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return buffer.raw[: 8 + struct.unpack_from("=I", buffer)[0]].hex()


def block_device() -> tuple[int, int]:
    """Major and minor number of a block device of this machine, the largest."""
    found = [((block / "size").read_text(), (block / "dev").read_text()) for block in Path("/sys/block").iterdir()]
    major, minor = max((int(size), dev) for size, dev in found)[1].split(":")
    return int(major), int(minor)


def program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not installed: run `make setup`"
    return found
