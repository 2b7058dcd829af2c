"""How every worker of this room starts: what it needs is in memory and open, then it gives up everything else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from agent.trees import sandbox
from agent.trees.errors import TreeError
from agent.trees.tree import Tree

MEMORY = 2 << 30
CPU_S = 3600
FILE_BYTES = 64 << 30
Reply = dict[str, Any]


def open_tree(path: str, *, read_only: bool, nested: bool) -> int:
    """A descriptor of the directory *path*: a mount of its own where the kernel gives one (not of another mount namespace)."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree = sandbox.clone_tree(fd, read_only=read_only, nested=nested)
    except OSError:
        return fd
    os.close(fd)
    return tree


def run(
    work: Callable[[Tree], Reply], tree: int, *, calls: Sequence[str], capabilities: Sequence[str], first_id: int = 0,
    user: bool = True,
) -> Reply:
    """What *work* replies, run in a confined child on the directory *tree*; errors are replies with "error" and "status"."""
    sandbox.die_with_parent()
    library = sandbox.load_seccomp()
    report = os.memfd_create("reply")

    def child() -> int:
        try:
            sandbox.enter_empty_root()
            sandbox.seal_root()
            os.umask(0)
            sandbox.limit(memory=MEMORY, cpu_s=CPU_S, file_bytes=FILE_BYTES)
            sandbox.drop_capabilities(capabilities)
            sandbox.restrict_files([tree])
            sandbox.die_with_parent()
            sandbox.allow_calls(library, calls)
            reply = work(Tree(tree))
        except BaseException as error:  # whatever it is: nothing may format a traceback in here
            reply = _told(error)
        data = json.dumps(reply).encode()
        while data:
            data = data[os.write(report, data):]
        return 0

    status = sandbox.confined(child, first_id=first_id, user=user)
    os.lseek(report, 0, os.SEEK_SET)
    with os.fdopen(report, "rb") as file:
        data = file.read()
    try:
        reply: Reply = json.loads(data)
    except ValueError:
        told = f"the worker process ended with status {status} and no answer: this is a fault of pystack's"
        return {"error": told, "status": 500}
    return reply


def _told(error: BaseException) -> Reply:
    if isinstance(error, TreeError):
        return {"error": str(error), "status": error.status}
    if isinstance(error, OSError) and error.errno:
        name = error.filename if isinstance(error.filename, str) else ""
        return {"error": f"{error.strerror}{f': {name}' if name else ''}", "status": 500, "errno": error.errno}
    if isinstance(error, MemoryError):
        return {"error": "it takes more memory than is allowed", "status": 400}
    return {"error": f"a fault of pystack's: {type(error).__name__} at {_place(error.__traceback__)}", "status": 500}


def _place(traceback: TracebackType | None) -> str:
    """File, line and function of the innermost frame, from memory: no source line is looked for."""
    place = "?"
    while traceback:
        code = traceback.tb_frame.f_code
        place = f"{Path(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}"
        traceback = traceback.tb_next
    return place


def answer(reply: Reply) -> int:
    """Print *reply* as one line; the exit status."""
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
    return 1 if "error" in reply else 0
