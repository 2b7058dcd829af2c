"""Runs a program of the host's with a foreign tree beside it: `python -m agent.trees.view DATA STATE PROGRAM [ARGUMENT]…`.

The program's root is an empty directory with the host's programs and libraries, read-only, the tree DATA at /volume, and the
directory STATE, where one is named, at /state: links in the tree lead nowhere else. It has no network, and can do
nothing with root's rights but to files. It must be one that asks for no names (`tar --numeric-owner`) and starts nothing.
Source: open_tree(2), move_mount(2), pivot_root(2), capabilities(7).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from agent.trees import sandbox

PROGRAMS = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")
ABROAD = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs")
"""What a program needs to find a server, and to know it."""
FILES = ("etc/ld.so.cache", "etc/resolv.conf", "etc/hosts")
"""Those of both that are not directories."""
ROOM = "1m"
"""For files that are made in the root."""
RIGHTS = (*sandbox.OWNERS, "MKNOD")
READ_RIGHTS = sandbox.READER
TAR_RIGHTS = (*RIGHTS, "SYS_ADMIN")
"""No other right reads and writes attributes called trusted.*, which an engine inside a container leaves in its volume."""


def enter(
    places: Mapping[str, str],
    files: Mapping[str, bytes],
    rights: Sequence[str],
    *,
    read_only: Collection[str] = (),
    network: bool = False,
) -> None:
    """Leave all of the host but its programs, and the directories *places* (name in the new root → path), which are writable
    but for those of *read_only*; *files* are made beside them, for their owner alone. With *network*, the host's network stays,
    and names can be asked for. Ends in /volume. Raises OSError."""
    held: dict[str, int | str] = {}
    library = sandbox.load_seccomp()
    sandbox.leave_namespaces(network=network)
    for name, path in places.items():
        held[name] = _clone(path, read_only=name in read_only, programs=False)
    for path in (*PROGRAMS, *(ABROAD if network else ())):
        if os.path.islink(path) and path in PROGRAMS:
            held[path] = os.readlink(path)
        elif os.path.exists(path):
            held[path] = _clone(path, read_only=True, programs=path in PROGRAMS)
    null = _clone("/dev/null", read_only=False, programs=False, devices=True)
    sandbox.enter_empty_root(size=ROOM, files=64)
    for folder in ("etc", "etc/ssl", "dev", *dict.fromkeys(os.path.dirname(name) for name in files)):
        os.makedirs(f"/{folder}", 0o755, exist_ok=True)
    for path, tree in held.items():
        name = path.strip("/")
        if isinstance(tree, str):
            os.symlink(tree, f"/{name}")
        else:
            sandbox.attach(tree, name, directory=name not in FILES)
    sandbox.attach(null, "dev/null", directory=False)
    for name, data in files.items():
        with open(os.open(f"/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
    sandbox.seal_root(size=ROOM, files=64)
    os.chdir("/volume")
    sandbox.drop_capabilities(rights)
    sandbox.refuse_calls(library, sandbox.POWERS)


def _clone(path: str, *, read_only: bool, programs: bool, devices: bool = False) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return sandbox.clone_tree(fd, read_only=read_only, nested=True, programs=programs, devices=devices)
    finally:
        os.close(fd)


def main(data: str, state: str, program: Sequence[str]) -> NoReturn:
    """Become *program* with the volume *data* as its tree; exits with 70 if it cannot start."""
    sandbox.die_with_parent()
    try:
        enter({"volume": data, **({"state": state} if state else {})}, {}, TAR_RIGHTS)
        os.umask(0)
        os.execv(program[0], [*program])
    except OSError as error:
        sys.stderr.write(f"{program[0]} cannot be started: {error.strerror}\n")
    os._exit(70)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
