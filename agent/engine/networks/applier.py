"""Applies the desired state to kernel and firewall, on a thread of its own, since netlink blocks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from agent.contract.failpoints import failpoint
from agent.engine.networks import nftables
from agent.engine.networks.translate import Desired
from agent.errors import AgentError
from netplugins.errors import NetworkError
from netplugins.kernel import Kernel
from netplugins.linux.sysctl import allow_forwarding

T = TypeVar("T")
P = ParamSpec("P")
FORWARDS_S = 1.0
"""How long the host is taken to forward, once it was looked at."""
log = logging.getLogger(__name__)


class KernelApplier:
    """Links, addresses, routes, FDB, rules and sysctls of one node. *prefix* begins the names of our links."""

    def __init__(self, prefix: str) -> None:
        self.rules = nftables.NftablesApplier(prefix)
        self.notes: list[str] = []
        """Messages: changes to the host that are not ours, and those that failed."""
        self.forwards = False
        """Whether this node has networks between which and the outside it must forward, with containers of its own or not."""
        self.suspect = False
        """Whether links have changed since the kernel was last looked at."""
        self._prefix = prefix
        self._kernel: Kernel | None = None
        self._forwards_until = 0.0
        self._worker = ThreadPoolExecutor(1, "netlink")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of *work*, called on the thread that changes the kernel: nothing changes meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, lambda: work(*args, **kwargs))

    async def apply(self, desired: Desired) -> dict[str, str]:
        """Bring kernel and firewall to *desired*. Returns failures that concern single containers: namespace → reason.

        Raises AgentError if all of it fails."""
        try:
            return await self.run(self._apply, desired)
        except NetworkError as error:
            raise AgentError(str(error)) from error

    def _apply(self, desired: Desired) -> dict[str, str]:
        if self._kernel is None:
            self._kernel = Kernel(self._prefix)
            self._kernel.adopt(desired.objects)
        failpoint("network.converge")
        self.forwards = bool(desired.policies)
        self._allow_forwarding()
        problems = self._converge(self._kernel, desired)
        ruleset = desired.ruleset()
        if ruleset != self.rules.made and (desired.policies or self.rules.made):
            failpoint("network.firewall")
            self.rules.enforce(ruleset, nftables.targets(desired.published, desired.balanced), desired.alive())
        for note in self.rules.sync_foreign_forward_chains(forwarding=self.forwards):
            self.notes.append(note)
            log.warning("%s", note)
        return problems

    def _allow_forwarding(self) -> None:
        """Have the host forward where a network needs it: a published port leads on to another node's containers too."""
        if self.forwards and time.monotonic() > self._forwards_until:
            self._forwards_until = time.monotonic() + FORWARDS_S
            self.notes += allow_forwarding()

    def _converge(self, kernel: Kernel, desired: Desired) -> dict[str, str]:
        """Look for what others removed only if this fails and links have changed: on a host with hundreds of links it takes
        long, and `Healer` has it done in the background."""
        try:
            problems = kernel.converge(desired.objects, desired.fdb)
            if not (problems and self.suspect):
                return problems
        except NetworkError:
            if not self.suspect:
                raise
        self.suspect = False
        kernel.detect_drift()
        return kernel.converge(desired.objects, desired.fdb)

    async def is_intact(self) -> bool:
        """Whether the kernel still has all that the last `apply` made; False too if that is not known, or rules were changed.
        Most changes of links are our own, and need no repair."""
        if not self.suspect or self.rules.made is None or self._kernel is None:
            return False
        self.suspect = False
        return not await self.run(self._kernel.detect_drift)

    async def invalidate(self, items: Iterable[str]) -> None:
        """Have the next `apply` recreate the kernel objects called *items*, and all rules."""
        if self._kernel:
            await self.run(self._kernel.invalidate, list(items))
        self.rules.invalidate()

    def close(self) -> None:
        """End the thread and close the sockets; the state of the kernel stays."""
        self._worker.shutdown()
        self.rules.close()
