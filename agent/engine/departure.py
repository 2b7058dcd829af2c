"""The machine of this node is to go down: the control plane gives its tasks to other nodes before that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection


class Departure:
    """*followers* read the node's info again when they get None. It ends with the agent: after a boot, or a restart, the
    node is there again."""

    def __init__(self, followers: Collection[Callable[[None], None]]) -> None:
        self.begun = False
        self._followers = followers
        self._emptied = asyncio.Event()

    async def begin(self, within_s: float) -> bool:
        """Say that the node goes down. Returns whether the control plane took away what it can within *within_s* seconds; at
        once where there is none."""
        self.begun = True
        self._emptied.clear()
        for follower in self._followers:
            follower(None)
        if not self._followers:
            return False
        try:
            async with asyncio.timeout(within_s):
                await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    def end(self) -> None:
        """The control plane is done."""
        self._emptied.set()
