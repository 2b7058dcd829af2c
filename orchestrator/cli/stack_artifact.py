"""Stack files as an OCI artifact in a registry, in the form of Docker Compose: what one publishes, the other takes.

The artifact has a layer a file. Those of the stack are laid over each other in their order; files that a service extends and
files of variables lie beside them under their own names. Source: docs.docker.com/compose/how-tos/oci-artifact; OCI Image
Specification 1.1, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from agent import paths, settings
from agent.errors import AgentError
from agent.images import reference, types
from agent.images.reference import Reference
from agent.images.registry import Registry
from orchestrator.errors import PystackError

FILE = "application/vnd.docker.compose.file+yaml"
VARIABLES = "application/vnd.docker.compose.envfile"
PROJECT = "application/vnd.docker.compose.project"
EMPTY_CONFIG = "application/vnd.docker.compose.config.empty.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
NAME, EXTENDED, VARIABLES_NAME = (f"com.docker.compose.{key}" for key in ("file", "extends", "envfile"))
LARGEST = 16 << 20
"""Bytes of one file."""
MAIN = "compose.yaml"
T = TypeVar("T")


class Part(msgspec.Struct, frozen=True):
    """One file of an artifact. *kind*: of the stack, extended by a service of it, or variables."""

    name: str
    content: bytes
    kind: Literal["stack", "extended", "variables"] = "stack"


class Manifest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An OCI image manifest that describes an artifact."""

    config: types.Descriptor
    layers: tuple[types.Descriptor, ...]
    schema_version: int = msgspec.field(default=2)
    media_type: str = types.OCI_MANIFEST
    artifact_type: str = ""
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


def download(name: str, directory: Path) -> str:
    """Write the files of the artifact *name* to *directory*, the stack as compose.yaml; returns its digest.

    Raises PystackError where the registry does not have it, or has something else."""
    return _run(_download(_reference(name), directory))


def upload(name: str, parts: Sequence[Part], *, version: str = "1.1", annotations: Mapping[str, str] | None = None) -> str:
    """Store *parts* as the artifact *name* in the form of the OCI specification *version*, 1.0 or 1.1, with *annotations*;
    returns its digest.

    Raises PystackError where the registry does not take it."""
    return _run(_upload(_reference(name), parts, version, dict(annotations or {})))


def digest_of(name: str) -> str:
    """The digest that the registry has for the artifact *name*. Raises PystackError."""

    async def ask() -> str:
        async with _registry(found) as registry:
            return (await registry.manifest(found.target))[1]

    found = _reference(name)
    return found.digest or _run(ask())


def _reference(name: str) -> Reference:
    try:
        return reference.parse(name)
    except AgentError as error:
        raise PystackError(str(error)) from None


def _registry(where: Reference) -> Registry:
    """A client with this host's settings of registries, and the user's own credentials."""
    return Registry(where, settings.load(paths.locate()))


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except AgentError as error:
        raise PystackError(str(error)) from None


async def _download(where: Reference, directory: Path) -> str:
    async with _registry(where) as registry:
        data, digest, _ = await registry.manifest(where.target)
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise PystackError(f"{where.familiar} is not a stack: its manifest is not that of an artifact") from None
        if PROJECT not in (manifest.artifact_type, manifest.config.media_type) and not any(
            layer.media_type == FILE for layer in manifest.layers
        ):
            raise PystackError(f"{where.familiar} is not a stack: it is an image, or an artifact of another kind")
        stack: list[bytes] = []
        for layer in manifest.layers:
            if layer.media_type not in (FILE, VARIABLES):
                continue
            content = await _blob(registry, where, layer)
            if layer.media_type == VARIABLES:
                (directory / _file_name(layer, VARIABLES_NAME, where)).write_bytes(content)
            elif EXTENDED in layer.annotations:
                (directory / _file_name(layer, NAME, where)).write_bytes(content)
            else:
                stack.append(content)
        if not stack:
            raise PystackError(f"{where.familiar} has no stack file")
        (directory / MAIN).write_bytes(b"\n---\n".join(stack))
        return digest


def _file_name(layer: types.Descriptor, key: str, where: Reference) -> str:
    """The name of a file beside the stack's. Raises PystackError for one that leads elsewhere, or over it."""
    name = layer.annotations.get(key, "")
    if not name or name in (".", "..", MAIN) or "/" in name or not name.isprintable() or len(name.encode()) > 255:
        raise PystackError(f"{where.familiar}: {name!r} is not a name of a file beside {MAIN}")
    return name


async def _blob(registry: Registry, where: Reference, layer: types.Descriptor) -> bytes:
    if layer.size > LARGEST:
        raise PystackError(f"{where.familiar}: a file of {layer.size} bytes is not a stack file: at most {LARGEST}")
    content = b"".join([chunk async for chunk in registry.blob(layer.digest, layer.size)])
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != layer.digest:
        raise PystackError(f"{where.familiar}: the registry sent something else than {layer.digest}")
    return content


async def _upload(where: Reference, parts: Sequence[Part], version: str, annotations: dict[str, str]) -> str:
    empty = b"{}"
    config = types.Descriptor(OCI_EMPTY if version == "1.1" else EMPTY_CONFIG, _digest(empty), len(empty))
    layers = tuple(_layer(part) for part in parts)
    manifest = Manifest(config, layers, artifact_type=PROJECT if version == "1.1" else "", annotations=annotations)
    data = msgspec.json.encode({"schemaVersion": 2, **msgspec.to_builtins(manifest)})
    async with _registry(where) as registry:
        contents = {layer.digest: part.content for layer, part in zip(layers, parts, strict=True)}
        for digest, content in {config.digest: empty, **contents}.items():
            if not await registry.has_blob(digest):
                await registry.upload(digest, _sent(content), len(content))
        await registry.put_manifest(where.target, data, types.OCI_MANIFEST)
    return _digest(data)


def _layer(part: Part) -> types.Descriptor:
    if part.kind == "variables":
        annotations = {VARIABLES_NAME: part.name}
    else:
        annotations = {NAME: part.name, **({EXTENDED: "true"} if part.kind == "extended" else {})}
    media_type = VARIABLES if part.kind == "variables" else FILE
    return types.Descriptor(media_type, _digest(part.content), len(part.content), annotations=annotations)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def _sent(content: bytes) -> AsyncIterator[bytes]:
    yield content
