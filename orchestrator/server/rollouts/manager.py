"""Carries rollouts out without a client: one that goes away leaves its rollout running, and another leader resumes it.

A rollout is what is wanted, not a list of steps: the next leader plans from what is there now. So it can be cut off
anywhere. A newer `up` of the whole stack takes the place of one that is going on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping

import msgspec

from orchestrator.errors import RefusedError
from orchestrator.planning.state import Plan
from orchestrator.server import revisions
from orchestrator.server.contents import Contents
from orchestrator.server.events import Emit, Event, Failure
from orchestrator.server.execute import PlanExecutor
from orchestrator.server.locks import GivenUpError
from orchestrator.server.records import ROLLOUT_VERBS, RolloutVerb, SavedPlan, UpOptions
from orchestrator.server.revisions import require_unmoved
from orchestrator.server.rollout_control import RolloutControl, RolloutPausedError
from orchestrator.server.rollouts.records import UNFINISHED, RolloutRecord, RolloutState, of_rollout, present_scale
from orchestrator.server.state import ClusterState
from orchestrator.stackfile.model import Stack
from orchestrator.store.interface import Put, StoreError

NODES_S = 10.0
"""How long a server that begins to lead waits for silent nodes before it goes on with rollouts."""
log = logging.getLogger(__name__)
Derive = Callable[[], tuple[Stack, UpOptions]]
"""Makes a stack of what there is, and says how to bring it up. Raises RefusedError."""


class LiveRollout(RolloutControl):
    """A rollout that this server carries out, and those who watch it."""

    def __init__(
        self,
        manager: RolloutManager,
        stack: Stack,
        options: UpOptions,
        verb: RolloutVerb = "up",
        record: RolloutRecord | None = None,
    ) -> None:
        super().__init__(record.id if record else "")
        self.stack, self.options, self.verb, self.record = stack, options, verb, record
        self.derive: Derive | None = None
        """What makes *stack* and *options* of the present state, None if they do not depend on it."""
        self.saved: Plan | None = None
        """The plan that this one must be, None if any will do."""
        self.watchers: set[Emit] = set()
        self.task: asyncio.Task[list[Failure]] | None = None
        self._manager = manager

    def emit(self, event: Event) -> None:
        """Tell all who watch."""
        for watcher in list(self.watchers):
            watcher(event)

    async def wanted(self, stack: Stack, options: UpOptions) -> tuple[Stack, UpOptions]:
        """The stack of the present state, if it is made of that: another change may have come while this one waited."""
        if self.derive and self.record is None:
            made, self.options = self.derive()
            self.stack = await self._manager.with_contents(made)
        return self.stack, self.options

    async def begin(self, plan: Plan, before: Stack | None) -> None:
        """Keep a record from here on, if there is none yet and something is to change."""
        if self.saved:
            require_unmoved(self.saved, plan)
        if self.record is None and plan.changes:
            self.before = before
            await self._manager.keep_new(self)

    async def note(self, phase: str) -> None:
        """Keep *phase*."""
        if self.record:
            await self._manager.keep(self, phase=phase)

    async def checkpoint(self) -> None:
        """Stop here if somebody asked for it."""
        if self.pausing:
            raise RolloutPausedError(self.stack.name)


class RolloutManager:
    """The rollouts of all stacks: at most one of each is going on, and the record of the last one is kept."""

    def __init__(self, state: ClusterState, contents: Contents, executor: PlanExecutor) -> None:
        self._state, self._contents, self._executor = state, contents, executor
        self.records: dict[str, RolloutRecord] = {}
        self._live: dict[str, list[LiveRollout]] = {}
        self._saving: dict[str, asyncio.Lock] = {}
        self.scaled_by_hand: Callable[[str, Collection[str]], Awaitable[None]] | None = None
        """Called with the services of a stack whose number of replicas a user gave."""

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError."""
        for entry in await self._state.store.scan("rollouts/"):
            record = msgspec.json.decode(entry.value, type=RolloutRecord)
            self.records[record.stack.name] = record

    async def resume_all(self) -> None:
        """Go on with what another leader left, once the nodes have reported."""
        left = [r for r in self.records.values() if r.state == "running"]
        cluster = self._executor.cluster
        with contextlib.suppress(TimeoutError):
            await self._executor.statuses.until(
                lambda: None if left and any(m.unheard for m in cluster.members.values()) else True, within_s=NODES_S
            )
        await asyncio.gather(*map(self._go_on, left))

    async def _go_on(self, record: RolloutRecord) -> None:
        """Go on with what *record* has, unless somebody asked for something else meanwhile: the client of that rollout does,
        where its server went away. Nothing may come of what was asked, so its end is waited for."""
        name = record.stack.name
        while asked := [live.task for live in self._live.get(name, ()) if live.verb in ("up", "apply") and live.task]:
            await asyncio.wait(asked)
        if self.records.get(name) is record:
            log.warning("the rollout of %s goes on: another server began it", name)
            await self._restart(record)

    async def _restart(self, record: RolloutRecord) -> LiveRollout:
        live = LiveRollout(self, record.stack, record.options, record.verb, record)
        known = {r.revision: r.stack for r in await self._state.history(record.stack.name)}
        live.before = known.get(record.before)
        self._start(live)
        return live

    # --- what is asked ------------------------------------------------------------------------------------------

    async def up(self, stack: Stack, options: UpOptions, emit: Emit, verb: RolloutVerb = "up") -> list[Failure]:
        """Make *stack* true, for *verb*. Who is cancelled here stops watching; the rollout goes on, once it has begun. Returns
        the tasks that failed. Raises what `PlanExecutor.up` raises."""
        return await self._carry_out(await self._new(stack, options, verb), emit)

    async def change(self, derive: Derive, emit: Emit, verb: RolloutVerb = "up") -> list[Failure]:
        """Make true what *derive* makes of the present state: it is asked at once, and again when no other change of that stack
        is under way, so that none is undone. Returns the tasks that failed. Raises what it and `PlanExecutor.up` raise."""
        live = await self._new(*derive(), verb)
        live.derive = derive
        return await self._carry_out(live, emit)

    async def begin(self, derive: Derive, emit: Emit) -> list[Failure]:
        """As `change`, but for who does not wait: return when the stack is written and the rollout goes on by itself, or has
        ended before that. Returns the tasks that failed by then. Raises what `change` raises by then."""
        live = await self._new(*derive(), "up")
        live.derive = derive
        watching = asyncio.create_task(self._carry_out(live, emit))
        written = asyncio.create_task(live.written.wait())
        try:
            await asyncio.wait({watching, written}, return_when=asyncio.FIRST_COMPLETED)
            return await watching if watching.done() else []
        finally:
            written.cancel()
            watching.cancel()  # who watches goes; what is kept goes on

    async def apply(self, saved: SavedPlan, emit: Emit) -> list[Failure]:
        """Do exactly what *saved* says: nothing is pulled that its plan does not know of. Returns the tasks that failed. Raises
        RefusedError (409) if the same stack and options give another plan by now."""
        live = await self._new(saved.stack, msgspec.structs.replace(saved.options, pull="never"), "apply")
        live.saved = saved.plan
        return await self._carry_out(live, emit)

    async def rollback(
        self, stack: str, revision: int, options: UpOptions, emit: Emit, verb: RolloutVerb = "up"
    ) -> list[Failure]:
        """Apply an earlier *revision* of *stack* again, as a new revision; 0 is the one before the present. Returns the tasks
        that failed. Raises RefusedError (404)."""
        found = await revisions.earlier(self._state, stack, revision)
        message = options.message or f"rollback to revision {found.revision}"
        # the stack as a whole: services that a later revision added are removed too
        return await self.up(found.stack, msgspec.structs.replace(options, message=message, remove_orphans=True), emit, verb)

    async def redeploy(self, stack: str, emit: Emit, moves: Mapping[str, str] = {}) -> list[Failure]:
        """Bring *stack* up as it is, with as many replicas as it has, on the nodes that are best for it now. *moves* maps names
        of tasks to their new nodes. Returns the tasks that failed. Raises RefusedError (404)."""
        return await self.change(lambda: self._as_it_is(stack, moves), emit, verb="redeploy")

    def _as_it_is(self, stack: str, moves: Mapping[str, str]) -> tuple[Stack, UpOptions]:
        record = self._state.get_stack(stack).stack
        there = Counter[str]()
        for task in self._state.of_stack(stack).tasks:
            there[task.service] += task.planned
        there.update(waiting.service for waiting in self._state.waiting_for_room(stack).values())
        return record, UpOptions(scale=present_scale(record, there, self.records.get(stack)), moves=dict(moves))

    async def watch(self, stack: str, emit: Emit) -> list[Failure]:
        """Tell of the rollout of *stack* to its end. Returns the tasks that failed. Raises RefusedError (404) if there is
        none."""
        live = next(iter(self._live.get(stack, ())), None)
        if live:
            return await self._watch(live, emit)
        record = self.get(stack)
        if record.state in ("failed", "superseded", "aborted") and not record.failures:
            raise RefusedError(record.reason or f"the rollout of {stack} was {record.state}", 409)
        return list(record.failures)

    def get(self, stack: str) -> RolloutRecord:
        """The last rollout of *stack*. Raises RefusedError (404)."""
        if stack not in self.records:
            raise RefusedError(f"stack {stack} has had no rollout yet: `pystack up` begins one", 404)
        return self.records[stack]

    def is_paused(self, stack: str) -> bool:
        """Whether somebody paused the rollout of *stack*, and nobody has resumed it."""
        return stack in self.records and self.records[stack].state == "paused"

    async def pause(self, stack: str) -> RolloutRecord:
        """Let the rollout of *stack* stop at the end of its step. Raises RefusedError (404, 409) if none is going on."""
        live = self._going_on(stack)
        # first the word, then the deed: a canary says itself that it stays at its step
        await self.keep(live, phase="is to pause when the tasks are up that are being exchanged")
        live.pausing = True
        return self.get(stack)

    async def resume(self, stack: str, emit: Emit) -> list[Failure]:
        """Go on with a paused rollout, or one that failed or was aborted. Raises RefusedError (404, 409)."""
        record = self.get(stack)
        for live in self._live.get(stack, ()):
            if live.pausing and live.record:
                live.pausing = False
                return await self._watch(live, emit)
        if self._live.get(stack):
            raise RefusedError(f"the rollout of {stack} is going on: `pystack rollout watch` shows it", 409)
        if record.state == "succeeded":
            raise RefusedError(f"the rollout of {stack} is done: nothing is left to go on with", 409)
        record = self.records[stack] = msgspec.structs.replace(record, state="running", reason="", ended=0.0, failures=())
        return await self._watch(await self._restart(record), emit)

    def promote(self, stack: str) -> RolloutRecord:
        """End the wait between two steps. Raises RefusedError (404, 409)."""
        self._going_on(stack).promoted.set()
        return self.get(stack)

    async def abort(self, stack: str, emit: Emit) -> list[Failure]:
        """Give the rollout up, and go back to the revision that it began from. Raises RefusedError (404, 409)."""
        record = self.get(stack)
        if record.state not in (*UNFINISHED, "failed"):
            raise RefusedError(f"the rollout of {stack} has ended ({record.state}): `pystack rollback` goes back", 409)
        for live in list(self._live.get(stack, ())):
            self._state.lock(f"stack {stack}").give_up(ROLLOUT_VERBS, "rollout abort")
            if live.task:
                await asyncio.wait([live.task])
        await self._save(msgspec.structs.replace(self.get(stack), state="aborted", ended=time.time(), phase=""))
        if not record.before:
            raise RefusedError(f"the rollout of {stack} is given up; it has no revision to go back to: `pystack down`", 409)
        options = UpOptions(
            user=record.options.user, message=f"the rollout of revision {record.before + 1} was aborted", back=True
        )
        return await self.rollback(stack, record.before, options, emit)

    def _going_on(self, stack: str) -> LiveRollout:
        live = next((one for one in self._live.get(stack, ()) if one.record), None)
        if live is None:
            raise RefusedError(f"no rollout of {stack} is going on; the last one is {self.get(stack).state}", 409)
        return live

    # --- carrying out ------------------------------------------------------------------------------------------

    async def _new(self, stack: Stack, options: UpOptions, verb: RolloutVerb) -> LiveRollout:
        return LiveRollout(self, await self.with_contents(stack), options, verb)

    async def with_contents(self, stack: Stack) -> Stack:
        """*stack*, with the digests of its configs and secrets, which the store has from here on."""
        await self._contents.keep(stack.contents)
        return self._contents.with_digests(stack)

    async def _carry_out(self, live: LiveRollout, emit: Emit) -> list[Failure]:
        self._start(live)
        return await self._watch(live, emit)

    def _start(self, live: LiveRollout) -> None:
        self._live.setdefault(live.stack.name, []).append(live)
        live.task = asyncio.create_task(self._work(live), name=f"rollout {live.stack.name}")

    async def _watch(self, live: LiveRollout, emit: Emit) -> list[Failure]:
        assert live.task
        live.watchers.add(emit)
        try:
            return await asyncio.shield(live.task)
        except asyncio.CancelledError:
            if live.record is None and not live.watchers - {emit}:
                live.task.cancel()  # nothing is changed yet, and nobody wants it any more
            raise
        finally:
            live.watchers.discard(emit)

    async def _work(self, live: LiveRollout) -> list[Failure]:
        covers = ("up",) if live.verb == "up" and not live.options.services else ()
        try:
            failures = await self._executor.up(
                live.stack, live.options, live.emit, control=live, verb=live.verb, instead_of=covers
            )
        except RolloutPausedError as error:
            await self._end(live, "paused", str(error))
            raise
        except GivenUpError as error:
            await self._end(live, "superseded", str(error))
            raise
        except Exception as error:
            parts = error.exceptions if isinstance(error, ExceptionGroup) else [error]
            await self._end(live, "failed", "; ".join(map(str, parts)))
            raise
        else:
            if live.verb == "up" and live.options.scale and self.scaled_by_hand and live.stack.name in self._state.stacks:
                await self.scaled_by_hand(live.stack.name, live.options.scale)
            await self._end(live, "failed" if failures else "succeeded", failures=tuple(failures))
            return failures
        finally:
            self._live[live.stack.name].remove(live)

    async def _end(self, live: LiveRollout, state: RolloutState, reason: str = "", failures: tuple[Failure, ...] = ()) -> None:
        record = live.record
        if record is None or self._is_past(record):
            return
        if state == "failed":
            log.warning("the rollout of %s failed: %s", live.stack.name, reason or "; ".join(f.reason for f in failures))
        short = tuple(msgspec.structs.replace(f, log=f.log[-10:]) for f in failures[:50])
        try:
            await self._save(
                msgspec.structs.replace(
                    record,
                    state=state,
                    reason=reason,
                    failures=short,
                    phase="",
                    ended=0.0 if state == "paused" else time.time(),
                ),
                last=True,
            )
        except StoreError as error:  # a leader that is one no more: the next goes on with it
            log.warning("the end of the rollout of %s cannot be written: %s", live.stack.name, error)

    async def keep_new(self, live: LiveRollout) -> None:
        """Write the record of a rollout that begins."""
        present = self._state.stacks.get(live.stack.name)
        before = present.revision if present else 0
        if live.verb == "redeploy" and self.is_paused(live.stack.name):
            before = self.records[
                live.stack.name
            ].before  # it ends what was paused: an abort goes back to what was there before both
        live.record = RolloutRecord(
            id=live.key,
            stack=live.stack,
            options=live.options,
            verb=live.verb,
            before=before,
            begun=time.time(),
        )
        await self._save(live.record)

    async def keep(self, live: LiveRollout, *, phase: str) -> None:
        """Write what a rollout does now."""
        assert live.record
        live.record = msgspec.structs.replace(live.record, phase=phase)
        await self._save(live.record)

    def _is_past(self, record: RolloutRecord) -> bool:
        """Whether another rollout of the stack has begun since."""
        return self.records.get(record.stack.name, record).id != record.id

    async def _save(self, record: RolloutRecord, *, last: bool = False) -> None:
        """Write *record*; the *last* word on it only if there is no other rollout by now. Who takes its place may write at the
        same moment, and the store keeps what arrives last."""
        name = record.stack.name
        async with self._saving.setdefault(name, asyncio.Lock()):
            if last and self._is_past(record):
                return
            await self._state.transact([Put(of_rollout(name), msgspec.json.encode(record))])
            self.records[name] = record

    async def close(self) -> None:
        """Leave everything as it is: who leads next goes on."""
        tasks = [live.task for lives in self._live.values() for live in lives if live.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
