"""Whether and when a container that ended is started again. Pure. Source: Docker, "Restart policies"; Compose, `restart`."""

from __future__ import annotations

from agent.contract.container import Container
from agent.engine.records import Record

MAX_DELAY_S = 60.0
FIRST_DELAY_S = 0.1
RESET_S = 10.0
"""A container that ran for so long begins with the shortest delay again."""


def lasted(container: Container, uptime_s: float) -> bool:
    """Whether a start was a success by `restart_window_s`, after which the policy's limit starts again."""
    return 0 < container.restart_window_s <= uptime_s


def restarts(record: Record, code: int, uptime_s: float = 0.0) -> bool:
    """Whether the policy starts the container again after it ran for *uptime_s* and ended with *code*. The limit counts all
    restarts, except after a start that `lasted`. Source: Compose Specification, deploy.md, restart_policy."""
    policy, limit = record.container.restart, record.container.restart_max
    if record.stopped or record.auto_remove:
        return False
    wanted = policy in ("always", "unless-stopped", "any") or (policy == "on-failure" and code != 0)
    return wanted and (not limit or lasted(record.container, uptime_s) or record.attempts < limit)


def quick_restarts(container: Container, restarts: int, uptime_s: float) -> int:
    """The number of *restarts* that count after it ran for *uptime_s*: 0 if that was long enough."""
    return 0 if uptime_s >= (container.restart_window_s or RESET_S) else restarts


def delay_s(container: Container, quick: int) -> float:
    """How long to wait after *quick* restarts in a row: as the container asks, or twice as long each time."""
    return container.restart_delay_s or min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(quick, 10))
