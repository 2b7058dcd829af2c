"""The inputs of a build: context, Dockerfile, named contexts, images, layers of its stages that it reads; and its client, which
provides some of them while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent import files, mounts
from agent.build import contexts, dockerfile
from agent.build import sent as sent_contexts
from agent.build.build_options import BuildOptions
from agent.build.builder import Builder
from agent.build.cache import key_of
from agent.build.contexts import Origin
from agent.build.errors import DockerfileError
from agent.build.instructions import Copy, Run
from agent.build.layers import Layer
from agent.build.plan import Plan
from agent.build.report import Progress, Report
from agent.build.selection import Entry, Listing
from agent.build.states import State
from agent.contract.container import BUILD_EXTRAS
from agent.contract.printable import quoted
from agent.errors import BadRequestError, ImageError, ImageNotFoundError
from agent.images import platforms
from agent.images.credentials import Credentials
from agent.images.reference import parse
from agent.images.store import Image
from agent.images.types import Platform

KEEP_GIT, SYNTAX = "BUILDKIT_CONTEXT_KEEP_GIT_DIR", "BUILDKIT_SYNTAX"
"""Build arguments for the builder: the context's .git stays; what reads the file, in place of its syntax directive."""


class Client:
    """A client that sends everything with its request. A subclass fetches files and secrets as the build needs them."""

    lends = False
    """Whether the context is fetched on demand."""

    async def definition(self, inputs: Inputs) -> None:
        """Fetch the Dockerfile and the ignore rules of the context."""

    async def context(self, inputs: Inputs, wanted: Sequence[str]) -> None:
        """Fetch the context; if *wanted* is not empty, only these paths of it."""

    async def named(self, inputs: Inputs, name: str, folder: str) -> Origin:
        """Fetch the named context *name*, a folder of the client. Raises BadRequestError if there is none."""
        raise BadRequestError(f"context {quoted(name)}: the client lends no folder {quoted(folder)}")

    async def keep(self, inputs: Inputs) -> None:
        """The build has ended: keep what can be useful for the next one."""

    async def secret(self, ident: str) -> bytes | None:
        """The content of the secret *ident*, None if there is none."""
        del ident
        return None

    async def credentials(self, host: str) -> Credentials | None:
        """How to log in at the registry *host*."""
        del host
        return None

    async def has_agent(self, ident: str) -> bool:
        """Whether there is an SSH agent *ident*."""
        del ident
        return False

    async def forward(self, ident: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes between a program in the build and the SSH agent *ident*."""


class Inputs:
    """The inputs of one build, below its *folder*. *secrets* are the ones fetched so far, by their IDs, *agents* the SSH
    agents; *beside*: the Dockerfile came along with the context and is not a file of it."""

    def __init__(
        self,
        builder: Builder,
        options: BuildOptions,
        folder: Path,
        client: Client,
        report: Report,
    ) -> None:
        self.builder, self.options, self.folder = builder, options, folder
        self.engine = builder.engine
        self.limits = self.engine.settings.limits
        self.secrets: dict[str, bytes] = {}
        self.agents: set[str] = set(options.agents)
        self.text: bytes | None = None
        """The Dockerfile, if it is not a file of a folder."""
        self.is_whole = not client.lends
        self._all = asyncio.Lock()
        self.context = Origin(root=folder / "context", listing=Listing({}))
        self.client, self.report = client, report
        self._named: dict[tuple[str, Platform], asyncio.Task[Origin | Image]] = {}
        self._images: dict[tuple[str, Platform], asyncio.Task[Image]] = {}
        self._views: dict[str, Path] = {}
        self.along = folder / "along"
        self.beside = options.dockerfile == f"{BUILD_EXTRAS}/Dockerfile"
        self._extras: dict[str, Entry] = {}
        self._borrowed: list[sent_contexts.SentContext] = []

    async def close(self) -> None:
        """Stop fetching."""
        for task in (*self._named.values(), *self._images.values()):
            task.cancel()
        await asyncio.gather(*self._named.values(), *self._images.values(), return_exceptions=True)

    async def bring(self, body: AsyncIterator[bytes]) -> None:
        """Fetch the context, from the client or from the option *remote*, and separate what came along with it. From a client
        that lends, fetch the Dockerfile only."""
        if self.client.lends:
            await self.client.definition(self)
            return
        bounds = self.engine.images.bounds
        root = self.folder / "context"
        listing = came = await self._received(body)
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "sent" / BUILD_EXTRAS).rename(self.along)  # a COPY must not see what only RUN may
        if (
            repo := contexts.repository(self.options.remote, keep_git=self.options.is_set(KEEP_GIT))
            if self.options.remote
            else None
        ):
            root = await contexts.cloned(repo, root, self.limits)
            listing = await contexts.listed(root, [""], self.limits, bounds)
        elif self.options.remote:
            listing = await self._fetched(root)
        elif self.options.sent:
            found = self.sent(self.options.sent)
            root, listing = found.root, found.listing
        else:
            (self.folder / "sent").rename(root)
        inside = {p: e for p, e in listing.entries.items() if p != BUILD_EXTRAS and not p.startswith(f"{BUILD_EXTRAS}/")}
        self._put_aside({p: e for p, e in came.entries.items() if p == BUILD_EXTRAS or p.startswith(f"{BUILD_EXTRAS}/")})
        rules = contexts.ignore_rules(root, self.options.dockerfile)
        if self.beside:
            rules = contexts.ignore_rules(self.along, "Dockerfile", common=False) or rules
        self.context = Origin(root=root, listing=Listing(inside), ignored=rules)

    async def _received(self, body: AsyncIterator[bytes]) -> Listing:
        """What came with the request, in the folder "sent"; beside a context that came before it may be nothing."""
        chunks = aiter(body)
        first = await anext(chunks, b"") if self.options.sent else b""
        if self.options.sent and not first.strip(b"\0"):
            (self.folder / "sent").mkdir(mode=0o755)
            return Listing({})

        async def whole() -> AsyncIterator[bytes]:
            yield first
            async for data in chunks:
                yield data

        return await contexts.unpacked(whole(), self.folder / "sent", self.limits, self.engine.images.bounds)

    def sent(self, ident: str) -> Origin:
        """The context *ident*, which came by difference. Raises NotFoundError, BadRequestError."""
        context = self.builder.sent.take(ident)
        self._borrowed.append(context)
        return sent_contexts.origin(context)

    async def keep(self) -> None:
        """The build has ended: what can be useful for the next one is kept."""
        for context in self._borrowed:
            await self.builder.sent.release(context)
        await self.client.keep(self)

    async def lent(self, plans: Sequence[Plan]) -> None:
        """Fetch what *plans* need of the client: the context from one that lends, and secrets with a known ID."""
        wanted = [found for plan in plans if (found := needed(plan)) is not None]
        if wanted and self.client.lends:
            await self.client.context(self, sorted({path for found in wanted for path in found}) if all(wanted) else [])
        for plan in plans:
            await self.lent_to([step for number in plan.needed for step in plan.stages[number].steps if isinstance(step, Run)])

    async def lent_to(self, runs: Sequence[Run]) -> None:
        """Fetch the secrets with a known ID that *runs* mount, and the names of the SSH agents, where the client has them."""
        for mount in (m for step in runs for m in step.mounts if "$" not in m.name):
            if mount.kind == "secret":
                await self.secret(mount.name)
            elif mount.kind == "ssh" and await self.client.has_agent(mount.name):
                self.agents.add(mount.name)

    async def whole(self) -> None:
        """Fetch the whole context from a client that lends: ONBUILD of an image uses paths beyond the Dockerfile's."""
        async with self._all:
            if self.client.lends and not self.is_whole:
                await self.client.context(self, ())

    async def secret(self, ident: str) -> bytes | None:
        """The content of the secret *ident*, None if there is none."""
        if ident not in self.secrets and (found := await self.client.secret(ident)) is not None:
            self.secrets[ident] = found
        return self.secrets.get(ident)

    def _put_aside(self, entries: Mapping[str, Entry]) -> None:
        """Take what came along with the context: secrets, named contexts. Raises BadRequestError."""
        for path, entry in entries.items():
            short = path.removeprefix(BUILD_EXTRAS).lstrip("/")
            if entry.kind == "l" and (short.count("/") == 0 or short.startswith("secrets/")):
                raise BadRequestError(f"the build context's {quoted(path)} is a symbolic link: refused")
            if short.startswith("secrets/") and entry.kind == "f":
                self.secrets[short[8:]] = (self.along / short).read_bytes()
            self._extras[short] = entry

    async def _fetched(self, root: Path) -> Listing:
        """Fetch the context from a URL: a tar, or a single Dockerfile. Raises BadRequestError."""
        if not contexts.is_url(self.options.remote):
            raise BadRequestError(f"remote={quoted(self.options.remote)}: a URL or a repository is wanted here")
        name, _ = await contexts.fetched(self.options.remote, self.folder / "remote", self.limits)
        path = self.folder / "remote" / name
        if await contexts.is_archive(path):
            return await contexts.unpacked(contexts.chunks(path), root, self.limits, self.engine.images.bounds)
        root.mkdir(mode=0o755)
        self.options = msgspec.structs.replace(self.options, dockerfile="Dockerfile")
        path.rename(root / "Dockerfile")
        return await contexts.listed(root, [""], self.limits, self.engine.images.bounds)

    def file(self) -> dockerfile.Dockerfile:
        """The parsed Dockerfile. Raises BadRequestError, DockerfileError."""
        if self.text is not None:
            return self._read(self.text, self.options.dockerfile)
        root, name = (self.along, "Dockerfile") if self.beside else (self.context.root, self.options.dockerfile)
        try:
            path = files.resolve_in_root(root, name)
            if not path.is_file():
                raise OSError
            data = path.read_bytes() if path.stat().st_size <= dockerfile.LARGEST else b"\0" * (dockerfile.LARGEST + 1)
        except OSError:
            raise BadRequestError(f"Cannot locate specified Dockerfile: the build context has no {quoted(name)}") from None
        return self._read(data, name)

    def _read(self, data: bytes, name: str) -> dockerfile.Dockerfile:
        found = dockerfile.read(data, name)
        frontend = next(iter((self.options.args.get(SYNTAX) or found.syntax).split()), "")
        if frontend and parse(frontend).repository not in ("docker/dockerfile", "docker/dockerfile-upstream"):
            raise DockerfileError(
                f"syntax={quoted(frontend)}: this builder reads Dockerfiles itself, and no other frontend's files",
                1,
                name=name,
                text=found.text,
            )
        return found

    async def looked_into(self, origin: Origin | State, sources: Sequence[str]) -> Origin:
        """*origin* as a folder, with the entries that *sources* can match."""
        if isinstance(origin, Origin):
            return origin
        root = self.view(origin.layers)
        listing = await contexts.listed(root, sources, self.limits, self.engine.images.bounds)
        return Origin(root=root, listing=listing, owners=True)

    def view(self, layers: Sequence[Layer]) -> Path:
        """*layers* as one folder that nobody can write to."""
        key = key_of(*(layer.entry.identity if layer.entry else layer.diff_id for layer in layers))
        if key not in self._views:
            point = self.folder / "views" / secrets.token_hex(8)
            point.mkdir(parents=True)
            if layers:
                mounts.layers(point, self.builder.layers.paths(layers))
            self._views[key] = point
        return self._views[key]

    async def named(self, name: str, platform: Platform) -> Origin | Image:
        """The further context *name*; one that is an image, for *platform*."""
        key = name, platform
        if key not in self._named:
            self._named[key] = asyncio.create_task(self._name(name, self.options.contexts[name], platform))
        return await asyncio.shield(self._named[key])

    async def _name(self, name: str, value: str, platform: Platform) -> Origin | Image:
        if value.startswith("docker-image://"):
            return await self.image(value.removeprefix("docker-image://"), platform)
        if value.startswith("sent:"):
            return self.sent(value.removeprefix("sent:"))
        if value.startswith("local:") and self.client.lends:
            return await self.client.named(self, name, value.removeprefix("local:"))
        if value.startswith(f"{BUILD_EXTRAS}/"):
            prefix = value.removeprefix(f"{BUILD_EXTRAS}/").rstrip("/")
            entries = {p[len(prefix) + 1 :]: e for p, e in self._extras.items() if p.startswith(f"{prefix}/")}
            return Origin(root=self.along / prefix, listing=Listing(entries))
        folder = self.folder / f"named-{secrets.token_hex(4)}"
        if repo := contexts.repository(value):
            root = await contexts.cloned(repo, folder, self.limits)
            return Origin(root=root, listing=await contexts.listed(root, [""], self.limits, self.engine.images.bounds))
        if contexts.is_url(value):
            body = contexts.streamed(value, self.limits)
            return Origin(root=folder, listing=await contexts.unpacked(body, folder, self.limits, self.engine.images.bounds))
        raise BadRequestError(
            f"context {quoted(name)}: {quoted(value)} is none: docker-image://NAME, a repository, the URL of a tar, "
            "or a folder that came along"
        )

    def images(self) -> dict[str, Image]:
        """Those that were asked for so far and found, by their names."""
        done = {name: task for (name, _), task in self._images.items() if task.done() and not task.cancelled()}
        return {name: task.result() for name, task in done.items() if not task.exception()}

    async def image(self, name: str, platform: Platform) -> Image:
        """The image *name* for *platform*, from this node or from its registry; asked for once in a build."""
        key = name, platform
        if key not in self._images:
            self._images[key] = asyncio.create_task(self._image(name, platform))
        return await asyncio.shield(self._images[key])

    async def _image(self, name: str, platform: Platform) -> Image:
        cache = self.builder.cache
        is_own = platform.architecture == platforms.architecture()
        question = key_of("platform", name, platforms.text_of(platform))
        if not self.options.pull:
            with contextlib.suppress(ImageError):
                if image := self._here(name, platform, cache.known(question)):
                    return image
        host = parse(name).host
        with self.report.work(f"load {name}") as progress:

            def report(event: dict[str, object]) -> None:
                self.report.pulled(event)
                _show_pull(event, progress)

            credentials = await self.client.credentials(host)
            image = await self.engine.pulls.pull(name, report, credentials, wanted=None if is_own else platform)
        if not is_own:
            cache.remember(question, image.digest)
        return image

    def _here(self, name: str, platform: Platform, pulled: str) -> Image | None:
        """The image *name* for *platform* if this node has it: by its name, beside it in an index, or *pulled* before. Raises
        ImageError."""
        store = self.engine.images
        found: Image | None = None
        with contextlib.suppress(ImageNotFoundError):
            found = store.find(name)
        if found and platform == platforms.own() and not self.options.platforms and store.is_complete(found):
            return found  # who asks for no platform means what has the name
        for digest in (*((found.digest, *store.attached.images(found.digest)) if found else ()), pulled):
            with contextlib.suppress(ImageError):
                image = store.image(digest) if digest else None
                if image and platforms.suits(image.config, platform) and store.is_complete(image):
                    return image
        return None


def _show_pull(event: Mapping[str, Any], progress: Progress) -> None:
    """Pass on an event of a pull, about one layer."""
    detail = event.get("progressDetail") or {}
    if event.get("id"):
        progress(f"{event['id']} {event.get('status', '')}", int(detail.get("current", 0)), int(detail.get("total", 0)))


def needed(plan: Plan) -> list[str] | None:
    """The paths of the context that *plan* takes, patterns among them; [] for all, None where it takes none."""
    found: list[str] = []
    used = False
    for number in plan.needed:
        for step in plan.stages[number].steps:
            match step:
                case Copy(origin=""):
                    paths = [s for s in step.sources if not (step.add and (contexts.is_url(s) or contexts.repository(s)))]
                    whole = step.parents or any("$" in p or "\\" in p for p in paths)
                case Run():
                    paths = [m.source for m in step.mounts if m.kind == "bind" and not m.origin]
                    whole = any("$" in p for p in paths)
                case _:
                    continue
            clean = [posixpath.normpath(p).strip("/") for p in paths]
            if whole or any(c in ("", ".") or c.startswith("..") for c in clean):
                return []
            used = used or bool(clean)
            found += clean
    return sorted(set(found)) if used else None
