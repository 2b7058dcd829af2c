"""Keeps this host's member running, and knows the other members. A member that was killed is back within a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec

from orchestrator.errors import PystackError
from orchestrator.managed import process
from orchestrator.managed.gateway import Gateway, GatewayError
from orchestrator.managed.settings import MemberFolder, MemberSettings

LOOK_S, ASK_S = 0.5, 10.0
"""How often it is looked whether the process runs, and how often the member is asked who the others are."""
log = logging.getLogger(__name__)


class MemberSupervisor:
    """*settings* are the newest."""

    def __init__(self, folder: MemberFolder, settings: MemberSettings) -> None:
        self.folder = folder
        self.settings = settings
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. Raises PystackError if etcd cannot be started at all."""
        process.start(self.folder, self.settings)
        self._task = asyncio.create_task(self._run(), name="member of etcd")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if not process.running(self.folder):
                    log.warning("this host's member of etcd ended: it is started again (%s)", self.folder.log)
                    process.start(self.folder, self.settings)
                if loop.time() - asked >= ASK_S:
                    asked = loop.time()
                    await asyncio.to_thread(self._learn)
            except (PystackError, OSError) as error:
                log.warning("this host's member of etcd: %s", error)

    def _learn(self) -> None:
        """Who the members are now: others may have joined, or gone."""
        with contextlib.suppress(GatewayError):
            found = Gateway(self.folder, self.settings.address).members()
            members = {m.name: m.address for m in found if m.name and not m.learner}
            if members and members != self.settings.members:
                self.settings = msgspec.structs.replace(self.settings, members=members, joining=False)
                self.folder.write(self.settings)

    async def close(self) -> None:
        """Stop looking; the member runs on, as containers do."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
