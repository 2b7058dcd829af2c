"""Follows one repository: fetch, load, plan, apply; a commit that fails is rolled back to the last good one.

The intention is written to the store before anything is changed. The next server that leads reads it, fetches the newest commit
again, and continues: applying is idempotent.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.times import timestamp
from orchestrator.errors import PystackError
from orchestrator.gitops import decrypt, git, load, previews, status_command
from orchestrator.gitops.model import Commit, Phase, Repo, SyncOutcome, SyncState, encoded
from orchestrator.planning.state import Step
from orchestrator.server import lifecycle
from orchestrator.server.events import ignore
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import StackRecord, UpOptions
from orchestrator.stackfile.model import Stack
from orchestrator.store.interface import Put

log = logging.getLogger(__name__)
KEPT = 50
"""How many outcomes of a repository are kept."""
TREES = "gitops-trees"
"""Folder on a tmpfs for the checkouts of repositories with encrypted files."""


class Reconciler:
    """Makes the cluster what the newest commit of *repo* says, again and again.

    *folder* keeps what is fetched; *run* is a folder on a tmpfs, for secrets."""

    def __init__(self, plane: ControlPlane, repo: Repo, state: SyncState, folder: Path, run: Path) -> None:
        self.plane = plane
        self.repo = repo
        self.state = state
        self._mirror = git.Mirror(folder / repo.name / "git", run / repo.name)
        # decrypted files are only ever on a tmpfs
        self._trees = (run.with_name(TREES) if repo.age_key else folder) / repo.name
        self.after: Callable[[], Awaitable[None]] | None = None
        """Awaited after each round: what else the repository asks for."""
        self._trigger = asyncio.Event()
        self._done = asyncio.Condition()
        self._rounds = 0
        self._busy = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Follow the repository in the background."""
        self._task = asyncio.create_task(self._follow(), name=f"follow {self.repo.name}")

    async def stop(self) -> None:
        """Stop following it."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def trigger(self) -> None:
        """Reconcile now rather than at the end of the interval."""
        self._trigger.set()

    def approve(self, commit: Commit) -> None:
        """Let *commit* be applied at the next round."""
        self.state = msgspec.structs.replace(self.state, approved=commit.id)

    async def sync(self) -> SyncState:
        """Reconcile now, and return the state when that is done."""
        async with self._done:
            mine = self._rounds + (2 if self._busy else 1)  # a round that is under way may have fetched already
            self._trigger.set()
            await self._done.wait_for(lambda: self._rounds >= mine)
        return self.state

    async def _follow(self) -> None:
        while True:
            self._trigger.clear()
            self._busy = True
            try:
                await self.reconcile_once()
                if self.after and not self.repo.paused:
                    await self.after()
            except asyncio.CancelledError:
                raise
            except PystackError as error:
                await self._save_state(problem=str(error))
            except Exception as error:
                log.exception("repository %s", self.repo.name)
                with contextlib.suppress(PystackError):
                    await self._save_state(problem=f"{type(error).__name__}: {error}")
            self._busy = False
            async with self._done:
                self._rounds += 1
                self._done.notify_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self.repo.paused else self.repo.interval_s):
                    await self._trigger.wait()

    async def _save_state(self, *, problem: str | None = None, **fields: Any) -> None:
        """Change *fields* of the state, and write it to the store if anything but *checked* is new. Raises StoreError."""
        if problem is not None:
            fields |= {"problem": problem, "since": (self.state.since or timestamp(digits="seconds")) if problem else ""}
        before = self.state
        self.state = msgspec.structs.replace(before, checked=timestamp(digits="seconds"), **fields)
        if msgspec.structs.replace(before, checked="") != msgspec.structs.replace(self.state, checked=""):
            await self.plane.store.transact((), [Put(f"gitops-state/{self.repo.name}", encoded(self.state))])

    async def _record_outcome(self, outcome: SyncOutcome, **fields: Any) -> None:
        """Keep *outcome* in the state, and run the status command."""
        history = (*self.state.history, outcome)[-KEPT:]
        await self._save_state(newest=outcome, history=history, **fields)
        log.info("repository %s: %s is %s", self.repo.name, outcome.commit.short, outcome.phase)
        await status_command.run(self.repo, outcome, _addresses(self.plane, outcome))

    # --- one round ---------------------------------------------------------------------------------------------

    async def reconcile_once(self) -> None:
        """Fetch; apply a new commit, or look for drift from the last one. Raises PystackError."""
        if self.repo.paused:
            return
        commit = await self._fetch()
        await self._save_state(problem="")
        phase = _phase_of(self.state, commit)
        if phase in ("good", "failed", "rolled back"):
            return await self._watch_drift()
        if phase == "expired" or (phase == "waiting" and self.state.approved != commit.id):
            return
        if why := previews.too_old(self.repo, self.state, commit, datetime.datetime.now(datetime.UTC)):
            return await self._record_outcome(self._outcome(commit, "expired", why))
        await self._apply_commit(commit)

    async def branches(self) -> dict[str, str]:
        """The branches of the remote, each with its newest commit. Raises PystackError."""
        contents = self.plane.contents
        key, token = (contents.read("secret", n) if n else b"" for n in (self.repo.key, self.repo.token))
        return await self._mirror.branches(self.repo, key=key, token=token)

    async def take_down(self) -> None:
        """Remove all stacks of a preview, with their volumes: they are its own."""
        name = f"-{self.repo.suffix}"
        known = {*self.state.good.stacks} if self.state.good else set()
        known |= {*self.state.newest.stacks} if self.state.newest else set()
        known |= {n for n, r in self.plane.state.stacks.items() if r.source.startswith(f"{self.repo.name}@")}
        for stack in sorted(n for n in known if n.endswith(name)):
            await lifecycle.down(self.plane.dispatcher, stack, volumes=True, emit=ignore)

    async def rest(self) -> None:
        """Take a preview down whose time is over; a new commit brings it back."""
        newest = self.state.newest
        if newest is None or newest.phase == "expired":
            return
        await self.stop()
        await self.take_down()
        await self._record_outcome(self._outcome(newest.commit, "expired", "a new commit brings it back"), good=None, drift=())
        self.start()

    async def _fetch(self) -> Commit:
        """Fetch the newest commit. Raises PystackError."""
        contents = self.plane.contents
        key, token = (contents.read("secret", n) if n else b"" for n in (self.repo.key, self.repo.token))
        return await self._mirror.fetch(self.repo, key=key, token=token)

    async def _apply_commit(self, commit: Commit) -> None:
        """Apply *commit*, and record the outcome."""
        try:
            stacks, warnings = await self.read(commit)
            plans = [(s, await self.plane.planner.plan(s, self._options(commit))) for s in stacks]
        except PystackError as error:
            return await self._record_outcome(self._outcome(commit, "failed", str(error)))
        lines = tuple(line for s, plan in plans for line in format_steps(s.name, plan.changes))
        gone = self._gone(stacks)
        lines += tuple(f"{name}: remove the stack: no file defines it any more" for name in gone if self.repo.prune)
        message = "\n".join(warnings)
        if lines and self.repo.approve and self.state.approved != commit.id:
            note = "waits for `pystack gitops approve`"
            return await self._record_outcome(self._outcome(commit, "waiting", f"{note}\n{message}".strip(), lines))
        # what the last leader began may be on its way, without a change left to plan: its outcome is waited for
        interrupted = _phase_of(self.state, commit) == "applying"
        names = {s.name: 0 for s in stacks}  # kept before anything begins: a branch that goes takes its stacks along
        await self._save_state(newest=self._outcome(commit, "applying", "", lines, names))
        applied: dict[str, int] = {}
        failures: list[str] = []
        for stack, plan in plans:
            if interrupted or plan.changes or stack.name not in self.plane.state.stacks:
                failures = await self._up(stack, self._options(commit))
            if failures:
                break
            applied[stack.name] = self.plane.state.stacks[stack.name].revision
        if failures:
            return await self._revert(commit, lines, failures, [s.name for s, _ in plans])
        for name in gone if self.repo.prune else ():
            await lifecycle.down(self.plane.dispatcher, name, volumes=False, emit=ignore)
        if gone and not self.repo.prune:
            message += f"\nno file defines {', '.join(gone)} any more: --prune would remove them"
        good = self._outcome(commit, "good", message.strip(), lines, applied)
        await self._record_outcome(good, good=good, drift=())

    async def read(self, commit: Commit) -> tuple[tuple[Stack, ...], tuple[str, ...]]:
        """The stacks of *commit*, and warnings: verified, checked out, decrypted and loaded. Raises PystackError."""
        if self.repo.signers:
            await self._mirror.verify(commit, self.repo.signers)
        root = self._trees / f"tree-{commit.short}"
        try:
            top = root / load.TOP.lstrip("/")
            await self._mirror.checkout(commit, top, self.repo.largest)
            root.chmod(0o755)
            failed: dict[str, str] = {}
            if self.repo.age_key:
                key = self.plane.contents.read("secret", self.repo.age_key)
                failed = await asyncio.to_thread(decrypt.decrypt, top, key)
            stacks, warnings = await load.stacks_of(
                load.LoadRequest(str(root), self._title, self.repo.path, self.repo.targets, self.repo.suffix)
            )
            if self.repo.preview:
                stacks = tuple(previews.as_preview(s, self.repo.preview) for s in stacks)
            decrypt.require_decrypted(stacks, failed, "give the age key with `pystack gitops add --age-key FILE`")
            return stacks, warnings
        finally:
            await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)

    async def plan_newest(self) -> tuple[Commit, tuple[str, ...]]:
        """The newest commit, and the steps that it would take, one line each. Changes nothing. Raises PystackError."""
        commit = await self._fetch()
        stacks, _ = await self.read(commit)
        lines: list[str] = []
        for stack in stacks:
            lines += format_steps(stack.name, (await self.plane.planner.plan(stack, self._options(commit))).changes)
        return commit, tuple(lines)

    async def _up(self, stack: Stack, options: UpOptions) -> list[str]:
        """Apply *stack*. Returns one line for each failure."""
        try:
            failures = await self.plane.rollouts.up(stack, options, ignore, verb="sync")
        except PystackError as error:
            return [f"{stack.name}: {error}"]
        return [" ".join(filter(None, (f.task, f.reason, *f.log[-3:]))) for f in failures]

    async def _revert(self, commit: Commit, lines: tuple[str, ...], failures: Sequence[str], tried: Sequence[str]) -> None:
        """Roll the stacks that were *tried* back to their revisions of the last good commit, and record the outcome."""
        good = self.state.good
        message = ["did not come up:", *failures]
        back: Mapping[str, int] = good.stacks if good else {}
        for name in tried:
            if name in back:
                try:
                    options = UpOptions(
                        user="gitops",
                        message=f"{self.repo.name}: {commit.short} is rolled back",
                        source=f"{self.repo.name}@{good.commit.id}" if good else "",
                    )
                    again = await self.plane.rollouts.rollback(name, back[name], options, ignore, verb="sync")
                    message += [f"{name} at revision {back[name]}: {f.task} {f.reason}" for f in again]
                except PystackError as error:
                    message.append(f"{name} cannot go back to revision {back[name]}: {error}")
            elif good and name in self.plane.state.stacks:
                await lifecycle.down(self.plane.dispatcher, name, volumes=False, emit=ignore)
        if good:
            applied = {n: self.plane.state.stacks[n].revision for n in back if n in self.plane.state.stacks}
            good = msgspec.structs.replace(good, stacks=applied)
            message.append(f"the cluster is back at commit {good.commit.short}")
        else:
            message.append("there is no good commit before it: what was applied stays")
        phase: Phase = "rolled back" if good else "failed"
        await self._record_outcome(self._outcome(commit, phase, "\n".join(message), lines), good=good)

    @property
    def _title(self) -> str:
        """What a stack is called that a file at the top has, and that says no name."""
        return self.repo.preview.of if self.repo.preview else self.repo.name

    def _gone(self, stacks: Sequence[Stack]) -> list[str]:
        """Stacks that the last good commit had, and *stacks*, those of the new one, do not."""
        before = self.state.good.stacks if self.state.good else {}
        return sorted(before.keys() - {s.name for s in stacks} & self.plane.state.stacks.keys())

    async def _watch_drift(self) -> None:
        """Compare the cluster with the last good commit; repair the differences or record them, as `--drift` says."""
        good = self.state.good
        if good is None:
            return
        drift: list[str] = []
        applied = dict(good.stacks)
        for name, revision in good.stacks.items():
            record = await self._record(name, revision)
            if record is None:
                drift.append(f"{name}: revision {revision} is no longer kept")
                continue
            options = self._options(good.commit)
            plan = await self.plane.planner.plan(record.stack, options)
            steps = [s for s in plan.changes if s.cause != "ended"]  # a task that failed by itself is not drift
            moved = name not in self.plane.state.stacks or self.plane.state.stacks[name].stack != record.stack
            if not steps and not moved:
                continue
            lines = format_steps(name, steps) or [f"{name}: the stack file differs, the tasks do not"]
            if self.repo.drift == "repair":
                options = msgspec.structs.replace(options, message=f"{options.message} (drift repaired)")
                lines = await self._up(record.stack, options)
                if name in self.plane.state.stacks:
                    applied[name] = self.plane.state.stacks[name].revision
            drift += lines
        good = msgspec.structs.replace(good, stacks=applied)
        await self._save_state(drift=tuple(drift), good=good)

    async def _record(self, name: str, revision: int) -> StackRecord | None:
        return next((r for r in await self.plane.state.history(name) if r.revision == revision), None)

    # --- texts -------------------------------------------------------------------------------------------------

    def _options(self, commit: Commit) -> UpOptions:
        return UpOptions(
            user=commit.author,
            message=f"{self.repo.name} {commit.short}: {commit.subject}",
            remove_orphans=True,
            source=f"{self.repo.name}@{commit.id}",
        )

    def _outcome(
        self,
        commit: Commit,
        phase: Phase,
        message: str = "",
        plan: tuple[str, ...] = (),
        stacks: Mapping[str, int] | None = None,
    ) -> SyncOutcome:
        return SyncOutcome(
            commit=commit, phase=phase, at=timestamp(digits="seconds"), message=message, plan=plan, stacks=dict(stacks or {})
        )


def _phase_of(state: SyncState, commit: Commit) -> str:
    """What has become of *commit*, if it is the newest that was looked at; else ""."""
    return state.newest.phase if state.newest and state.newest.commit.id == commit.id else ""


def _addresses(plane: ControlPlane, outcome: SyncOutcome) -> list[str]:
    """Where the stacks of *outcome* answer, by their ingress."""
    stacks = [plane.state.stacks[n].stack for n in outcome.stacks if n in plane.state.stacks]
    rules = [rule for stack in stacks for service in stack.services for rule in service.ingress]
    return sorted({f"{'http' if r.tls == 'off' else 'https'}://{r.host}{r.path if r.path != '/' else ''}" for r in rules})


def format_steps(stack: str, steps: Sequence[Step]) -> list[str]:
    """One line for each step, in the words of `pystack plan`."""
    return [f"{stack}: {s.action} {s.kind} {s.name}{f' on {s.node}' if s.node else ''}: {s.reason}" for s in steps]
