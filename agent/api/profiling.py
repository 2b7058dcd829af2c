"""Where this process spends its time: samples of its threads' stacks, taken by py-spy from outside while it works on."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from subprocess import DEVNULL

from aiohttp import web

from agent import descriptors
from agent.api.app_keys import ENGINE
from agent.errors import AgentError, BadRequestError, ConflictError, NotImplementedHereError
from agent.processes import ChildProcess

LONGEST_S = 600
RATE = 100
"""Samples a second."""
routes = web.RouteTableDef()
_busy = asyncio.Lock()


def _program() -> str:
    """py-spy's path: beside this interpreter or in PATH. Raises NotImplementedHereError."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if not found:
        raise NotImplementedHereError("py-spy is not installed on this node: pip install 'pystack-orchestrator[profile]'")
    return found


@routes.post("/pystack/profile")
async def profile(request: web.Request) -> web.Response:
    """Folded stacks, one a line: frames from the outermost on, `;` between them, and how many samples. Query: *seconds*."""
    text = request.query.get("seconds", "10")
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= LONGEST_S:
        raise BadRequestError(f"seconds={text[:20]}: a whole number from 1 to {LONGEST_S}")
    program = _program()
    if _busy.locked():
        raise ConflictError("this process is being watched already: try again when that is done")
    async with _busy:
        return web.Response(text=await _sampled(program, int(text), request.app[ENGINE].paths.run))


async def _sampled(program: str, seconds: int, folder: Path) -> str:
    target = folder / "profile.txt"
    # what is read while it changes gives a wrong sample now and then; a process that is stopped for each would be late
    options = ("--duration", str(seconds), "--rate", str(RATE), "--format", "raw", "--function", "--nonblocking")
    read, write = os.pipe()
    try:
        try:
            command = (program, "record", "--pid", str(os.getpid()), *options, "--output", str(target))
            child = ChildProcess(*command, stdin=DEVNULL, stdout=write, stderr=write)
        finally:
            os.close(write)
        try:
            output = await descriptors.read_all(read)
            code = await child.wait()
        except BaseException:
            child.kill()
            await child.wait()
            raise
        if code or not target.exists():
            why = output.decode(errors="replace").strip().splitlines()[-1:] or [f"it ended with {code}"]
            raise AgentError(f"py-spy cannot watch this process: {why[0]}")
        lines = target.read_text(errors="replace").splitlines(keepends=True)
        return "".join(line for line in lines if line.rpartition(" ")[0].strip())  # some samples have no frame at all
    finally:
        os.close(read)
        target.unlink(missing_ok=True)
