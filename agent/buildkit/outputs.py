"""What becomes of a build's result: an image, an archive of one, or its files, here or at the client.

Source: docs.docker.com, "Exporters overview"; BuildKit, session/filesync (FileSend).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent.build.job import Job
from agent.build.states import State
from agent.buildkit import filesync
from agent.buildkit.attributes import words
from agent.buildkit.grpc import Stream
from agent.buildkit.messages import Bytes
from agent.buildkit.sessions import SEND, Session
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError, of_worker
from agent.images import archive, pull
from agent.images.reference import parse
from agent.images.store import Image
from agent.trees import process

IMAGES, ARCHIVES, FILES = ("moby", "image"), ("docker", "oci"), ("local", "tar")
PIECE = 1 << 17
TRUE = ("1", "true")


class Output(NamedTuple):
    """*kind* is moby or image (an image of this node's), docker or oci (an archive of one), local or tar (its files), "" for
    nothing: the cache alone."""

    kind: str
    attributes: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """What the image is to be called. Raises BadRequestError."""
        return tuple(words(self.attributes.get("name", "")))

    @property
    def pushes(self) -> bool:
        """Whether the image goes to its registry, too."""
        return self.attributes.get("push", "").lower() in TRUE


def checked(kind: str, attributes: Mapping[str, str]) -> Output:
    """Raises BadRequestError for what is no output."""
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
        said = json.loads(text or "null") or []
    except (ValueError, RecursionError):
        raise BadRequestError(f"outputs={quoted(text)}: it is no JSON") from None
    found = []
    for one in said if isinstance(said, list) else [None]:
        said_of = one if isinstance(one, dict) else {"Attrs": None}
        attributes = said_of.get("Attrs", {})
        if not isinstance(attributes, dict) or not all(isinstance(v, str) for v in attributes.values()):
            raise BadRequestError("outputs: a list of objects with Type and Attrs is wanted here")
        found.append(checked(str(said_of.get("Type", "")), attributes))
    return found


class Outputs:
    """Carries outputs out for the client of *session*, None for one without. *told* is what it is told in the end, *image*
    what was made, where one was."""

    def __init__(self, outputs: list[Output], session: Session | None) -> None:
        self._outputs, self._session = outputs, session
        self.told: dict[str, str] = {}
        self.image: Image | None = None

    async def __call__(self, job: Job, state: State) -> Outputs:
        """Raises AgentError, OSError."""
        for output in self._outputs:
            if output.kind in FILES:
                await self._files(job, state, output)
            elif output.kind:
                await self._image(job, state, output)
        return self

    async def _image(self, job: Job, state: State, output: Output) -> None:
        image = self.image or await job.image(state)
        self.image = image
        self.told |= {"containerimage.digest": image.digest, "containerimage.config.digest": image.id}
        if output.kind in ARCHIVES:
            names = output.names or (image.id,)
            with job.report.work("sending tarball"):
                await self._stream(archive.save(job.engine.images, names, of=image.id))
            return
        for name in output.names:
            job.engine.images.tag(parse(name), image.digest)
        if output.names:
            self.told["image.name"] = ",".join(output.names)
        for name in output.names if output.pushes else ():
            await self._push(job, image, name)

    async def _push(self, job: Job, image: Image, name: str) -> None:
        reference = parse(name)
        credentials = await self._session.credentials(reference.host) if self._session else None
        with job.report.work(f"pushing {reference.familiar}") as progress:

            def hear(event: dict[str, Any]) -> None:
                detail = event.get("progressDetail") or {}
                if event.get("id"):
                    progress(str(event["id"]), int(detail.get("current", 0)), int(detail.get("total", 0)))

            await pull.push(job.engine.images, image, reference, job.engine.settings, hear, credentials)

    async def _files(self, job: Job, state: State, output: Output) -> None:
        root = str(job.inputs.view(state.layers))
        chunks = process.output("packing", ("export", root, "0"), lambda reply: of_worker(reply, AgentError))
        if output.kind == "tar":
            with job.report.work("sending tarball"):
                await self._stream(chunks)
            return
        path = job.folder / "export.tar"
        with job.report.work("copying files"):
            await _written(chunks, path)
            await filesync.send(await self._sending(), path)
            path.unlink()

    async def _sending(self) -> Stream:
        if self._session is None or not self._session.has(SEND):
            raise BadRequestError("this output goes to the client, which takes no files")
        return await self._session.connection.call(SEND)

    async def _stream(self, chunks: AsyncIterator[bytes]) -> None:
        stream = await self._sending()
        async for chunk in chunks:
            for at in range(0, len(chunk), PIECE):
                await stream.send(Bytes(data=chunk[at : at + PIECE]))
        await stream.end()
        async for _ in stream.messages(Bytes):
            pass


async def _written(chunks: AsyncIterator[bytes], path: Path) -> None:
    with path.open("wb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)
