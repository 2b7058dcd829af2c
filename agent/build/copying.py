"""COPY, ADD and WORKDIR: choosing the files, and copying them in a worker. Source: Dockerfile reference, COPY, ADD, WORKDIR."""

from __future__ import annotations

import asyncio
import contextlib
import json
import posixpath
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent import mounts
from agent.build import config, contexts, instructions, plan
from agent.build.build_context import BuildContext
from agent.build.cache import key_of
from agent.build.contexts import Origin
from agent.build.dockerfile import Heredoc
from agent.build.layers import Layer, dress_like, fresh
from agent.build.report import Channel
from agent.build.selection import Entry, Listing, MissingError, Pick, choose, digest
from agent.build.states import State
from agent.containers import users
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError, of_worker
from agent.trees import modes, process

_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})\Z")
_NUMERIC = re.compile(r"[0-9]{1,10}(?::[0-9]{1,10})?\Z")


class Part(msgspec.Struct, kw_only=True):
    """Jobs of `agent.trees.transfer` that read one *root*, None if they need none; *content* is a key of what they copy."""

    root: Path | None
    jobs: list[dict[str, Any]]
    content: str


class Copying:
    """The COPY, ADD and WORKDIR steps of *job*."""

    def __init__(self, job: BuildContext) -> None:
        self.job = job
        self._fetched: dict[tuple[str, str, bool], asyncio.Task[Origin]] = {}

    # --- COPY and ADD ------------------------------------------------------------------------------------------

    async def copy(self, number: int, state: State, step: instructions.Copy, say: Channel) -> State:
        """The state of stage *number* after the COPY or ADD *step*. Raises AgentError, WordError."""
        expand = self.job.expansion(state)
        sources = [expand.word(s) for s in step.sources]
        goal = config.absolute(state.document, expand.word(step.goal))
        chown, chmod = expand.word(step.chown), expand.word(step.chmod)
        excludes = [expand.word(e) for e in step.excludes]
        if chmod:
            _check_mode(chmod)
        origin = await self.job.origin(number, step.origin) if step.origin else None
        look = key_of("taken", origin.key, sources, goal, excludes, step.parents) if isinstance(origin, State) else ""
        content = [self.job.builder.cache.known(look)] if look else []
        parts: list[Part] | None = None
        if not any(content):
            parts = await self._parts(number, step, sources, goal, excludes)
            content = [part.content for part in parts]
            if look:
                self.job.builder.cache.remember(look, content[0])
        inline = self._inline(step, goal, expand.word)
        apart = step.link and (not chown or bool(_NUMERIC.match(chown)))
        key = key_of(
            "copy",
            "" if apart else state.key,
            goal,
            chown,
            chmod,
            step.add,
            step.unpack,
            [*content, *(p.content for p in inline)],
        )
        note = f"{step.at.word} {' '.join([*sources, *(f'<<{d.name}' for d in step.inline)])} {goal}"

        async def make() -> str:
            taken = parts if parts is not None else await self._parts(number, step, sources, goal, excludes)
            return await self._made(() if apart else state.layers, chown, chmod, [*taken, *inline], known_users=state.layers)

        return await self.job.layer(number, state, key, note, make, say, by=step.at.shown)

    async def _parts(
        self, number: int, step: instructions.Copy, sources: Sequence[str], goal: str, excludes: Sequence[str]
    ) -> list[Part]:
        """The parts to copy for *sources*: files, URLs and repositories."""
        local: list[str] = list(sources)
        parts: list[Part] = []
        if step.add:
            local = [s for s in sources if not contexts.is_url(s) and not contexts.repository(s)]
            many = len(sources) > 1
            parts = [await self._remote(step, s, goal, excludes, many=many) for s in sources if s not in local]
        if local:
            origin = await self.job.inputs.looked_into(await self.job.origin(number, step.origin), local)
            parts.append(self._part(step, origin, local, goal, excludes, unpack=step.add and step.unpack is not False))
        return parts

    def _part(
        self,
        step: instructions.Copy,
        origin: Origin,
        sources: Sequence[str],
        goal: str,
        excludes: Sequence[str],
        *,
        unpack: bool,
    ) -> Part:
        try:
            picks = choose(origin.listing, sources, goal, parents=step.parents, excludes=excludes, ignored=origin.ignored)
        except MissingError as error:
            raise BadRequestError(f"{step.at.word} failed: {error}") from None
        owner_of = None if origin.owners else [0, 0]
        jobs = [_job(pick, goal if unpack else "", owner_of) for pick in picks]
        return Part(root=origin.root, jobs=jobs, content=digest(origin.listing, picks, owners=origin.owners))

    def _inline(self, step: instructions.Copy, goal: str, expand: Any) -> list[Part]:
        if not step.inline:
            return []
        many = len(step.inline) + len(step.sources) > 1
        jobs = []
        for doc in step.inline:
            into = goal.endswith("/") or many
            jobs.append(
                {
                    "do": "write",
                    "goal": posixpath.join(goal, doc.name) if into else goal,
                    "into": not into,
                    "name": doc.name,
                    "text": _text(doc, expand),
                }
            )
        return [Part(root=None, jobs=jobs, content=key_of(jobs))]

    # --- ADD from elsewhere ------------------------------------------------------------------------------------

    async def _remote(self, step: instructions.Copy, source: str, goal: str, excludes: Sequence[str], *, many: bool) -> Part:
        repo = contexts.repository(source, keep_git=step.keep_git)
        wanted = step.checksum
        if wanted and not repo and not _CHECKSUM.match(wanted):
            raise BadRequestError(f"--checksum={quoted(wanted)}: it is written like sha256:… with 64 digits")
        origin = await self._brought(source, repo, wanted if repo else "")
        if repo:
            return self._part(step, origin, ["."], goal, excludes, unpack=False)
        (name,) = origin.listing.entries
        found = origin.listing.entries[name].content
        if wanted and wanted != f"sha256:{found}":
            raise BadRequestError(f"digest mismatch sha256:{found}: {wanted} is wanted of {quoted(source)}")
        return self._part(step, origin, [_escaped(name)], goal, (), unpack=bool(step.unpack))

    async def _brought(self, source: str, repo: contexts.Repository | None, commit: str) -> Origin:
        key = (source, commit, bool(repo and repo.keep_git))
        if key not in self._fetched:
            self._fetched[key] = asyncio.create_task(self._fetch(source, repo, commit))
        return await asyncio.shield(self._fetched[key])

    async def _fetch(self, source: str, repo: contexts.Repository | None, commit: str) -> Origin:
        job, folder = self.job, self.job.folder / f"fetched-{secrets.token_hex(4)}"
        if repo:
            root = await contexts.cloned(repo, folder, job.limits, commit=commit)
            return Origin(root=root, listing=await contexts.listed(root, [""], job.limits, job.engine.images.bounds))
        name, found = await contexts.fetched(source, folder, job.limits)
        size = (folder / name).stat().st_size
        return Origin(root=folder, listing=Listing({name: Entry("f", 0o600, 0, 0, size, found)}))

    # --- folders as a whole ------------------------------------------------------------------------------------

    async def whole(self, state: State, origin: Origin, stage: plan.Stage) -> State:
        """The state of a stage that begins with the files of the folder *origin*."""
        picks = choose(origin.listing, ["."], "/", ignored=origin.ignored)
        part = Part(
            root=origin.root, jobs=[_job(p, "", [0, 0]) for p in picks], content=digest(origin.listing, picks, owners=False)
        )

        async def make() -> str:
            return await self._made((), "", "", [part], known_users=())

        return await self.job.layer(
            stage.number, state, key_of("whole", part.content), f"FROM {stage.image}", make, Channel(lambda _: None)
        )

    async def workdir(self, number: int, state: State, step: instructions.Workdir, say: Channel) -> State:
        """The state of stage *number* after the WORKDIR *step*. Raises AgentError, WordError."""
        expand = self.job.expansion(state)
        path = config.absolute(state.document, expand.word(step.path)).rstrip("/") or "/"
        user = state.document["config"].get("User") or ""
        after = state.changed(document=config.put(state.document, "WorkingDir", path))
        if path == "/":
            return after.recorded(step.at.shown)
        part = Part(root=None, jobs=[{"do": "mkdir", "goal": path}], content=key_of(path))

        async def make() -> str:
            return await self._made(state.layers, user, "", [part], known_users=state.layers, lenient=True)

        return await self.job.layer(
            number, after, key_of("workdir", state.key, path, user), f"WORKDIR {path}", make, say, by=step.at.shown
        )

    # --- the work ----------------------------------------------------------------------------------------------

    async def _made(
        self,
        lower: Sequence[Layer],
        owner: str,
        mode: str,
        parts: Sequence[Part],
        *,
        known_users: Sequence[Layer],
        lenient: bool = False,
    ) -> str:
        """Copy *parts* onto the layers *lower*, and return the name of the new layer. *known_users* are the layers with
        /etc/passwd; *lenient*: an unknown *owner* is root."""
        job = self.job
        layers = job.builder.layers
        folder = job.folder / f"copy-{secrets.token_hex(8)}"
        own = fresh(folder / "own")
        target = own / "upper"
        below = layers.paths(lower)
        dress_like(target, below[-1] if below else None)
        try:
            if below:
                target = folder / "rootfs"
                target.mkdir()
                mounts.overlay(target, below, own)
            owner_of = self._owner(owner, target, known_users, same=below == layers.paths(known_users), lenient=lenient)
            for part in parts:
                await self._transfer(part, target, owner_of, mode)
        finally:  # what is left in the folder goes with the build's
            if below:
                mounts.unmount(folder / "rootfs")
        return await layers.take(own / "upper", job.epoch)

    def _owner(
        self, text: str, target: Path, known_users: Sequence[Layer], *, same: bool, lenient: bool
    ) -> tuple[int, int] | None:
        if not text:
            return None
        user, _, group = text.partition(":")
        root = target if same else self.job.inputs.view(known_users)
        if user.isascii() and user.isdecimal() and not group:
            with contextlib.suppress(AgentError):
                if lenient:
                    found = users.resolve(root, text)
                    return found.uid, found.gid
            return int(user), int(user)
        try:
            found = users.resolve(root, text)
        except AgentError:
            if lenient:
                return None
            raise
        return found.uid, found.gid

    async def _transfer(self, part: Part, target: Path, owner: tuple[int, int] | None, mode: str) -> None:
        """Run the jobs of each owner in one worker."""
        bounds, stall_s = self.job.engine.images.bounds, self.job.limits.stall_s
        owner_of: dict[str, list[dict[str, Any]]] = {}
        for job in part.jobs:
            kept = json.dumps(owner or job.pop("owner", None))
            owner_of.setdefault(kept, []).append({k: v for k, v in job.items() if k != "owner"})
        for kept, jobs in owner_of.items():
            order = {"owner": json.loads(kept), "chown": owner is not None, "mode": mode, "jobs": jobs}

            async def request(order: dict[str, Any] = order) -> AsyncIterator[bytes]:
                yield json.dumps(order).encode()

            words = (str(part.root or ""), str(target), bounds)
            reply = await process.fed("transfer", words, request(), stall_s=stall_s)
            if "error" in reply:
                raise of_worker(reply)

    async def filled(self, goal: Path, origin: Origin | State, source: str) -> None:
        """Copy the content of *source* in *origin* into the folder *goal*."""
        found = await self.job.inputs.looked_into(origin, [source or "/"])
        picks = choose(found.listing, [source or "."], "/", ignored=found.ignored)
        part = Part(root=found.root, jobs=[_job(p, "", None if found.owners else [0, 0]) for p in picks], content="")
        await self._transfer(part, goal, None, "")


def _job(pick: Pick, unpack: str, owner: list[int] | None) -> dict[str, Any]:
    return {
        "do": "copy",
        "source": pick.source,
        "goal": pick.goal,
        "into": pick.into,
        "without": list(pick.without),
        "above": [list(a) for a in pick.above],
        "unpack": unpack,
        "owner": owner,
    }


def _text(doc: Heredoc, expand: Any) -> str:
    """The content of a heredoc, whose quotes are plain characters."""
    if not doc.expand:
        return doc.plain
    return _expanded(doc.plain, expand)


def _expanded(text: str, expand: Any) -> str:
    """*text* with its variables expanded; quotes are plain characters in it."""
    guarded = re.sub(r"([\"'])", "\0\\1", text)
    pieces = re.split(r"(\0[\"'])", guarded)
    return "".join(piece[1] if piece.startswith("\0") else expand(piece) for piece in pieces)


def _check_mode(text: str) -> None:
    """Raises BadRequestError if *text* is not a valid mode."""
    try:
        modes.changed(text, 0o644, directory=False)
    except ValueError as error:
        raise BadRequestError(f"invalid chmod parameter: {error}") from None


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[\\])", r"\\\1", name)
