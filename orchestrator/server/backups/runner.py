"""Carries out the runs of backups: those that schedules make, and those that are ordered by hand.

A run belongs to a volume (`data@backup`, `data@verify`) as others do to a service, and is kept in the same book; when it is due
is decided by the same loop. A server that begins to lead repeats what was going on: a backup that is made twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from agent.contract.backup import BackupReport
from agent.contract.volume import Volume
from orchestrator.errors import PystackError, RefusedError
from orchestrator.server.backups.sources import KINDS, BackupSources, owner
from orchestrator.server.jobs.book import Owner
from orchestrator.server.jobs.controller import JobController
from orchestrator.server.jobs.records import JobRun, RunTask
from orchestrator.stackfile.units import show_bytes
from orchestrator.stackfile.workloads import Backup, BackupCommand, Schedule

log = logging.getLogger(__name__)


class BackupRunner:
    """Work of volumes for the loop of *jobs*."""

    def __init__(self, sources: BackupSources, jobs: JobController) -> None:
        self._sources, self._jobs = sources, jobs
        self._active: dict[str, asyncio.Task[None]] = {}
        self._repositories: dict[str, asyncio.Lock] = {}

    # --- what the loop asks ------------------------------------------------------------------------------------

    def schedules(self) -> Sequence[tuple[Owner, Schedule]]:
        """When volumes are backed up, and when their backups are tried."""
        return [
            (owner(stack, volume.key, kind), schedule)
            for stack, volume, backup in self._sources.declared()
            for kind, schedule in (("backup", backup.schedule), ("verify", backup.verify))
            if schedule
        ]

    def owners(self) -> set[Owner]:
        """All that runs may belong to."""
        return {owner(stack, volume.key, kind) for stack, volume, _ in self._sources.declared() for kind in KINDS}

    def carry_out(self, run: JobRun) -> None:
        """Begin *run* unless it is going on."""
        key = f"{run.stack}/{run.service}/{run.id}"
        if key not in self._active:
            task = self._active[key] = asyncio.create_task(self._run(run), name=f"{run.service} of {run.stack}")
            task.add_done_callback(lambda _: self._active.pop(key, None))

    async def close(self) -> None:
        """Give up what is going on: the next server that leads repeats it."""
        for task in list(self._active.values()):
            task.cancel()
        await asyncio.gather(*self._active.values(), return_exceptions=True)

    # --- a run -------------------------------------------------------------------------------------------------

    async def _run(self, run: JobRun) -> None:
        key, _, kind = run.service.partition("@")
        run = msgspec.structs.replace(run, state="running", begun=self._jobs.now())
        keep = self.history(run)
        try:
            await self._jobs.book.put(run, keep=keep)
            volumes = [v for v in self._sources.volumes(run.stack, key) if run.part in ("", v.name)]
            if not volumes:
                raise RefusedError(f"stack {run.stack} has no volume {run.part or key} yet", 409)
            tasks = tuple([await self._one(volume, kind) for volume in volumes])
            bad = [f"{t.name}: {t.reason}" for t in tasks if t.reason]
        except PystackError as error:
            tasks, bad = (), [str(error)]
        except Exception as error:
            log.exception("%s of %s", run.service, run.stack)
            tasks, bad = (), [f"a fault of pystack's: {error}"]
        ended = msgspec.structs.replace(
            run, state="failed" if bad else "succeeded", reason="; ".join(bad), ended=self._jobs.now(), tasks=tasks
        )
        await self._jobs.book.put(ended, keep=keep)
        if bad:
            log.warning("run %s of %s/%s failed: %s", run.id, run.stack, run.service, ended.reason)
            self._jobs.announce(ended)

    def history(self, run: JobRun) -> int:
        """How many runs are remembered of whose *run* is."""
        found = dict(self.schedules()).get((run.stack, run.service))
        return found.history if found else Schedule(cron="").history

    async def _one(self, volume: Volume, kind: str) -> RunTask:
        """Back up *volume*, or try its newest backup. What keeps it from that is the reason of the answer."""
        node = ""
        try:
            backup, node = self._sources.of(volume), self._sources.node(volume)
            async with self._repositories.setdefault(backup.place, asyncio.Lock()):
                if kind == "verify":
                    done = await self._sources.ask(node, "verify", volume)
                    output = (
                        f"snapshot {done.snapshot} was brought back and is whole: {done.files} files, {show_bytes(done.bytes)}"
                    )
                else:
                    done = await self._backup(volume, backup, node)
                    output = (
                        f"snapshot {done.snapshot}: {done.files} files, {show_bytes(done.bytes)}, new {show_bytes(done.added)}"
                    )
        except PystackError as error:
            return RunTask(name=volume.name, node=node, exit_code=1, reason=str(error))
        return RunTask(name=volume.name, node=node, exit_code=0, output=(output,))

    async def _backup(self, volume: Volume, backup: Backup, node: str) -> BackupReport:
        paused = [c for t in self._sources.users(volume) if t.node == node and (c := self._sources.container(t))]
        async with self._around(volume, backup):
            done = await self._sources.ask(node, "backup", volume, paused=paused if backup.pause else ())
        await self._sources.ask(node, "forget", volume, keep=backup.keep)
        return done

    @asynccontextmanager
    async def _around(self, volume: Volume, backup: Backup) -> AsyncIterator[None]:
        """Run the command before, and at the end, also of a failure, the one after. Raises RefusedError with its output."""
        try:
            await self._command(volume, backup.before, "before")
            yield
        finally:
            await self._command(volume, backup.after, "after")

    async def _command(self, volume: Volume, command: BackupCommand | None, which: str) -> None:
        if command:
            code, lines = await self._sources.execute(volume, command)
            if code:
                output = "; ".join(lines[-3:])
                raise RefusedError(f"the command {which} it exited with {code}{': ' + output if output else ''}", 409)
