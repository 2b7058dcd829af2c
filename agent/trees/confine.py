"""The start of every worker: it loads and opens what it needs, then gives up all other rights."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from agent import errors
from agent.trees import sandbox
from agent.trees.errors import TreeError

MEMORY = 2 << 30
CPU_S = 3600
FILE_BYTES = 64 << 30
MAX_PLACES = 50
NOBODY = 65534
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


class ProcessBounds(NamedTuple):
    """The user, the place and the limits of a worker process.

    *place* is for work that needs a path: the first tree's name in the empty root, and the working directory. With *nobody* the
    process gives up its user's rights. *memory* is in bytes of address space, *cpu_s* in seconds."""

    place: str = ""
    nobody: bool = False
    memory: int = MEMORY
    cpu_s: int = CPU_S


def run(
    work: Callable[[], Reply],
    trees: Sequence[int],
    *,
    calls: Sequence[str],
    capabilities: Sequence[str],
    first_id: int = 0,
    user: bool = True,
    bounds: ProcessBounds = ProcessBounds(),
) -> Reply:
    """The reply of *work*, run in a confined child that reaches only the directories *trees* and its own open files; errors
    are replies with "error" and "status".

    The child may make only the system *calls*, and has only *capabilities*. *first_id* and *user* are as in
    `sandbox.confined`."""
    sandbox.die_with_parent()
    library = sandbox.load_seccomp()
    report = os.memfd_create("reply")

    def child(parent: int) -> int:
        try:
            sandbox.enter_empty_root()
            if bounds.place:
                sandbox.attach(trees[0], bounds.place)
            sandbox.seal_root()
            if bounds.place:
                os.chdir(f"/{bounds.place}")
            os.umask(0)
            sandbox.limit(memory=bounds.memory, cpu_s=bounds.cpu_s, file_bytes=FILE_BYTES)
            if bounds.nobody:
                sandbox.become(NOBODY)
            sandbox.drop_capabilities(capabilities)
            sandbox.restrict_files(trees)
            sandbox.die_with_parent(parent)
            sandbox.allow_calls(library, calls)
            reply = work()
        except BaseException as error:  # of any kind: nothing may format a traceback in here
            reply = as_reply(error)
        data = json.dumps(reply).encode()
        while data:
            data = data[os.write(report, data) :]
        return 0

    status = sandbox.confined(child, first_id=first_id, user=user)
    os.lseek(report, 0, os.SEEK_SET)
    with os.fdopen(report, "rb") as file:
        data = file.read()
    try:
        reply: Reply = json.loads(data)
    except ValueError:
        ended = f"the worker process ended with status {status} and no answer: a fault of pystack's, not of yours"
        return {"error": ended, "status": 500}
    return reply


def as_reply(error: BaseException) -> Reply:
    """*error* as a reply: "error", a sentence for the user, and "status"; for a fault of ours "trace", its places."""
    if isinstance(error, TreeError):
        return {"error": str(error), "status": error.status}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"error": errors.user_message(OSError(error.errno, "")), "status": 500, "errno": error.errno}
    if isinstance(error, OSError) and error.errno:
        name = error.filename if isinstance(error.filename, str) else ""
        return {"error": f"{error.strerror}{f': {name}' if name else ''}", "status": 500, "errno": error.errno}
    if isinstance(error, MemoryError):
        return {"error": "it takes more memory than is allowed", "status": 400}
    places = _places(error.__traceback__)
    fault = f"a fault of pystack's, not of yours: {type(error).__name__} at {places[-1]}; please report it"
    return {"error": fault, "status": 500, "trace": places}


def _places(traceback: TracebackType | None) -> list[str]:
    """File, line and function of each frame, the innermost last, from memory: no source line is looked for."""
    places = []
    while traceback:
        code = traceback.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places[-MAX_PLACES:] or ["?"]


def answer(reply: Reply) -> int:
    """Print *reply* as a line of JSON; returns the exit status, 1 for an error."""
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
    return 1 if "error" in reply else 0
