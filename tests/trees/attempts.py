"""`python -m tests.trees.attempts CASE TREE [--outside]`: one case of test_sandbox.py, in an interpreter of its own.

It confines a child of itself, so it must have no threads: pytest's process may have those of gRPC, and a fork of it hangs."""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from agent.trees import confine, sandbox
from agent.trees.errors import TreeError
from netplugins.linux.uapi import LINUX_CAPABILITY_VERSION_3

_libc = ctypes.CDLL(None, use_errno=True)


def called(name: str, *arguments: object) -> bool:
    """True once libc's *name* has been called. Raises OSError where it fails."""
    if getattr(_libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return True


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "read a file of the host": lambda _: Path("/etc/passwd").read_bytes(),
    "read one beside the tree": lambda tree: (tree.parent / "secret").read_bytes(),
    "list the root": lambda _: os.listdir("/") or called("no such"),
    "see other processes": lambda _: os.kill(os.getppid() or 1 << 21, 0),
    "make a socket": lambda _: socket.socket(),
    "start a program": lambda _: os.execv("/bin/true", ["true"]),
    "start another process": lambda _: os.fork() or os._exit(0),
    "mount": lambda _: called("mount", b"none", b"/", b"tmpfs", 0, None),
    "leave its namespaces": lambda _: called("unshare", 0x1000_0000),
    "set the clock": lambda _: called("settimeofday", ctypes.byref(ctypes.c_long()), None),
    "trace": lambda _: called("ptrace", 0, 0, None, None),
    "change its root": lambda _: os.chroot("/"),
    "be somebody else": lambda _: os.setresuid(1000, 1000, 1000),
    "signal": lambda _: os.kill(1, signal.SIGCONT),
}
"""What a confined worker must not be able to do, by name."""


class Case(NamedTuple):
    """*work* on a tree, and what `confine.run` gets besides the usual."""

    work: Callable[[Path], confine.Reply]
    options: Mapping[str, Any] = MappingProxyType({})


def _tried(attempt: Callable[[Path], object]) -> Callable[[Path], confine.Reply]:
    def work(tree: Path) -> confine.Reply:
        try:
            attempt(tree)
        except (OSError, AttributeError) as error:
            return {"refused": type(error).__name__}
        return {"done": True}

    return work


def _raises(error: BaseException) -> Callable[[Path], confine.Reply]:
    def work(_: Path) -> confine.Reply:
        raise error

    return work


def _rights(_: Path) -> confine.Reply:
    head, data = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    called("capget", head, data)
    bounding = [n for n in range(41) if _libc.prctl(23, n, 0, 0, 0) == 1]
    return {"rights": list(data), "bounding": bounding, "no_new_privs": _libc.prctl(39, 0, 0, 0, 0)}


def _fault(_: Path) -> confine.Reply:
    def inner() -> int:
        return 1 // 0

    return {"n": inner()}


def _spin(_: Path) -> confine.Reply:
    while True:
        pass


def _owned(_: Path) -> confine.Reply:
    fd = os.open("/here/f", os.O_WRONLY | os.O_CREAT, 0o600)
    os.fchown(fd, 7, 8)
    return {}


_HERE = {"bounds": confine.ProcessBounds(place="here")}
CASES: dict[str, Case] = {
    **{name: Case(_tried(attempt)) for name, attempt in ATTEMPTS.items()},
    "rights": Case(_rights, {"calls": (*sandbox.WRITE_CALLS, "capget", "prctl")}),
    "device": Case(lambda _: {"opened": os.open("/here/null", os.O_RDONLY)}, _HERE),
    "error of the tree": Case(_raises(TreeError("a sentence", 404))),
    "error of the system": Case(_raises(OSError(errno.EIO, "broken", "f"))),
    "error of memory": Case(_raises(MemoryError())),
    "fault": Case(_fault),
    "memory": Case(lambda _: {"n": len(b"x" * (1 << 30))}, {"bounds": confine.ProcessBounds(memory=1 << 28)}),
    "time": Case(_spin, {"bounds": confine.ProcessBounds(cpu_s=1)}),
    "file as nobody": Case(
        lambda _: {"text": Path("mine").read_text()},
        {"bounds": confine.ProcessBounds(place="here", nobody=True), "capabilities": ()},
    ),
    "file": Case(lambda _: {"text": Path("/here/mine").read_text()}, _HERE),
    "owner": Case(_owned, _HERE | {"first_id": 200_000}),
}


def main() -> None:
    """Print the reply of the case as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--outside", action="store_true", help="without confinement, for comparison")
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    if arguments.outside:
        print(json.dumps(case.work(arguments.tree)))
        return
    fd = confine.open_tree(str(arguments.tree), read_only=False, nested=False)
    options = {"calls": sandbox.WRITE_CALLS, "capabilities": sandbox.OWNERS, **case.options}
    print(json.dumps(confine.run(lambda: case.work(arguments.tree), [fd], **options)))


if __name__ == "__main__":
    main()
