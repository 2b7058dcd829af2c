"""A build's client that is asked over its session: files, secrets, logins and SSH agents come when they are needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from agent.build import contexts
from agent.build.client import Client
from agent.build.contexts import Origin
from agent.build.ignore import Rules
from agent.build.inputs import Inputs
from agent.build.selection import Listing
from agent.buildkit.filesync import Receiver
from agent.buildkit.sessions import Session
from agent.errors import AgentError, BadRequestError
from agent.images.auth import Credentials
from agent.trees.extract import quoted

CONTEXT, DOCKERFILE = "context", "dockerfile"
"""What BuildKit's clients call their folders."""
IGNORE = ".dockerignore"


class SessionClient(Client):
    """*session*, whose folders are called *context* and *dockerfile*."""

    lends = True

    def __init__(self, session: Session, *, context: str = CONTEXT, dockerfile: str = DOCKERFILE) -> None:
        self.session = session
        self._context, self._dockerfile = context, dockerfile
        self._rules: Rules | None = None
        self._kept: tuple[str, Path, dict[str, str]] | None = None
        self._times = 0

    # --- files -------------------------------------------------------------------------------------------------------

    async def definition(self, inputs: Inputs) -> None:
        """The Dockerfile, and the ignore file that goes with it, or else the context's."""
        name = inputs.options.dockerfile
        inputs.beside = True
        with inputs.report.work(f"[internal] load build definition from {quoted(name)}"):
            await self._fresh(inputs, self._dockerfile, inputs.along, [name, f"{name}{IGNORE}"])
        rules = contexts.ignore_rules(inputs.along, name, common=False)
        if not (inputs.along / f"{name}{IGNORE}").is_file():
            with inputs.report.work(f"[internal] load {IGNORE}"):
                folder = inputs.folder / "ignore"
                await self._fresh(inputs, self._context, folder, [IGNORE])
                rules = contexts.ignore_rules(folder, name)
        self._rules = rules

    async def context(self, inputs: Inputs, wanted: Sequence[str]) -> None:
        """The context, without what it ignores; what an earlier build of the same folder brought is not sent again."""
        self._times += 1
        root = inputs.folder / ("context" if self._times == 1 else f"context-{self._times}")
        key = f"{self.session.shared} {self._context}" if self.session.shared and not self._kept else ""
        chosen = tuple(wanted) if all(w.isascii() and w.isprintable() for w in wanted) else ()
        before = inputs.builder.contexts.take(key, root) if key else {}
        if not before:
            root.mkdir(mode=0o755, exist_ok=True)
        patterns = self._rules.patterns if self._rules else ()
        with inputs.report.work("[internal] load build context") as progress:
            stream = await self.session.files(self._context, exclude_patterns=patterns, followpaths=chosen)
            done = 0

            def count(size: int) -> None:
                nonlocal done
                done += size
                progress("transferring context", done, 0)

            receiver = Receiver(stream, before, inputs.limits, count)
            await receiver.list()
            gone = inputs.folder / "gone.json"
            gone.write_text(json.dumps(receiver.gone))
            listing = await contexts.updated(receiver.tar(), root, inputs.limits, inputs.engine.images.bounds, gone)
            count(0)
        inputs.is_whole = not chosen
        inputs.context = Origin(root=root, listing=listing, ignored=self._rules)
        if key:
            self._kept = key, root, receiver.marks

    async def named(self, inputs: Inputs, name: str, folder: str) -> Origin:
        """One more folder of the client's, without what its own ignore file leaves out."""
        root = inputs.folder / f"named-{len(list(inputs.folder.glob('named-*')))}"
        with inputs.report.work(f"[context {quoted(name)}] load from client"):
            ignore = inputs.folder / f"ignore-{root.name}"
            await self._fresh(inputs, folder, ignore, [IGNORE])
            rules = contexts.ignore_rules(ignore, "Dockerfile")
            stream = await self.session.files(folder, exclude_patterns=rules.patterns if rules else ())
            listing = await self._unpacked(inputs, Receiver(stream, {}, inputs.limits, lambda _: None), root)
        return Origin(root=root, listing=listing, ignored=rules)

    async def _fresh(self, inputs: Inputs, folder: str, root: Path, wanted: Sequence[str]) -> None:
        """A few files of one of the client's folders, by themselves. Raises CallError, BadRequestError."""
        if not all(w.isascii() and w.isprintable() for w in wanted):
            raise BadRequestError(f"{quoted(wanted[0])}: name the Dockerfile in ASCII, as BuildKit's protocol wants it")
        stream = await self.session.files(folder, followpaths=wanted)
        await self._unpacked(inputs, Receiver(stream, {}, inputs.limits, lambda _: None), root)

    @staticmethod
    async def _unpacked(inputs: Inputs, receiver: Receiver, root: Path) -> Listing:
        await receiver.list()
        return await contexts.unpacked(receiver.tar(), root, inputs.limits, inputs.engine.images.bounds)

    async def keep(self, inputs: Inputs) -> None:
        """What came is there for the next build of the folder."""
        if self._kept:
            key, root, marks = self._kept
            with contextlib.suppress(OSError):
                await asyncio.to_thread(inputs.builder.contexts.put, key, root, marks)

    # --- the rest ----------------------------------------------------------------------------------------------------

    async def secret(self, ident: str) -> bytes | None:
        """What the client's secret *ident* contains."""
        return await self.session.secret(ident)

    async def credentials(self, host: str) -> Credentials | None:
        """How the client would log in at *host*."""
        return await self.session.credentials(host)

    async def has_agent(self, ident: str) -> bool:
        """Whether the client forwards to an SSH agent *ident*."""
        return await self.session.has_agent(ident)

    async def forward(self, ident: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let a program speak to the client's SSH agent."""
        try:
            await self.session.forward(ident, reader, writer)
        except AgentError:
            writer.close()


class UploadClient(SessionClient):
    """A client whose context is a tar that it sends by itself; the rest comes over its session."""

    lends = False
