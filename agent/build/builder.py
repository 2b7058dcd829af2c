"""The builds of a node: begun, swept after a crash, and what they leave taken away.

build/cache/          results of steps
build/mounts/<hex>/   RUN --mount=type=cache
build/jobs/<hex>/     a build that runs: what was sent, fetched and mounted for it; swept where its agent is gone
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from agent import files, mounts
from agent.build.build_options import BuildOptions
from agent.build.job import Job
from agent.build.report import Report, Tell
from agent.build.results import BuildResults
from agent.build.running import kill_group
from agent.engine.context import EngineContext
from agent.errors import AgentError
from agent.images.auth import Credentials
from agent.images.store import Image

UNUSED_S = 60 * 86_400.0
"""What no build has used for so long is forgotten, as dockerd's own rule has it; the next prune of images frees its layers."""


class Builder:
    """The builds of one node: those that run, and what earlier ones left."""

    def __init__(self, engine: EngineContext) -> None:
        self.engine = engine
        self.root = engine.paths.root / "build"
        self.jobs = self.root / "jobs"
        self.jobs.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for old in ("storage", "run", "provided"):  # of the builder that was here before
            shutil.rmtree(self.root / old, ignore_errors=True)
        self.results = BuildResults(engine, self.root)
        engine.images.held = self.results.held
        self.torn = False
        """Whether a build was cut off by the end of an agent before this."""
        self._active = 0

    async def recover(self) -> None:
        """End and take away what builds of an agent before this one left behind."""
        for job in list(self.jobs.iterdir()):
            self.torn = True
            slots = job / "slots"
            for slot in list(slots.iterdir()) if slots.is_dir() else ():
                kill_group(f"{self.engine.paths.cgroup_parent}/{slot.name}")
                with contextlib.suppress(AgentError):  # where there are no groups, the runtime knows its processes
                    await self.engine.runtime.signal(slot.name, signal.SIGKILL)
                for point in mounts.below(self.engine.paths.bundles / slot.name):
                    mounts.unmount(point)
                await self.engine.runtime.delete(slot.name)
            for point in mounts.below(job):
                mounts.unmount(point)
            await asyncio.to_thread(files.remove_tree, job)

    async def build(
        self,
        options: BuildOptions,
        context: AsyncIterator[bytes],
        tell: Tell,
        *,
        credentials: Mapping[str, Credentials] | None = None,
        progress: Callable[[dict[str, object]], None] = lambda _: None,
    ) -> Image:
        """Build what *options* says; *tell* hears of each step in Docker's words, *progress* of pulls. Raises AgentError."""
        folder = self.jobs / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        self._active += 1
        job = Job(self.results, options, folder, Report(tell), credentials or {}, progress)
        try:
            return await job.run(context)
        finally:
            self._active -= 1
            await asyncio.shield(self._after(job, folder))

    async def _after(self, job: Job, folder: Path) -> None:
        try:
            await job.close()
        finally:
            for point in mounts.below(folder):
                mounts.unmount(point)
            await asyncio.to_thread(files.remove_tree, folder)
            if not self._active:
                self.results.transient.clear()
                for entry in self.results.cache.doomed(older_s=UNUSED_S):
                    self.results.cache.drop(entry.key)

    async def prune(self, *, older_s: float = 0.0, keep_bytes: int = 0, everything: bool = True) -> tuple[list[str], int]:
        """Take away what builds keep, as Cache.doomed has it; the keys, and the bytes that this freed. Builds that run lose
        nothing that they use."""
        busy = set(self.results.transient)
        shared = {
            name for image in self.engine.images.everything() for name in (d.removeprefix("sha256:")[:20] for d in image.layers)
        }
        gone = self.results.cache.doomed(
            older_s=older_s, keep_bytes=keep_bytes, everything=everything, busy=busy if self._active else set(), shared=shared
        )
        before = await asyncio.to_thread(self._bytes)
        for entry in gone:
            self.results.cache.drop(entry.key)
        if not older_s and not keep_bytes:
            for folder in list(self.results.cache_mounts.folder.glob("*")):
                if not self.results.cache_mounts.used[folder / "data"] and not self._active:
                    await asyncio.to_thread(files.remove_tree, folder)
        self.engine.images.collect()
        return [e.key for e in gone], max(0, before - await asyncio.to_thread(self._bytes))

    def _bytes(self) -> int:
        """Bytes of layers, archives and cache mounts on disk."""
        return sum(files.used(p) for p in (self.engine.paths.layers, self.engine.paths.images, self.root))
