"""A stack file that was pasted into the page, read by the program that reads those of repositories: it sees that file alone."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from agent.contract.wire import WireStruct
from orchestrator.errors import RefusedError
from orchestrator.gitops import load
from orchestrator.stackfile.model import Stack

NAME = "stack.yml"


class StackFileRequest(WireStruct, frozen=True, kw_only=True):
    """*name* is the stack's where the *text* does not say one."""

    text: str
    name: str = "stack"


class StackFile(WireStruct, frozen=True, kw_only=True):
    """The stack of the file, and what of it has no effect."""

    stack: Stack
    warnings: tuple[str, ...] = ()


async def read(request: StackFileRequest, folder: Path) -> StackFile:
    """The stack of the pasted text; *folder* is for what is written meanwhile. Raises PystackError with every problem."""
    await asyncio.to_thread(folder.mkdir, 0o700, True, True)
    root = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=folder))
    try:
        await asyncio.to_thread(_write, root, request.text)
        stacks, warnings = await load.stacks_of(load.LoadRequest(str(root), request.name, NAME, ()))
    finally:
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)
    if len(stacks) != 1:
        raise RefusedError("the text has no stack", 400)
    return StackFile(stack=stacks[0], warnings=warnings)


def _write(root: Path, text: str) -> None:
    root.chmod(0o755)
    top = root / load.TOP.lstrip("/")
    top.mkdir(mode=0o755)
    (top / NAME).write_text(text)
    (top / NAME).chmod(0o644)
