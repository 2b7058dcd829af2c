"""`cp`: between this machine and a container, by way of the Engine API's archive. Rules are those of `docker cp`."""

from __future__ import annotations

import os
import posixpath
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.extract import extract
from agent.trees.policy import Policy
from agent.trees.streams import Decompressed, Source
from agent.trees.tree import Tree
from orchestrator.cli.client import chunks
from orchestrator.errors import PystackError, RefusedError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client

BOUNDS = Bounds(entries=1 << 32, bytes=1 << 43)
"""A copy may be as large as a disk."""


def _split(text: str) -> tuple[str, str]:
    """(container or service, path); ("", path) for this machine. An absolute or dotted path is never a container's."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and not text.startswith(("/", ".")) else ("", text)


def copy(find: Callable[[str], Sequence[tuple[Client, str]]], source: str, target: str) -> None:
    """Exactly one side is NAME:PATH; *find* gives a name's containers, each with who asks for it. Into all of them, or out of
    the first. Raises PystackError."""
    (giver, path), (taker, goal) = _split(source), _split(target)
    if bool(giver) == bool(taker):
        raise PystackError("one of the two must be NAME:PATH, the other a path here or -")
    if giver:
        _out(*find(giver)[0], path, goal)
        return
    found = find(taker)
    if path == "-" and len(found) > 1:
        raise PystackError("standard input can go into one container alone: say which with --index")
    for client, container in found:
        _in(client, container, path, goal)


def _url(client: Client, container: str) -> str:
    return f"{client.base}/containers/{container}/archive"


def _out(client: Client, container: str, path: str, goal: str) -> None:
    reply: Any = client.request("GET", _url(client, container), query={"path": path.rstrip("/") or "/"})
    if goal == "-":
        while data := reply.read(1 << 16):
            sys.stdout.buffer.write(data)
        return
    into = Path(goal).is_dir()
    if not into and goal.endswith("/"):
        raise PystackError(f"{goal} is not a folder")
    folder = Path(goal) if into else Path(goal).parent
    if not folder.is_dir():
        raise PystackError(f"{folder} does not exist: make it first")

    def renamed(name: str) -> str | None:
        _, slash, rest = name.partition("/")
        if into:
            return (rest or None) if path.endswith("/.") else name
        return f"{Path(goal).name}{slash}{rest}"

    # what comes from a container is not trusted: it follows no link, and has nobody else's owners or rights
    policy = Policy(
        what="container's archive", owners=False, attributes=False, devices=False, modes=0o777, keep_directories=True
    )
    try:
        with Tree.at(folder, links=False) as tree:
            extract(Decompressed(Source(reply, None), BOUNDS.bytes), tree, policy, BOUNDS, rename=renamed)
    except TreeError as error:
        raise PystackError(f"{error}: stopped") from None
    except OSError as error:
        raise PystackError(f"{error.filename or folder}: {error.strerror}") from None


def _in(client: Client, container: str, path: str, goal: str) -> None:
    if path == "-":
        client.request("PUT", _url(client, container), query={"path": goal}, body=chunks(sys.stdin.buffer))
        return
    source = Path(path)
    if not source.exists():
        raise PystackError(f"{path} does not exist")
    folder, name = os.path.split(goal.rstrip("/"))
    if _is_folder(client, container, goal):
        folder, name = goal, "." if path.endswith("/.") else source.resolve().name
    elif goal.endswith("/") and not source.is_dir():
        raise PystackError(f"{goal} is not a folder in the container")
    import tempfile

    with tempfile.TemporaryFile() as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(source, arcname=name)
        packed.seek(0)
        client.request("PUT", _url(client, container), query={"path": folder or "/"}, body=chunks(packed))


def _is_folder(client: Client, container: str, path: str) -> bool:
    import base64
    import json

    try:
        head = client.request("HEAD", _url(client, container), query={"path": path}).getheader("X-Docker-Container-Path-Stat")
    except RefusedError as error:
        if error.status == 404:
            return False
        raise
    found = json.loads(base64.b64decode(head or ""))
    if found["linkTarget"]:
        return _is_folder(client, container, posixpath.join(posixpath.dirname(path), found["linkTarget"]))
    return bool(found["mode"] & 1 << 31)
