"""Empties nodes whose machines go down, and lets them have tasks again when they are back.

The agent says in its info that it goes down (`agent/shutdown.py`). The node is drained as by `node drain`, marked as one that
departed; it is activated when its agent is there again. What a user drained or paused stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from orchestrator.errors import PystackError
from orchestrator.server.cluster import Cluster
from orchestrator.server.drain import NodeDrainer
from orchestrator.server.events import ignore
from orchestrator.server.members import NodeConnection
from orchestrator.server.membership import NodeUpdateRequest

log = logging.getLogger(__name__)


class Departures:
    """Follows the info of all nodes of *cluster*."""

    def __init__(self, cluster: Cluster, drainer: NodeDrainer) -> None:
        self._drainer = drainer
        self._tasks: dict[str, asyncio.Task[None]] = {}
        cluster.on_info = self._look

    def _look(self, member: NodeConnection) -> None:
        """The info of *member* was read."""
        node = member.node
        if node.info.leaving:
            work = self._empty(member)
        elif node.departed:
            work = self._activate(member)
        else:
            return
        if before := self._tasks.get(node.name):
            before.cancel()
        self._tasks[node.name] = asyncio.create_task(work, name=f"departure of {node.name}")

    async def _empty(self, member: NodeConnection) -> None:
        node = member.node
        try:
            if node.availability == "active" or node.departed:
                log.warning("node %s goes down: it is emptied", node.name)
                request = NodeUpdateRequest(availability="drain", departs=True)
                if failures := await self._drainer.change(node.name, request, ignore):
                    log.warning("%s failed as node %s was emptied: %s", failures[0].task, node.name, failures[0].reason)
        except PystackError as error:
            log.warning("node %s goes down and is not empty: %s", node.name, error)
        with contextlib.suppress(PystackError):  # it is gone already
            await member.client.call("POST", "/pystack/departure/done")

    async def _activate(self, member: NodeConnection) -> None:
        await member.synced.wait()
        try:
            await self._drainer.begin(member.node.name, NodeUpdateRequest(availability="active"))
            log.warning("node %s is back", member.node.name)
        except PystackError as error:
            log.warning("node %s is back, and gets no tasks yet: %s", member.node.name, error)

    async def close(self) -> None:
        """Leave everything as it is: who leads next goes on."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
