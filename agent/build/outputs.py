"""What becomes of a build's result: an image, an archive of one, or its files; and of its steps: a cache for other builds.

Where a client is to get something, it goes to its `Receiver`. Source: docs.docker.com, "Exporters overview"; BuildKit,
session/filesync (FileSend).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from agent import mounts
from agent.build import attestations, remote_cache
from agent.build.cache_option import CacheOption
from agent.build.job import Built, Job
from agent.build.options_text import TRUE, words
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError, of_worker
from agent.images import archive, platforms, pull
from agent.images.credentials import Credentials
from agent.images.reference import parse
from agent.images.store import Image
from agent.trees import packing, process
from netplugins.linux.uapi import MS_BIND

IMAGES, ARCHIVES, FILES = ("moby", "image", "registry"), ("docker", "oci"), ("local", "tar")
MANIFEST, INDEX = ("annotation", "annotation-manifest"), ("annotation-index",)
"""What annotations are called that go to an image's manifest, and to the index of the images of several platforms."""


class Output(NamedTuple):
    """*kind* is moby, image or registry (an image of this node's), docker or oci (an archive of one), local or tar (its files),
    "" for nothing: the cache alone."""

    kind: str
    attributes: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """What the image is to be called. Raises BadRequestError."""
        return tuple(words(self.attributes.get("name", "")))

    @property
    def pushes(self) -> bool:
        """Whether the image goes to its registry, too."""
        return self.kind == "registry" or self.attributes.get("push", "").lower() in TRUE


class Receiver(Protocol):
    """The client's end of a build, as far as outputs go there."""

    async def archive(self, output: Output, chunks: AsyncIterator[bytes]) -> None:
        """Takes one file. Raises AgentError."""

    async def tree(self, output: Output, chunks: AsyncIterator[bytes], folder: Path) -> None:
        """Takes the files of a tar; *folder* is the build's own. Raises AgentError."""

    async def credentials(self, host: str) -> Credentials | None:
        """How to log in at the registry *host*."""


def checked(kind: str, attributes: Mapping[str, str]) -> Output:
    """Raises BadRequestError for what is not an output."""
    if kind not in ("", *IMAGES, *ARCHIVES, *FILES):
        known = ", ".join((*IMAGES, *ARCHIVES, *FILES))
        raise BadRequestError(f"output type {quoted(kind)}: exporter could not be found; known are {known}")
    output = Output(kind, attributes)
    for name in output.names:
        parse(name)
    return output


def asked(text: str) -> list[Output]:
    """Those of the query of `POST /build`, JSON. Raises BadRequestError."""
    try:
        parsed = json.loads(text or "null") or []
    except (ValueError, RecursionError):
        raise BadRequestError(f"outputs={quoted(text)}: it is not JSON") from None
    found = []
    for one in parsed if isinstance(parsed, list) else [None]:
        entry = one if isinstance(one, dict) else {"Attrs": None}
        attributes = entry.get("Attrs", {})
        if not isinstance(attributes, dict) or not all(isinstance(v, str) for v in attributes.values()):
            raise BadRequestError("outputs: a list of objects with Type and Attrs is wanted here")
        found.append(checked(str(entry.get("Type", "")), attributes))
    return found


def pushed(outputs: list[Output]) -> tuple[str, ...]:
    """The names under which the image goes to registries."""
    return tuple(name for output in outputs if output.pushes for name in output.names)


def _annotations(outputs: list[Output], kinds: Sequence[str] = MANIFEST) -> dict[str, str]:
    """Those of the image's manifest: `annotation.KEY`, `annotation-manifest.KEY`, `annotation[PLATFORM].KEY`; or of other
    *kinds*."""
    found = {}
    for output in outputs:
        for name, value in output.attributes.items():
            kind, _, key = name.partition(".")
            if kind.partition("[")[0] in kinds and key:
                found[key] = value
    return found


class Outputs:
    """Carries outputs out for the client behind *receiver*. *response* is its answer in the end, *image* what was made, where
    one was."""

    def __init__(self, outputs: list[Output], receiver: Receiver | None) -> None:
        self._outputs, self._receiver = outputs, receiver
        self.started = time.time()
        self.response: dict[str, str] = {}
        self.image: Image | None = None
        self._index = ""

    async def __call__(self, built: Sequence[Built]) -> Outputs:
        """Raises AgentError, OSError."""
        job, _ = built[0]
        job.options.annotations |= _annotations(self._outputs)
        for output in self._outputs:
            if output.kind in FILES:
                await self._files(built, output)
            elif output.kind:
                await self._image(built, output)
        for cache in job.options.cache_to:
            await self._cache(built, cache)
        return self

    async def _image(self, built: Sequence[Built], output: Output) -> None:
        job, _ = built[0]
        if self.image is None:
            images = [(one, await one.image(state, named=one is job)) for one, state in built]
            self.image = images[0][1]
            self._index = await attestations.attach(images, self.started, _annotations(self._outputs, INDEX))
        image = self.image
        digest = self._index if len(built) > 1 else image.digest
        self.response |= {"containerimage.digest": digest, "containerimage.config.digest": image.id}
        if output.kind in ARCHIVES:
            names = output.names or job.options.tags or (image.id,)
            with job.report.work("sending tarball"):
                await self._to.archive(output, archive.save(job.engine.images, names, of=image.id))
            return
        for name in output.names:
            job.engine.images.tag(parse(name), image.digest)
        if output.names:
            self.response["image.name"] = ",".join(output.names)
        for name in output.names if output.pushes else ():
            await self._push(job, image, name)

    async def _push(self, job: Job, image: Image, name: str) -> None:
        reference = parse(name)
        credentials = await self._receiver.credentials(reference.host) if self._receiver else None
        with job.report.work(f"pushing {reference.familiar}") as progress:

            def report(event: dict[str, Any]) -> None:
                detail = event.get("progressDetail") or {}
                if event.get("id"):
                    progress(str(event["id"]), int(detail.get("current", 0)), int(detail.get("total", 0)))

            await pull.push(job.engine.images, image, reference, job.engine.settings, report, credentials)

    async def _files(self, built: Sequence[Built], output: Output) -> None:
        job, state = built[0]
        root = job.inputs.view(state.layers)
        if len(built) > 1:
            root = job.folder / f"platforms-{secrets.token_hex(4)}"
            for one, state in built:
                part = root / platforms.text_of(one.platform).replace("/", "_")
                part.mkdir(parents=True)
                mounts.mount(str(job.inputs.view(state.layers)), part, "none", MS_BIND)
        chunks = process.output(
            "packing",
            (packing.NESTED if len(built) > 1 else "export", str(root), "0"),
            lambda reply: of_worker(reply, AgentError),
        )
        if output.kind == "tar":
            with job.report.work("sending tarball"):
                await self._to.archive(output, chunks)
            return
        with job.report.work("copying files"):
            await self._to.tree(output, chunks, job.folder)

    async def _cache(self, built: Sequence[Built], cache: CacheOption) -> None:
        """Keep the build's steps where *cache* says; an inline one is in the image already."""
        if cache.kind == "inline":
            return
        job, _ = built[0]
        try:
            with job.report.work("exporting cache"):
                document = await remote_cache.packed(built, whole=cache.whole)
                if cache.kind == "local":
                    chunks = remote_cache.archive(document, job.engine.images)
                    await self._to.archive(Output("cache", cache.attributes), chunks)
                    return
                name = cache.attributes["ref"]
                credentials = await self._receiver.credentials(parse(name).host) if self._receiver else None
                await remote_cache.push(job, document, name, credentials)
        except (AgentError, OSError) as error:
            if not cache.lenient:
                raise
            job.report.warn(f"cache_to: {quoted(str(error))}")

    @property
    def _to(self) -> Receiver:
        if self._receiver is None:
            raise BadRequestError("this output goes to the client, which takes no files")
        return self._receiver
