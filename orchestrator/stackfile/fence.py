"""How sure a service must be that no other node runs a task of its."""

from __future__ import annotations

from agent.contract.task import BOOT_WAIT_S
from agent.contract.wire import WireStruct


class Fence(WireStruct, frozen=True, kw_only=True):
    """*boot_wait_s*: how many seconds a task waits for the control plane after its node was booted; None: for ever."""

    boot_wait_s: float | None = BOOT_WAIT_S
