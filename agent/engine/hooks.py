"""Lifecycle hooks: commands run inside a container after it was started, and before it is asked to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.containers import users
from agent.containers.runtime import ExecOptions
from agent.contract.container import Hook
from agent.engine.records import Record
from agent.errors import AgentError

if TYPE_CHECKING:
    from agent.engine.engine import Engine

OUTPUT_LIMIT = 4096


async def run(engine: Engine, record: Record, kind: str, hooks: Sequence[Hook], within_s: float | None = None) -> None:
    """Run *hooks* one after the other. Raises AgentError with the output of the first that fails, or takes too long."""
    bundle = engine.bundle(record)
    for hook in hooks:
        what = f"{kind} hook {' '.join(hook.command)!r}"
        try:
            code, output = await engine.runtime.output_of(
                record.id,
                bundle,
                hook.command,
                within_s,
                ExecOptions(
                    identity=users.resolve(bundle / "rootfs", hook.user) if hook.user else None,
                    environment=tuple(f"{k}={v}" for k, v in hook.environment),
                    cwd=hook.working_dir,
                    privileged=hook.privileged,
                ),
            )
        except TimeoutError:
            raise AgentError(f"{what} took longer than {within_s:g} s") from None
        if code:
            said = output[-OUTPUT_LIMIT:].decode(errors="replace").strip()
            raise AgentError(f"{what} exited with {code}: {said or 'it said nothing'}")
