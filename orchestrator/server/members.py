"""The connection to one node: sends it its manifest, follows its statuses, and knows whether it answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent.contract.coalescing import Coalescer
from agent.contract.manifest import Manifest, diff
from agent.contract.printable import shown
from agent.contract.sealing import PURPOSES
from agent.contract.status import NodeInfo, TaskStatus
from orchestrator.errors import PystackError, RefusedError, SilentNodeError, UndeliveredError, UnreachableError
from orchestrator.placement.node import Node
from orchestrator.transport.agent_client import AgentClient
from orchestrator.transport.manifest_publisher import EtcdManifestPublisher

if TYPE_CHECKING:
    from orchestrator.transport.ssh import SshTunnel
    from orchestrator.transport.uplink import UplinkTunnel

OFFER_AGAIN_S = 2.0
"""How long after a node refused its manifest it is offered again."""
UNHEARD_S = 10.0
"""How long a server that begins to lead takes a node for well that it has no word of yet."""
log = logging.getLogger(__name__)


def key_of(info: NodeInfo, purpose: str) -> str:
    """The node's public key for *purpose* ("seal" or "tunnel"), "" if it has none."""
    return info.seal_key if purpose == "seal" else info.tunnel_key


def published_info(info: NodeInfo) -> tuple[object, ...]:
    """The info of a node that the manifests of other nodes contain: a server that starts must know them before it delivers."""
    return info.mtu, info.ssh_key, info.seal_key, info.tunnel_key, info.addresses


async def _ignore(member: NodeConnection) -> None:
    del member


class NodeConnection:
    """*socket* is the agent's, or the local end of *tunnel*, which forwards it. *manifest_publisher* is
    set for a node that reads its manifest from etcd. *manifest* makes the node's manifest, *on_status* takes each status."""

    def __init__(
        self,
        node: Node,
        socket: Path,
        manifest: Callable[[str], Manifest],
        on_status: Callable[[TaskStatus], None],
        tunnel: SshTunnel | UplinkTunnel | None = None,
        manifest_publisher: EtcdManifestPublisher | None = None,
    ) -> None:
        self.node = node
        self.manifest_publisher = manifest_publisher
        self.client = AgentClient(node.name, socket)
        self.client.on_lease_ended = self._renew_lease
        self.tunnel = tunnel
        self.problem = "not connected yet"
        self.synced = asyncio.Event()
        self.on_connected: Callable[[NodeConnection], Awaitable[None]] = _ignore
        """Awaited each time the node is connected and its info is known."""
        self.on_liveness: Callable[[], None] = lambda: None
        """Called when the node began to answer, when it fell silent, and when it was silent from the start for UNHEARD_S."""
        self.connected_at = 0.0
        self.silent_since: float | None = asyncio.get_running_loop().time()
        """Since when the node does not answer, by the loop's clock in seconds; None while it does."""
        self._manifest = manifest
        self._on_status = on_status
        self.streaming = False
        """Whether the node says its statuses now; it is ready a moment later, when its info is known."""
        self.refusal = ""
        """Why the node did not take its last manifest, "" if it did; it is offered again and again."""
        self._delivering = Coalescer(self._deliver_now)
        self._first_delivery: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._delivered: Manifest | None = None
        self._epoch = os.urandom(4).hex()
        self._count = 0
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> bool:
        """Whether the node answers."""
        return self.synced.is_set()

    def start(self) -> None:
        """Begin to connect, for as long as it takes."""
        if self.tunnel:
            self.tunnel.on_problem = self._on_tunnel_problem
            self.tunnel.start()
        self._listener = asyncio.create_task(self._follow_statuses(), name=f"listen to {self.node.name}")
        asyncio.get_running_loop().call_later(UNHEARD_S, lambda: self.on_liveness())

    @property
    def unheard(self) -> bool:
        """Whether the node has not had its time yet to answer for the first time: nothing is known of it, good or bad."""
        return self.grace_s > 0

    @property
    def grace_s(self) -> float:
        """How many seconds of that time are left, 0 once the node has answered."""
        begun = self.silent_since
        if self.connected_at or begun is None:
            return 0.0
        return max(0.0, begun + UNHEARD_S - asyncio.get_running_loop().time())

    @property
    def last_word(self) -> float | None:
        """When a silent node last reported, or could have first, by the loop's clock in seconds; None while it answers."""
        return None if self.silent_since is None else self.client.last_line_at or self.silent_since

    @property
    def machine_answers(self) -> bool:
        """Whether the node's SSH server, or its agent, keeps a connection: then its machine runs, and so do its containers."""
        return self.tunnel is not None and self.tunnel.connected

    def _on_tunnel_problem(self, problem: str) -> None:
        if problem:
            self.problem = problem

    async def _follow_statuses(self) -> None:
        """Follow the node's statuses; a lost stream is opened again, with back-off."""
        pause = 0.05
        while True:
            try:
                async for status in self.client.statuses():
                    pause = 0.05
                    self.streaming = True
                    if status is None:
                        await self._connected()
                    else:
                        self._on_status(status)
            except (UnreachableError, RefusedError) as error:
                if self.tunnel is None or self.ready or self.client.silent:
                    self.problem = error.reason if isinstance(error, SilentNodeError) else str(error)
            except (ValueError, TypeError, LookupError) as error:  # what answers is not an agent: it may be again
                log.warning("node %s answers what no agent does: %s", self.node.name, shown(str(error), 200))
                self.problem = "it answers what no agent does: see the server's log"
            self.streaming = False
            if self.ready:
                self.silent_since = asyncio.get_running_loop().time()
                self.synced.clear()
                self._delivered = None
                self.on_liveness()
            await asyncio.sleep(pause)
            pause = min(5.0 if self.tunnel is None else 1.0, pause * 2)

    async def _connected(self) -> None:
        """The node answers: fetch its info, then deliver its manifest."""
        self.connected_at = asyncio.get_running_loop().time()
        await self.refresh_info()
        await self.on_connected(self)
        self.problem = ""
        self.silent_since = None
        self.synced.set()
        self.on_liveness()
        self._first_delivery = asyncio.create_task(self._deliver_quietly())

    async def refresh_info(self) -> None:
        """Fetch the info of the node. Raises UnreachableError, RefusedError."""
        before = self.node.info
        where = {"underlay": self.node.underlay}
        info = msgspec.convert(await self.client.call("GET", "/pystack/info", params=where), NodeInfo)
        self.node = msgspec.structs.replace(self.node, info=info)
        for purpose in PURPOSES:
            if key_of(before, purpose) and not key_of(info, purpose):  # it has another disk, and the key is in use
                await self.ask_key(purpose)

    async def ask_key(self, purpose: str) -> None:
        """Fetch the node's public key for *purpose*; it makes one if it has none. Raises UnreachableError, RefusedError."""
        made = await self.client.call("POST", f"/pystack/keys/{purpose}")
        info = msgspec.structs.replace(self.node.info, **{f"{purpose}_key": made["key"]})
        self.node = msgspec.structs.replace(self.node, info=info)

    def _renew_lease(self) -> None:
        """Say again whose its tasks are: messages got lost on the way to the node alone, and it stopped what is strict."""
        self._delivered = None
        self._first_delivery = asyncio.create_task(self._deliver_quietly())

    async def _deliver_quietly(self) -> None:
        with contextlib.suppress(PystackError):  # it is said, and offered again
            await self.deliver()

    async def deliver(self) -> None:
        """Send the node its manifest as of now, and return when the node has it. Calls of one moment share one delivery.

        A node that does not answer gets it when it is back; that raises nothing. Raises RefusedError."""
        if self._closed or (not self.ready and self.manifest_publisher is None):
            return
        await self._delivering()

    async def _deliver_now(self) -> None:
        try:
            manifest, before = self._manifest(self.node.name), self._delivered
            if before is None or msgspec.structs.replace(before, revision=manifest.revision, serial="") != manifest:
                await self._send_manifest(manifest)
        except UnreachableError:
            pass  # it is sent when the node is back, if it was not removed
        except PystackError as error:
            self._refused(error)
            raise UndeliveredError(f"node {self.node.name}: {error}", getattr(error, "status", 500)) from error
        self.refusal = ""

    def _refused(self, error: PystackError) -> None:
        """The node did not take its manifest: its disk may be full. Offer it again after a while."""
        if not self.refusal:
            log.warning("node %s: %s", self.node.name, error)
        self.refusal = str(error)
        self._retry = asyncio.get_running_loop().call_later(OFFER_AGAIN_S, self._offer_again)

    def _offer_again(self) -> None:
        if self.refusal and self.ready and not self._closed:
            self._first_delivery = asyncio.create_task(self._deliver_quietly())

    async def _send_manifest(self, manifest: Manifest) -> None:
        """Send the changes since the last delivery, or all of it if the node does not have that one."""
        if self.manifest_publisher:
            digest = await self.manifest_publisher.publish(manifest)
            self._delivered = manifest
            if self.ready:
                await self.client.call("POST", f"/pystack/manifest-source/{digest}")
            return
        self._count += 1
        named = msgspec.structs.replace(manifest, serial=f"{self._epoch}.{self._count}")
        before, self._delivered = self._delivered, None
        try:
            if before is None:
                await self.client.deliver(named)
            else:
                await self.client.change(diff(before, named))
        except RefusedError as error:
            if before is None or error.status != 409:
                raise
            await self.client.deliver(named)
        self._delivered = named

    def fall_silent(self) -> None:
        """Say nothing to the node from now on: no manifest, and no acknowledgement of a beat."""
        self._closed = True
        if self._retry:
            self._retry.cancel()
        if self._first_delivery:
            self._first_delivery.cancel()
        self._delivering.close()
        if self._listener:
            self._listener.cancel()

    async def close(self) -> None:
        """Disconnect."""
        self.fall_silent()
        if self._listener:
            await asyncio.gather(self._listener, return_exceptions=True)
        await self.client.close()
        if self.tunnel:
            await self.tunnel.close()
