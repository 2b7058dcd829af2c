"""The nodes of the cluster, each with its courier: what it was told, whether it answers, what it says."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent.manifest import Facts, Manifest, TaskStatus, difference
from agent.sealing import PURPOSES
from orchestrator.couriers.courier import Courier
from orchestrator.couriers.mailbox import Mailbox
from orchestrator.errors import PystackError, RefusedError, UnreachableError
from orchestrator.placement.node import Node

if TYPE_CHECKING:
    from orchestrator.couriers.ssh import Tunnel

log = logging.getLogger(__name__)


def key_of(facts: Facts, purpose: str) -> str:
    return facts.seal_key if purpose == "seal" else facts.tunnel_key


def shared(facts: Facts) -> tuple[object, ...]:
    """What of a node's facts stands in the manifests of others: these must be right before all nodes were heard again."""
    return facts.mtu, facts.ssh_key, facts.seal_key, facts.tunnel_key, facts.addresses


async def _nobody(member: NodeConnection) -> None:
    del member


class NodeConnection:
    """One node: delivers its manifest when it changed, and follows its statuses for as long as it lives."""

    def __init__(
        self, node: Node, socket: Path, manifest: Callable[[str], Manifest], heard: Callable[[TaskStatus], None],
        tunnel: Tunnel | None = None, mailbox: Mailbox | None = None,
    ) -> None:
        self.node = node
        self.mailbox = mailbox
        self.courier = Courier(node.name, socket)
        self.tunnel = tunnel
        self.problem = "not connected yet"
        self.synced = asyncio.Event()
        self.returned: Callable[[NodeConnection], Awaitable[None]] = _nobody
        """Called when the node answers, and what it is now is known."""
        self.heard_at = 0.0
        self.silent_since: float | None = asyncio.get_running_loop().time()
        """By the loop's clock; None while it answers."""
        self._manifest = manifest
        self._heard = heard
        self._delivery: asyncio.Future[None] | None = None
        self._greeting: asyncio.Task[None] | None = None
        self._deliverer: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._delivered: Manifest | None = None
        self._epoch = os.urandom(4).hex()
        self._count = 0

    @property
    def ready(self) -> bool:
        return self.synced.is_set()

    def start(self) -> None:
        if self.tunnel:
            self.tunnel.said = self._tunnel_said
            self.tunnel.start()
        self._listener = asyncio.create_task(self._listen(), name=f"listen to {self.node.name}")

    def _tunnel_said(self, problem: str) -> None:
        if problem:
            self.problem = problem

    async def _listen(self) -> None:
        """Follow the node's statuses; a lost stream is taken up again, with back-off."""
        pause = 0.05
        while True:
            try:
                async for status in self.courier.statuses():
                    pause = 0.05
                    if status is None:
                        await self._returned()
                    else:
                        self._heard(status)
            except (UnreachableError, RefusedError) as error:
                if self.tunnel is None or self.ready:
                    self.problem = str(error).removeprefix(f"node {self.node.name} does not answer: ")
            if self.ready:
                self.silent_since = asyncio.get_running_loop().time()
                self.synced.clear()
                self._delivered = None
            await asyncio.sleep(pause)
            pause = min(5.0 if self.tunnel is None else 1.0, pause * 2)

    async def _returned(self) -> None:
        """The node answers: learn what it is, and tell it what it must be."""
        self.heard_at = asyncio.get_running_loop().time()
        await self.refresh_facts()
        await self.returned(self)
        self.problem = ""
        self.silent_since = None
        self.synced.set()
        self._greeting = asyncio.create_task(self._deliver_quietly())

    async def refresh_facts(self) -> None:
        """Learn what the node is now. Raises UnreachableError, RefusedError."""
        before = self.node.facts
        where = {"underlay": self.node.underlay}
        facts = msgspec.convert(await self.courier.call("GET", "/pystack/facts", params=where), Facts)
        self.node = msgspec.structs.replace(self.node, facts=facts)
        for purpose in PURPOSES:
            if key_of(before, purpose) and not key_of(facts, purpose):  # its disk is another, and it is in use
                await self.ask_key(purpose)

    async def ask_key(self, purpose: str) -> None:
        """Have the node's public key for *purpose* made. Raises UnreachableError, RefusedError."""
        made = await self.courier.call("POST", f"/pystack/keys/{purpose}")
        facts = msgspec.structs.replace(self.node.facts, **{f"{purpose}_key": made["key"]})
        self.node = msgspec.structs.replace(self.node, facts=facts)

    async def _deliver_quietly(self) -> None:
        try:
            await self.deliver()
        except PystackError as error:
            log.warning("node %s: %s", self.node.name, error)

    async def deliver(self) -> None:
        """Return when a manifest at least as new as this moment's is with the node; many calls share one delivery.

        A node that does not answer gets it when it is back: that is no error."""
        if not self.ready and self.mailbox is None:
            return
        if self._delivery is None:
            self._delivery = asyncio.get_running_loop().create_future()
        mine = self._delivery
        if self._deliverer is None or self._deliverer.done():
            self._deliverer = asyncio.create_task(self._deliver_all())
        await asyncio.shield(mine)

    async def _deliver_all(self) -> None:
        while self._delivery is not None:
            current, self._delivery = self._delivery, None
            try:
                manifest = self._manifest(self.node.name)
                same = self._delivered is not None and msgspec.structs.replace(
                    self._delivered, revision=manifest.revision, serial=""
                ) == manifest
                if not same:
                    await self._hand_over(manifest)
            except UnreachableError:
                current.set_result(None)
            except PystackError as error:
                current.set_exception(error)
                current.exception()
            else:
                current.set_result(None)

    async def _hand_over(self, manifest: Manifest) -> None:
        """What changed since the last delivery, or the whole where the node knows of no last one."""
        if self.mailbox:
            digest = await self.mailbox.put(manifest)
            self._delivered = manifest
            if self.ready:
                await self.courier.call("POST", f"/pystack/mailbox/{digest}")
            return
        self._count += 1
        named = msgspec.structs.replace(manifest, serial=f"{self._epoch}.{self._count}")
        before, self._delivered = self._delivered, None
        try:
            if before is None:
                await self.courier.deliver(named)
            else:
                await self.courier.change(difference(before, named))
        except RefusedError as error:
            if before is None or error.status != 409:
                raise
            await self.courier.deliver(named)
        self._delivered = named

    async def close(self) -> None:
        if self._listener:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self.courier.close()
        if self.tunnel:
            await self.tunnel.close()
