"""What the tasks of a service say, from the nodes that they are on, in the frames of the Engine API.

Each line has the words by which Docker's clients know whose it is. Source: Docker Engine API v1.48, ServiceLogs, TaskLogs,
"Stream format"; docker-service-logs(1), --details.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlencode

from agent.contract.frames import FrameDecoder, frame
from orchestrator.server.plane import ControlPlane
from orchestrator.swarm.objects import Object

PASSED_ON = ("stdout", "stderr", "follow", "since", "tail")
WAITING = 1000
"""Frames that wait for a slow reader."""


async def frames(chunks: AsyncIterator[bytes], *, raw: bool) -> AsyncIterator[tuple[int, bytes]]:
    """Streams and payloads of a multiplexed stream; of a terminal's, which is *raw*, each chunk."""
    decoder = FrameDecoder()
    async for chunk in chunks:
        if raw:
            yield 1, chunk
            continue
        for found in decoder.feed(chunk):
            yield found


def marked(line: bytes, labels: bytes, *, timestamps: bool) -> bytes:
    """A line that begins with its time, with the words *labels* before its text, and the time where it is asked for."""
    when, _, text = line.partition(b" ")
    return (when + b" " if timestamps else b"") + labels + b" " + text


async def lines(plane: ControlPlane, tasks: Sequence[Object], query: dict[str, str]) -> AsyncIterator[bytes]:
    """The logs of *tasks* as one stream, in the order in which they arrive."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING)
    timestamps = query.get("timestamps", "") in ("1", "true")
    asked = {k: v for k, v in query.items() if k in PASSED_ON} | {"timestamps": "1"}
    nodes = {n.node.name: n for n in plane.cluster.members.values()}
    work = []
    for task in tasks:
        container = task["Status"]["ContainerStatus"]["ContainerID"]
        member = nodes.get(task["NodeName"])
        if container and member:
            raw = bool(task["Spec"]["ContainerSpec"].get("TTY"))
            path = f"/containers/{container}/logs?{urlencode(asked)}"
            labels = ",".join(
                f"com.docker.swarm.{kind}.id={value}"
                for kind, value in (("node", task["NodeID"]), ("service", task["ServiceID"]), ("task", task["ID"]))
            ).encode()
            work.append(_one(member.client.chunks(path), labels, queue, raw=raw, timestamps=timestamps))
    gathered = asyncio.ensure_future(asyncio.gather(*work, return_exceptions=True))
    gathered.add_done_callback(lambda _: asyncio.ensure_future(queue.put(None)))
    try:
        while (line := await queue.get()) is not None:
            yield line
    finally:
        gathered.cancel()


async def _one(
    chunks: AsyncIterator[bytes], labels: bytes, queue: asyncio.Queue[bytes | None], *, raw: bool, timestamps: bool
) -> None:
    async for stream, payload in frames(chunks, raw=raw):
        for line in payload.splitlines(keepends=True):
            data = marked(line, labels, timestamps=timestamps)
            await queue.put(frame(stream, data))
