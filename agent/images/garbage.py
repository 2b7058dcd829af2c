"""Removes images that were not used for long, or, when the disk fills up, the longest unused first.

Off by default; config.yml switches it on, `image_gc: {age: 240h, disk: 85}`, since on a laptop unused images may be kept on
purpose. Images that containers are made of, or mount, are never removed. Source: Kubernetes, "Garbage collection of unused
images" (its thresholds)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time

from agent.errors import AgentError
from agent.images.store import Image, ImageStore
from agent.settings import ImageGc

EVERY_S, MARGIN = 300.0, 5
"""The interval of checks; and how many percent of the disk below the limit are freed."""
log = logging.getLogger(__name__)


def used_percent(store: ImageStore) -> float:
    """How full the file system of the store is, as df(1) counts."""
    found = os.statvfs(store.root)
    taken = found.f_blocks - found.f_bfree
    return 100 * taken / max(1, taken + found.f_bavail)


def unused(store: ImageStore) -> list[Image]:
    """Images of no container, the longest unused first."""
    busy = store.users()
    return sorted((i for i in store.everything() if i.digest not in busy), key=lambda i: store.last_used(i.digest))


def collect(store: ImageStore, rule: ImageGc, now: float) -> list[str]:
    """Remove images by *rule*. Returns their names, or else IDs. *now* is in seconds since the epoch."""
    gone: list[str] = []

    def remove(image: Image) -> None:
        with contextlib.suppress(AgentError):
            store.remove(image.id, in_use=store.users())
            gone.extend(image.names or (image.id,))

    if rule.age_s:
        for image in unused(store):
            if now - store.last_used(image.digest) > rule.age_s:
                remove(image)
    if rule.disk and used_percent(store) >= rule.disk:
        for image in unused(store):
            if used_percent(store) < rule.disk - MARGIN:
                break
            remove(image)
    return gone


async def watch(store: ImageStore, rule: ImageGc) -> None:
    """Look again and again, for ever."""
    while True:
        try:
            if gone := collect(store, rule, time.time()):
                log.warning("images that nobody used went: %s", ", ".join(gone))
        except OSError as error:
            log.warning("images cannot be collected: %s", error)
        await asyncio.sleep(EVERY_S)
