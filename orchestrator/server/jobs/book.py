"""The runs of all services and the states of all schedules: the store's content in memory, and what changes both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from orchestrator.planning.schedules import ScheduleState
from orchestrator.server.jobs.records import JobRun, of_run, of_schedule
from orchestrator.server.state import ClusterState
from orchestrator.store.interface import Compare, Delete, Op, Put

Owner = tuple[str, str]
"""(stack, service)"""


class RunBook:
    """A copy of `runs/` and `schedules/`. Only the server that leads writes them, so the copy stays true."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self.runs: dict[Owner, dict[str, JobRun]] = {}
        self.schedules: dict[Owner, ScheduleState] = {}
        self.changed = asyncio.Event()
        """Set with each change, so that the loop that carries runs out looks again."""

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError."""
        for entry in await self._state.store.scan("runs/"):
            run = msgspec.json.decode(entry.value, type=JobRun)
            self.runs.setdefault((run.stack, run.service), {})[run.id] = run
        for entry in await self._state.store.scan("schedules/"):
            _, stack, service = entry.key.split("/")
            self.schedules[stack, service] = msgspec.json.decode(entry.value, type=ScheduleState)

    def of(self, stack: str, service: str) -> list[JobRun]:
        """The runs of a service, the oldest first."""
        return [run for _, run in sorted(self.runs.get((stack, service), {}).items())]

    def of_stack(self, stack: str) -> list[JobRun]:
        """The runs of all services of a stack, the oldest first."""
        return sorted((r for (name, _), runs in self.runs.items() if name == stack for r in runs.values()), key=lambda r: r.id)

    def open(self) -> list[JobRun]:
        """All runs that have not ended, the oldest first."""
        return sorted((r for runs in self.runs.values() for r in runs.values() if r.open), key=lambda r: r.id)

    def next_id(self, stack: str, service: str, at: float) -> str:
        """An ID for a run that no schedule asks for and that begins at *at*: later than all others of the service."""
        last = max((int(i[:10]) for i in self.runs.get((stack, service), {})), default=0)
        return f"{max(int(at), last + 1):010d}h"

    async def put(self, *runs: JobRun, keep: int, also: Sequence[Op] = (), new: bool = False) -> None:
        """Write *runs* of one service, with what else belongs to the change. Of those that ended, the last *keep* stay. *new*
        ones must not be there yet. Raises RefusedError (409), StoreError."""
        owner = runs[0].stack, runs[0].service
        known = dict(self.runs.get(owner, {})) | {r.id: r for r in runs}
        ended = [i for i, r in sorted(known.items()) if not r.open]
        gone = ended[: max(len(ended) - keep, 0)]
        operations: list[Op] = [Put(of_run(r), msgspec.json.encode(r)) for r in runs if r.id not in gone]
        operations += [Delete(of_run(known[i])) for i in gone if i in self.runs.get(owner, {})]
        compare = [Compare(of_run(r), 0) for r in runs if r.id not in gone] if new else []
        await self._state.transact([*also, *operations], compare)
        mine = self.runs.setdefault(owner, {})
        mine.update({r.id: r for r in runs})
        for ident in gone:
            mine.pop(ident, None)
        self.changed.set()

    async def put_schedule(self, stack: str, service: str, state: ScheduleState, runs: Sequence[JobRun], keep: int) -> None:
        """Write the *state* of a schedule together with the *runs* that it made. Raises RefusedError (409), StoreError."""
        operation = Put(of_schedule(stack, service), msgspec.json.encode(state))
        if runs:
            await self.put(*runs, keep=keep, also=[operation], new=True)
        else:
            await self._state.transact([operation])
        self.schedules[stack, service] = state
        self.changed.set()

    async def forget(self, owners: Sequence[Owner]) -> None:
        """Delete all runs and schedules of *owners*."""
        operations: list[Op] = []
        for owner in owners:
            operations += [Delete(of_run(r)) for r in self.runs.get(owner, {}).values()]
            if owner in self.schedules:
                operations.append(Delete(of_schedule(*owner)))
        await self._state.transact(operations)
        for owner in owners:
            self.runs.pop(owner, None)
            self.schedules.pop(owner, None)
