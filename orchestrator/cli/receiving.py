"""What a build has for its client: archives, files, caches.

Source: docs.docker.com, "Exporters overview" (names of options).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.cli.client import Client

KINDS = ("local", "tar", "oci", "docker", "image", "registry")
TO_A_FILE = ("tar", "oci", "docker")


def pairs(text: str, what: str) -> tuple[str, dict[str, str]]:
    """The kind and the options of `type=KIND,NAME=VALUE…`; without `=` in it "" and none. Raises PystackError, which calls it
    *what*."""
    import csv

    from orchestrator.errors import PystackError

    if "=" not in text:
        return "", {}
    try:
        words = next(csv.reader([text]), [])
    except csv.Error as error:
        raise PystackError(f"{what} {text}: {error}") from None
    found = {name.strip().lower(): value.strip() for name, _, value in (word.partition("=") for word in words)}
    return found.pop("type", "registry"), found


def specs(given: Sequence[str], *, push: bool, names: Sequence[str], annotations: Mapping[str, str]) -> list[dict[str, Any]]:
    """The outputs *given* as a node is asked for them; an image called *names* where there is none. Raises PystackError."""
    from orchestrator.errors import PystackError

    found: list[tuple[str, dict[str, str]]] = []
    for text in given:
        kind, attributes = pairs(text, "--output") if "=" in text else ("tar" if text == "-" else "local", {"dest": text})
        if kind not in KINDS:
            raise PystackError(f"--output {text}: type {kind!r} is not known: {', '.join(KINDS)} are")
        if kind in (*TO_A_FILE, "local") and not attributes.get("dest"):
            raise PystackError(f"--output {text}: dest=PATH says where it goes")
        if attributes.get("dest") == "-" and (kind == "local" or sys.stdout.isatty()):
            raise PystackError(f"--output {text}: - is standard output, for a tar, and no terminal")
        if kind in ("image", "registry"):
            attributes.setdefault("name", ",".join(names))
        found.append((kind, attributes))
    if not found or (push and not any(kind in ("image", "registry") for kind, _ in found)):
        found.append(("image", {"name": ",".join(names)}))
    for kind, attributes in found:
        attributes |= {f"annotation.{name}": value for name, value in annotations.items()}
        if push and kind == "image":
            attributes["push"] = "true"
    return [{"Type": kind, "Attrs": attributes} for kind, attributes in found]


def fetch(client: Client, output: Mapping[str, str]) -> None:
    """Bring one output that a node has ready. Raises PystackError."""
    from orchestrator.errors import PystackError

    reply = client.request("GET", f"{client.base}/pystack/build/outputs/{output['id']}")
    goal = output["to"]
    try:
        if output["kind"] in TO_A_FILE:
            if goal == "-":
                shutil.copyfileobj(reply, sys.stdout.buffer, 1 << 20)
                return
            Path(goal).parent.mkdir(parents=True, exist_ok=True)
            with Path(goal).open("wb") as file:
                shutil.copyfileobj(reply, file, 1 << 20)
            return
        _unpack(reply, Path(goal))
    except OSError as error:
        raise PystackError(f"{goal}: {error.strerror or error}") from None


def _unpack(stream: Any, folder: Path) -> None:
    """The files of the tar *stream* below *folder*, by the extractor that `cp` has: no link is followed, and no owner and no
    right of anybody else's is taken over. Raises PystackError, OSError."""
    from agent.trees.bounds import Bounds
    from agent.trees.errors import TreeError
    from agent.trees.extract import extract
    from agent.trees.policy import Policy
    from agent.trees.streams import Decompressed, Source
    from agent.trees.tree import Tree
    from orchestrator.errors import PystackError

    folder.mkdir(parents=True, exist_ok=True)
    bounds = Bounds(entries=1 << 32, bytes=1 << 43)
    policy = Policy(what="build's result", owners=False, attributes=False, devices=False, modes=0o777, keep_directories=True)
    try:
        with Tree.at(folder, links=False) as tree:
            extract(Decompressed(Source(stream, None), bounds.bytes), tree, policy, bounds)
    except TreeError as error:
        raise PystackError(f"{folder}: {error}: stopped") from None
