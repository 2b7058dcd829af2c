"""What a rollout asks of the keeper of its record on its way: whether it may go on, and what was there before it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from orchestrator.errors import RefusedError
from orchestrator.planning.state import Plan
from orchestrator.server.events import Emit
from orchestrator.server.records import UpOptions
from orchestrator.stackfile.model import Service, Stack
from orchestrator.stackfile.workloads import DeployHook


class RolloutPausedError(RefusedError):
    """The rollout stops here until somebody resumes it."""

    def __init__(self, stack: str) -> None:
        super().__init__(f"the rollout of {stack} is paused: `pystack rollout resume` goes on with it", 409)


class Analyst(Protocol):
    """Runs an analysis."""

    async def analyse(self, stack: Stack, service: Service, hook: DeployHook, emit: Emit) -> str:
        """Run *hook* beside the tasks of *service*. Returns "", or the reason why it failed."""
        ...


class RolloutControl:
    """A rollout that nobody keeps a record of: it never stops on its way. *key* tells it from others."""

    def __init__(self, key: str = "", before: Stack | None = None) -> None:
        self.key = key or f"{time.time():.3f}"
        self.before = before
        """The stack before the rollout, where that is known; a rollout that another leader began has changed it since."""
        self.hooks: Analyst | None = None
        """Who runs the analyses of its steps."""
        self.pausing = False
        self.promoted = asyncio.Event()
        """Set to end the wait of a step."""
        self.written = asyncio.Event()
        """Set when the stack is as it is wanted in the store, and is about to be made true."""

    async def wanted(self, stack: Stack, options: UpOptions) -> tuple[Stack, UpOptions]:
        """What is to be made true, now that nobody else changes *stack*. Raises RefusedError where it cannot be any more."""
        return stack, options

    async def begin(self, plan: Plan, before: Stack | None) -> None:
        """*plan* is about to be carried out; *before* is what it changes. Raises RefusedError where it must not be."""

    async def note(self, phase: str) -> None:
        """The rollout is at *phase*, a sentence for people."""

    async def analyse(self, stack: Stack, service: Service, hook: DeployHook, emit: Emit) -> str:
        """Run *hook* beside the tasks of *service*. Returns "", or the reason why it failed."""
        assert self.hooks
        return await self.hooks.analyse(stack, service, hook, emit)

    async def checkpoint(self) -> None:
        """A place at which the rollout can stop and be begun again. Raises RolloutPausedError."""
        await asyncio.sleep(0)
