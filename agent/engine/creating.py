"""Creates a container: a record with its directories, not started."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from agent import quotas
from agent.contract.container import Container
from agent.contract.failpoints import failpoint
from agent.contract.times import timestamp
from agent.engine import selinux_labels
from agent.engine.context import EngineContext
from agent.engine.records import Record


def create(
    context: EngineContext,
    container: Container,
    *,
    name: str = "",
    record: Record | None = None,
    auto_remove: bool = False,
    asked: dict[str, Any] | None = None,
) -> Record:
    """Create a container, without starting it. *record* has the fields beyond *container*: task, stack, service; *asked* is the
    request of the Engine API that it is created for. Raises ConflictError if the name is taken, BadRequestError for a size that
    this disk cannot keep and for labels that SELinux does not know, ImageError, and OSError (a full disk)."""
    if container.storage_size:
        quotas.require(context.paths.containers, "--storage-opt size (storage_opt in a stack file)")
    ident = os.urandom(32).hex()
    name = name or f"container-{ident[:8]}"
    context.containers.require_free_name(name)
    image = context.images.find(container.image_id or container.image)
    made = msgspec.structs.replace(
        record or Record(id="", name="", container=container, created=""),
        id=ident,
        name=name,
        container=container,
        created=timestamp(),
        image=container.image,
        image_id=image.digest,
        auto_remove=auto_remove,
        asked=asked or {},
    )
    selinux_labels.assign(context, made)
    context.images.mark_used(image.digest)
    context.networks.endpoints.assign(made, free=False)
    failpoint("container.record")
    context.containers.add(made)
    return made
