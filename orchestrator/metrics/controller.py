"""Runs Prometheus in the cluster (`pystack monitoring up`), and lets it in to the server that leads.

What is wanted is in the store; which servers may lead, and where they are, is looked at again and again, and a change is a new
configuration for Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from pathlib import Path

import msgspec

from orchestrator.errors import PystackError, RefusedError
from orchestrator.ingress.controller import Ingress
from orchestrator.metrics.endpoint import ScrapeEndpoint
from orchestrator.metrics.prometheus import STACK, TOKEN, MonitoringSettings, system_stack
from orchestrator.server import lifecycle
from orchestrator.server.events import Emit, Failure
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from orchestrator.stackfile.model import Stack
from orchestrator.store.interface import Delete, Put

SETTINGS = "monitoring/settings"
TOKEN_NAME = "pystack-monitoring"
LOOK_S = 15.0
LOCAL = "127.0.0.1"
log = logging.getLogger(__name__)


class Monitoring:
    """*settings* is None while the cluster has no Prometheus of its own. *socket* is that of the API for those with a token."""

    def __init__(self, plane: ControlPlane, ingress: Ingress, socket: Path) -> None:
        self.settings: MonitoringSettings | None = None
        self._plane, self._ingress, self._socket = plane, ingress, socket
        self._endpoint: ScrapeEndpoint | None = None
        self._loop: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Read the store, and answer Prometheus if there is one. Raises StoreError."""
        found = await self._plane.store.get(SETTINGS)
        self.settings = msgspec.json.decode(found.value, type=MonitoringSettings) if found else None
        self._loop = asyncio.create_task(self._run(), name="monitoring")

    async def up(self, settings: MonitoringSettings, emit: Emit) -> list[Failure]:
        """Run Prometheus by *settings*. Raises RefusedError, PystackError."""
        async with self._changing:
            before = self.settings
            if before is None or before.port != settings.port:
                await self._listen(settings)  # a port that is taken is found before anything is changed
            await self._plane.store.transact((), [Put(SETTINGS, msgspec.json.encode(settings))])
            self.settings = settings
            await self._keep_token()
            options = UpOptions(pull="never", timeout_s=60.0)
            return await self._plane.rollouts.up(await self._stack(settings), options, emit)

    async def down(self, emit: Emit, *, volumes: bool) -> list[Failure]:
        """Stop Prometheus; what it knows stays in its volume, unless that goes too. Raises RefusedError (404)."""
        async with self._changing:
            if self.settings is None:
                raise RefusedError("the cluster has no Prometheus of its own: `pystack monitoring up`", 404)
            failures = await lifecycle.down(self._plane.dispatcher, STACK, volumes=volumes, emit=emit)
            await self._plane.store.transact((), [Delete(SETTINGS)])
            self.settings = None
            self._close_endpoint()
            if TOKEN_NAME in self._plane.access.tokens:
                await self._plane.access.remove_token(TOKEN_NAME)
            with contextlib.suppress(PystackError):
                await self._plane.contents.remove("secret", TOKEN, ())
            return failures

    async def _keep_token(self) -> None:
        """A viewer's token for Prometheus, and its secret for the stack: made once, and again if either is gone."""
        access, contents = self._plane.access, self._plane.contents
        with contextlib.suppress(PystackError):
            if access.token_of(contents.read("secret", TOKEN).decode()) is not None:
                return
        if TOKEN_NAME in access.tokens:
            await access.remove_token(TOKEN_NAME)
        _, secret = await access.create_token(TOKEN_NAME, "viewer")
        await contents.create("secret", TOKEN, secret.encode(), replace=True)

    def servers(self) -> tuple[str, ...]:
        """The addresses of all nodes that may lead."""
        cluster = self._plane.cluster
        found = {m.node.underlay or LOCAL for n, m in cluster.members.items() if n == cluster.local or m.node.server}
        return tuple(sorted(found))

    def _own_address(self) -> str:
        return self._plane.cluster.members[self._plane.cluster.local].node.underlay or LOCAL

    async def _stack(self, settings: MonitoringSettings) -> Stack:
        from orchestrator import authority  # not at the top: a server without ingress is spared 9 MB

        root = authority.root_certificate(await self._ingress.certificates.root())
        return system_stack(settings, self.servers(), root)

    async def _listen(self, settings: MonitoringSettings) -> None:
        """Answer where the configuration of Prometheus says. Raises PystackError."""
        at = (self._own_address(), settings.port)
        if self._endpoint and self._endpoint.at == at:
            self._endpoint.renew(time.time())
            return
        made = ScrapeEndpoint(*at, self._socket, await self._ingress.certificates.root())
        self._close_endpoint()
        self._endpoint = made

    def _close_endpoint(self) -> None:
        if self._endpoint:
            self._endpoint.close()
        self._endpoint = None

    async def _run(self) -> None:
        while True:
            try:
                if self.settings and not self._changing.locked():
                    await self._listen(self.settings)
                    await self._follow(self.settings)
            except PystackError as error:
                log.warning("monitoring: %s", error)
            except Exception:
                log.exception("monitoring")
            await asyncio.sleep(LOOK_S)

    async def _follow(self, settings: MonitoringSettings) -> None:
        """Give Prometheus its configuration again where servers came, went or moved."""
        record = self._plane.state.stacks.get(STACK)
        if record is None:
            return
        wanted = await self._stack(settings)
        known = {c.key: c.digest for c in record.stack.contents if c.kind == "config"}
        fresh = {c.key: hashlib.sha256(c.content).hexdigest()[:32] for c in wanted.contents if c.content is not None}
        if known.get("prometheus.yml") != fresh["prometheus.yml"]:
            async with self._changing:
                await self._plane.rollouts.up(wanted, UpOptions(pull="never", timeout_s=60.0), lambda event: None)

    async def close(self) -> None:
        """Stop answering: another server may lead."""
        if self._loop:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self._close_endpoint()
