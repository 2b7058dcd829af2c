"""Lifecycle hooks: commands run inside a container after it was started, and before it is asked to stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent import descriptors
from agent.containers import users
from agent.engine.records import Record
from agent.errors import AgentError
from agent.manifest import Hook

if TYPE_CHECKING:
    from agent.engine.engine import Engine

OUTPUT_LIMIT = 4096


async def run(engine: Engine, record: Record, kind: str, hooks: Sequence[Hook], within_s: float | None = None) -> None:
    """Run *hooks* one after the other. Raises AgentError with the output of the first that fails, or takes too long."""
    bundle = engine.bundle(record)
    for hook in hooks:
        said_there, write = os.pipe()
        try:
            child = await engine.runtime.exec(
                record.id, bundle, hook.command, identity=users.resolve(bundle / "rootfs", hook.user) if hook.user else None,
                environment=[f"{k}={v}" for k, v in hook.environment], cwd=hook.working_dir, privileged=hook.privileged,
                stdin=asyncio.subprocess.DEVNULL, stdout=write, stderr=write,
            )
        except BaseException:
            os.close(said_there)
            raise
        finally:
            os.close(write)
        try:
            output, _ = await asyncio.wait_for(asyncio.gather(descriptors.read_all(said_there), child.wait()), within_s)
        except BaseException as error:
            if child.returncode is None:
                child.kill()
                await child.wait()
            if isinstance(error, TimeoutError):
                raise AgentError(f"{kind} hook {' '.join(hook.command)!r} took longer than {within_s:g} s") from None
            raise
        finally:
            os.close(said_there)
        if child.returncode:
            said = output[-OUTPUT_LIMIT:].decode(errors="replace").strip()
            what = f"{kind} hook {' '.join(hook.command)!r}"
            raise AgentError(f"{what} exited with {child.returncode}: {said or 'it said nothing'}")
