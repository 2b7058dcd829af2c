"""Loads the stacks of a checked-out commit in a child process that sees nothing but that commit (`sandboxed_load`)."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import msgspec

from orchestrator.errors import PystackError
from orchestrator.stackfile.model import Stack

LIMIT_S = 30
MEMORY = 1 << 30
TOP = "/repository"
"""Where the child finds the commit. The files of the commit are below it, and no other file is there."""


class LoadRequest(msgspec.Struct, frozen=True):
    """*root* is the folder that becomes the child's root; TOP is in it. *name* is the repository's, *path* is relative to TOP;
    of a pystack.yml, the stacks for one of *targets* are loaded."""

    root: str
    name: str
    path: str
    targets: tuple[str, ...]
    suffix: str = ""
    """What follows the name of each stack, and a hyphen before it: of a preview."""


class LoadResult(msgspec.Struct, frozen=True):
    """*problem*, if there is one, says why there are no stacks."""

    stacks: tuple[Stack, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: str = ""


async def stacks_of(request: LoadRequest) -> tuple[tuple[Stack, ...], tuple[str, ...]]:
    """The stacks and the warnings. Raises PystackError with every problem."""
    python = [sys.executable, "-E", "-s", "-m", "orchestrator.gitops.sandboxed_load"]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *python, stdin=pipe, stdout=pipe, stderr=pipe, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, cwd="/"
    )
    try:
        async with asyncio.timeout(LIMIT_S + 10):
            out, err = await child.communicate(msgspec.json.encode(request))
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise PystackError(f"the stack files were not read after {LIMIT_S + 10} s") from None
    if child.returncode:
        last = (err.decode(errors="replace").strip().splitlines() or [f"it ended with {child.returncode}"])[-1]
        raise PystackError(f"the stack files cannot be read within {MEMORY >> 20} MiB and {LIMIT_S} s: {last}")
    reply = msgspec.json.decode(out)
    if "error" in reply:
        raise PystackError(f"the stack files cannot be read, with {MEMORY >> 20} MiB and {LIMIT_S} s for it: {reply['error']}")
    found = msgspec.json.decode(reply["found"], type=LoadResult)
    if found.problem:
        raise PystackError(found.problem)
    return found.stacks, found.warnings
