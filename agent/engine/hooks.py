"""Lifecycle hooks: commands run inside a container after it was started, and before it is asked to stop."""

from __future__ import annotations

from collections.abc import Sequence

from agent.containers import users
from agent.containers.runtime import ExecOptions
from agent.contract.container import Hook
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import AgentError

OUTPUT_LIMIT = 4096
"""Bytes at the end of a failed hook's output that its error shows."""


async def post_start(context: EngineContext, record: Record) -> None:
    """Run the hooks of a container that has just started. Raises AgentError with the output of the first that fails."""
    await _run(context, record, "post_start", record.container.post_start, None)


async def pre_stop(context: EngineContext, record: Record, within_s: float) -> None:
    """Run the hooks of a container that is about to stop, each for at most *within_s*. Raises AgentError with the output of the
    first that fails, or takes too long."""
    await _run(context, record, "pre_stop", record.container.pre_stop, within_s)


async def _run(context: EngineContext, record: Record, kind: str, hooks: Sequence[Hook], within_s: float | None) -> None:
    bundle = context.paths.bundle(record.id)
    for hook in hooks:
        title = f"{kind} hook {' '.join(hook.command)!r}"
        try:
            code, output = await context.runtime.output_of(
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
            raise AgentError(f"{title} took longer than {within_s:g} s") from None
        if code:
            shown = output[-OUTPUT_LIMIT:].decode(errors="replace").strip()
            raise AgentError(f"{title} exited with {code}: {shown or 'it gave no reason'}")
