"""Pulls of images; concurrent callers for the same image share one pull."""

from __future__ import annotations

import asyncio

import msgspec

from agent.engine.events import Events
from agent.errors import ImageNotFoundError
from agent.images import pull as puller
from agent.images.credentials import Credentials
from agent.images.reference import Reference, parse
from agent.images.store import Image, ImageStore
from agent.images.types import Platform, RunConfig
from agent.settings import Settings


class ImagePulls:
    """The pulls of one node into *images*."""

    def __init__(self, images: ImageStore, settings: Settings, events: Events) -> None:
        self._images = images
        self._settings = settings
        self._events = events
        self._pulls: dict[str, asyncio.Task[Image]] = {}
        self._listeners: dict[str, list[puller.Progress]] = {}

    async def pull(
        self,
        name: str,
        progress: puller.Progress = lambda _: None,
        credentials: Credentials | None = None,
        *,
        wanted: Platform | None = None,
    ) -> Image:
        """Pull *name*, for another platform if one is *wanted*, and call *progress* for each of its events. Raises
        ImageError."""
        reference = parse(name)
        key = f"{reference.name}@{reference.digest} {credentials.basic if credentials else ''} {wanted}"
        self._listeners.setdefault(key, []).append(progress)
        if key not in self._pulls:

            def tell(event: dict[str, object]) -> None:
                for listener in self._listeners.get(key, ()):
                    listener(event)

            work = puller.pull(self._images, reference, self._settings, tell, credentials, wanted=wanted)
            task = asyncio.create_task(work)
            self._pulls[key] = task
            task.add_done_callback(lambda _: (self._pulls.pop(key, None), self._listeners.pop(key, None)))
        image = await asyncio.shield(self._pulls[key])
        announce(self._events, "pull", image, reference)
        return image

    async def ensure(self, name: str, policy: str = "missing") -> Image:
        """The image on this node, pulled where *policy* (Compose's `pull_policy`) says so. Raises ImageError, or
        ImageNotFoundError if it is missing and must not be pulled."""
        if policy != "always":
            try:
                image = self._images.find(name)
                if self._images.is_complete(image):
                    return image
            except ImageNotFoundError:
                if policy in ("never", "build"):
                    raise ImageNotFoundError(f"image {name} is not on this node and pull_policy is {policy}") from None
        return await self.pull(name)


def announce(events: Events, action: str, image: Image, reference: Reference) -> None:
    """Emit the event of a pull or push of *image*: its actor is the name with its tag, its attribute the name without."""
    labels = (image.config.config or RunConfig()).labels or {}
    name = msgspec.structs.replace(reference, tag="", digest="").familiar.rstrip("@")
    events.emit("image", action, reference.familiar, {**labels, "name": name})
