"""A build's client that is asked over its session: files, secrets, logins and SSH agents come when they are needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.build import contexts, dockerfile
from agent.build.contexts import Origin
from agent.build.ignore import Rules
from agent.build.inputs import Client, Inputs
from agent.build.kept import Kept
from agent.build.selection import Listing
from agent.buildkit.filesync import Receiver
from agent.buildkit.sessions import Session
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError
from agent.images.credentials import Credentials
from agent.trees.paths import MAX_LINKS

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
        self._kept: tuple[str, Path, Kept] | None = None
        self._times = 0

    # --- files -------------------------------------------------------------------------------------------------------

    async def definition(self, inputs: Inputs) -> None:
        """The Dockerfile, and the ignore file that goes with it, or else the context's."""
        name = inputs.options.dockerfile
        with inputs.report.work(f"[internal] load build definition from {quoted(name)}"):
            found = await self._few(inputs, self._dockerfile, [name, f"{name}{IGNORE}"])
            inputs.text = _at(found, name)
        if inputs.text is None:
            raise BadRequestError(f"failed to read dockerfile: open {quoted(name)}: no such file or directory")
        rules, ignore = _at(found, f"{name}{IGNORE}"), f"{name}{IGNORE}"
        if rules is None:
            with inputs.report.work(f"[internal] load {IGNORE}"):
                rules, ignore = _at(await self._few(inputs, self._context, [IGNORE]), IGNORE), IGNORE
        self._rules = contexts.rules_of(rules.decode("utf-8", "replace"), ignore) if rules else None

    async def context(self, inputs: Inputs, wanted: Sequence[str]) -> None:
        """The context, without what it ignores; what an earlier build of the same folder brought is not sent again."""
        self._times += 1
        root = inputs.folder / ("context" if self._times == 1 else f"context-{self._times}")
        key = f"{self.session.shared} {self._context}" if self.session.shared and not self._kept else ""
        chosen = tuple(wanted) if all(w.isascii() and w.isprintable() for w in wanted) else ()
        kept = inputs.builder.contexts.take(key, root) if key else Kept()
        root.mkdir(mode=0o755, exist_ok=True)
        patterns = self._rules.patterns if self._rules else ()
        with inputs.report.work("[internal] load build context") as progress:
            stream = await self.session.files(self._context, exclude_patterns=patterns, followpaths=chosen)
            done = 0

            def count(size: int) -> None:
                nonlocal done
                done += size
                progress("transferring context", done, 0)

            receiver = Receiver(stream, kept.marks, inputs.limits, count)
            await receiver.begin()
            if kept.marks and not receiver.wanted and not receiver.gone:
                await receiver.end()
                listing = Listing(kept.entries)
            else:
                gone = inputs.folder / "gone.json"
                gone.write_text(json.dumps(receiver.gone))
                listing = await contexts.updated(receiver.tar(), root, inputs.limits, inputs.engine.images.bounds, gone)
            progress("transferring context", done, done)
        inputs.is_whole = not chosen
        inputs.context = Origin(root=root, listing=listing, ignored=self._rules)
        if key:
            self._kept = key, root, Kept(receiver.marks, listing.entries)

    async def named(self, inputs: Inputs, name: str, folder: str) -> Origin:
        """One more folder of the client's, without what its own ignore file leaves out."""
        root = inputs.folder / f"named-{len(list(inputs.folder.glob('named-*')))}"
        with inputs.report.work(f"[context {quoted(name)}] load from client"):
            text = _at(await self._few(inputs, folder, [IGNORE]), IGNORE)
            rules = contexts.rules_of(text.decode("utf-8", "replace"), IGNORE) if text else None
            stream = await self.session.files(folder, exclude_patterns=rules.patterns if rules else ())
            listing = await self._unpacked(inputs, Receiver(stream, {}, inputs.limits, lambda _: None), root)
        return Origin(root=root, listing=listing, ignored=rules)

    async def _few(self, inputs: Inputs, folder: str, wanted: Sequence[str]) -> dict[str, bytes | str]:
        """A few files of one of the client's folders, by themselves. Raises CallError, BadRequestError."""
        if not all(w.isascii() and w.isprintable() for w in wanted):
            raise BadRequestError(f"{quoted(wanted[0])}: name the Dockerfile in ASCII, as BuildKit's protocol wants it")
        receiver = Receiver(await self.session.files(folder, followpaths=wanted), {}, inputs.limits, lambda _: None)
        await receiver.begin()
        return await receiver.contents(dockerfile.LARGEST)

    @staticmethod
    async def _unpacked(inputs: Inputs, receiver: Receiver, root: Path) -> Listing:
        await receiver.begin()
        return await contexts.unpacked(receiver.tar(), root, inputs.limits, inputs.engine.images.bounds)

    async def keep(self, inputs: Inputs) -> None:
        """What came is there for the next build of the folder."""
        if self._kept:
            key, root, kept = self._kept
            with contextlib.suppress(OSError):
                await asyncio.to_thread(inputs.builder.contexts.put, key, root, kept)

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


def _at(found: Mapping[str, bytes | str], path: str) -> bytes | None:
    """The file that *path* leads to, over links among *found*; None where it leads nowhere."""
    for _ in range(MAX_LINKS):
        content = found.get(posixpath.normpath(path))
        if not isinstance(content, str):
            return content
        path = posixpath.join(posixpath.dirname(path), content).lstrip("/")
    return None
