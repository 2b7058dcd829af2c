"""Files in the memory of a proxy's container."""

from __future__ import annotations

import io
from collections.abc import Mapping

from orchestrator.transport.agent_client import AgentClient


async def put(client: AgentClient, container: str, folder: str, files: Mapping[str, bytes]) -> None:
    """Write *files* (by their paths below *folder*), beside those that are there. Raises PystackError."""
    await _unpack(client, container, folder, _tar(list(files.items())))


async def empty(client: AgentClient, container: str, folder: str, name: str) -> None:
    """Take away all that is in the directory *name* of *folder*. Raises PystackError.

    The Engine API has no call for it: a file of an archive replaces the directory of its name, and a directory that file."""
    await _unpack(client, container, folder, _tar([(name, b""), (name, None)]))


async def _unpack(client: AgentClient, container: str, folder: str, archive: bytes) -> None:
    await client.call("PUT", f"/containers/{container}/archive", params={"path": folder}, data=archive)


def _tar(entries: list[tuple[str, bytes | None]]) -> bytes:
    """An archive of files by their names; None stands for a directory."""
    import tarfile  # not at the top: who has no ingress is spared it

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            else:
                entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content or b""))
    return out.getvalue()
