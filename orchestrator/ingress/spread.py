"""Brings proxies to nodes that were added, activated again, or came back, once `pystack ingress up` has said where they run."""

from __future__ import annotations

import asyncio
import logging

from orchestrator.errors import PystackError
from orchestrator.ingress.model import STACK
from orchestrator.server.events import ignore
from orchestrator.server.plane import ControlPlane

LOOK_S = 2.0
log = logging.getLogger(__name__)


class Spread:
    """The loop. A set of nodes is tried once: which of them a constraint leaves out, the plan knows."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._tried: frozenset[str] = frozenset()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.create_task(self._run(), name="spread of ingress")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
            except PystackError as error:  # tried again when another node comes, or by the next `up`
                log.warning("ingress on new nodes: %s", error)
            except Exception:
                log.exception("ingress on new nodes")

    async def _look(self) -> None:
        """Deploy the stack again if a node may have a proxy now that could not before."""
        members, state = self._plane.cluster.members, self._plane.state
        able = frozenset(n for n, m in members.items() if m.ready and m.node.availability == "active")
        served = {t.node for t in state.tasks.values() if t.stack == STACK}
        missing = able - served
        if STACK not in state.stacks or missing <= self._tried:
            self._tried &= missing  # one that goes and comes again is tried again
            return
        if state.lock(f"stack {STACK}").busy:
            return
        self._tried |= missing
        log.info("ingress: also on %s", ", ".join(sorted(missing)))
        await self._plane.rollouts.redeploy(STACK, ignore)

    async def close(self) -> None:
        """Stop."""
        if self._loop:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
