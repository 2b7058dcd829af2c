"""Contexts that our own client sends by difference: it offers a list of files, and sends those that no earlier build of the
same folder left here.

build/jobs/<hex>/tree    the files; after the build they are kept for the next one (`KeptContexts`)
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from agent import files
from agent.build import contexts
from agent.build.contexts import Origin
from agent.build.kept import Kept, KeptContexts
from agent.build.selection import Entry, Listing
from agent.contract.contexts import ContextAnswer, ContextOffer
from agent.contract.printable import quoted
from agent.errors import BadRequestError, NotFoundError
from agent.settings import ImageLimits

WAIT_S = 60.0
"""Seconds for which a context waits for its files, and for its build."""


class SentContext:
    """One context: *marks* are what its client says of each path, *entries* what lies in the folder *root*."""

    def __init__(self, key: str, folder: Path, marks: dict[str, str], kept: Kept) -> None:
        self.key, self.folder, self.marks = key, folder, marks
        self.root = folder / "tree"
        self.entries: dict[str, Entry] = kept.entries
        self.gone = sorted(path for path in kept.marks if path not in marks)
        self.is_whole = kept.marks == marks
        self.is_spoilt = False
        """An update has failed half-way: what is there is nobody's context."""


class SentContexts:
    """All of a node's, from their offer to the end of their build."""

    def __init__(self, kept: KeptContexts, jobs: Path) -> None:
        self._kept, self._jobs = kept, jobs
        self._waiting: dict[str, tuple[SentContext, asyncio.TimerHandle]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def offer(self, offer: ContextOffer) -> ContextAnswer:
        """Begin a context: what of it is here, and what is to be sent. Raises BadRequestError."""
        marks = dict(offer.files)
        if len(marks) != len(offer.files):
            raise BadRequestError("the context lists a file twice")
        ident = secrets.token_hex(8)
        folder = self._jobs / ident
        folder.mkdir(mode=0o700)
        kept = self._kept.take(offer.key, folder / "tree")
        (folder / "tree").mkdir(mode=0o755, exist_ok=True)
        context = SentContext(offer.key, folder, marks, kept)
        self._wait(ident, context)
        missing, doubtful = [], []
        for place, (path, mark) in enumerate(offer.files):
            before = kept.marks.get(path)
            if before == mark:
                continue
            entry = kept.entries.get(path)
            if before is not None and entry and entry.kind == "f":
                doubtful.append((place, f"{entry.content} {entry.mode:o}"))
            else:
                missing.append(place)
        return ContextAnswer(id=ident, missing=tuple(missing), doubtful=tuple(doubtful), gone=bool(context.gone))

    async def fill(self, ident: str, body: AsyncIterator[bytes], limits: ImageLimits, bounds: str) -> None:
        """Take the files of the context *ident* that were missing, as a tar. Raises NotFoundError, BadRequestError."""
        context = self.take(ident)
        gone = context.folder / "gone.json"
        gone.write_text(json.dumps(context.gone))
        try:
            listing = await contexts.updated(body, context.root, limits, bounds, gone)
        except BaseException:
            context.is_spoilt = True
            await asyncio.shield(self.release(context))
            raise
        context.entries, context.is_whole = listing.entries, True
        self._wait(ident, context)

    def confirm(self, ident: str) -> None:
        """All files of the context *ident* are here as they are: marks of some have changed, nothing else. Raises
        NotFoundError."""
        context = self.take(ident)
        context.is_whole = not context.gone
        self._wait(ident, context)

    def take(self, ident: str) -> SentContext:
        """The context *ident*, for a caller that gives it back by `release`. Raises NotFoundError."""
        found = self._waiting.pop(ident, None)
        if found is None:
            raise NotFoundError(f"no context {quoted(ident)} waits here for a build: send it again")
        context, timer = found
        timer.cancel()
        return context

    async def release(self, context: SentContext) -> None:
        """Nobody uses it any more: it is kept for the next build of the same folder."""
        if context.is_whole and not context.is_spoilt:
            kept = Kept(context.marks, context.entries)
            await asyncio.to_thread(self._kept.put, context.key, context.root, kept)
        await asyncio.to_thread(files.remove_tree, context.folder)

    def _wait(self, ident: str, context: SentContext) -> None:
        timer = asyncio.get_running_loop().call_later(WAIT_S, self._expire, ident)
        self._waiting[ident] = context, timer

    def _expire(self, ident: str) -> None:
        task = asyncio.create_task(self.release(self.take(ident)))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def origin(context: SentContext) -> Origin:
    """Where COPY takes files from. Raises BadRequestError where some were not sent."""
    if not context.is_whole:
        raise BadRequestError("files of the build context were not sent")
    return Origin(root=context.root, listing=Listing(context.entries))
