"""Notices when others change links, addresses and rules, so that it is repaired within a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable

from agent.engine.networks.applier import KernelApplier
from agent.engine.networks.host import addresses_of_host
from netplugins.linux import monitors

HEAL_AFTER_S = 0.25
"""How long changes are gathered: one command of an administrator makes several."""

RETRY_S = 5.0
"""When it is tried again where the host could not be looked at."""
log = logging.getLogger(__name__)


class Healer:
    """Watches the kernel, and calls *mend* a moment after others changed links or rules, and *moved* if the host then has other
    addresses, those of links that begin with *prefix* aside. Not *enabled*, it calls neither."""

    def __init__(
        self,
        applier: KernelApplier,
        prefix: str,
        mend: Callable[[], Awaitable[None]],
        moved: Callable[[], None],
        *,
        enabled: bool,
    ) -> None:
        self._applier = applier
        self._prefix = prefix
        self._mend = mend
        self._moved = moved
        self._enabled = enabled
        self._addresses: set[str] = set()
        self._monitors: list[socket.socket] = []
        self._timer: asyncio.TimerHandle | None = None
        self._healing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        links, rules = monitors.monitor(), monitors.ruleset_monitor()
        self._monitors = [links, rules]
        self._addresses = addresses_of_host(self._prefix)
        loop = asyncio.get_running_loop()
        loop.add_reader(links, self._links_changed, links)
        loop.add_reader(rules, self._rules_changed, rules)

    def _links_changed(self, monitor: socket.socket) -> None:
        with contextlib.suppress(OSError):  # ENOBUFS: missed events do not matter, since all is checked
            while monitor.recv(1 << 18):
                pass
        self._applier.suspect = True
        self._schedule()

    def _rules_changed(self, monitor: socket.socket) -> None:
        if self._applier.rules.read_events(monitor):
            self._schedule()

    def _schedule(self, after_s: float = HEAL_AFTER_S) -> None:
        if self._timer is None and self._enabled:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._healing = asyncio.create_task(self._heal())

    async def _heal(self) -> None:
        try:
            before, self._addresses = self._addresses, await asyncio.to_thread(addresses_of_host, self._prefix)
        except OSError as error:  # too many open files, for instance
            log.warning("what others changed of networks is not looked at now: %s", error)
            return self._schedule(RETRY_S)
        if before != self._addresses:
            self._moved()
        await self._mend()

    def close(self) -> None:
        """Watch no more; a repair that has begun goes on."""
        if self._timer:
            self._timer.cancel()
        for monitor in self._monitors:
            asyncio.get_running_loop().remove_reader(monitor)
            monitor.close()
