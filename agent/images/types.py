"""OCI image documents, as far as they are read. Source: OCI Image Specification 1.1; Docker Image Manifest v2.2."""

from __future__ import annotations

import re

import msgspec

from agent.images.reference import DIGEST

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
_ANY_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{1,256}\Z")
_LARGEST = 1 << 53
"""The largest size, count or duration: JSON numbers are exact up to it."""


def _no_zero(value: object, where: str) -> None:
    """Raises ValueError if text of *value* holds a zero byte, which neither a path nor a variable can."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError(f"{where} holds a zero byte")
    elif isinstance(value, dict):
        for key, item in value.items():
            _no_zero(key, where)
            _no_zero(item if isinstance(item, str) else None, where)
    elif isinstance(value, tuple):
        for item in value:
            _no_zero(item, where)


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """The platform of an image (OCI image index specification, `platform`)."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A reference to a blob: its type, digest, and *size* in bytes (OCI content descriptor). Raises ValueError."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not _ANY_DIGEST.match(self.digest):
            raise ValueError("a digest is ALGORITHM:HEX")
        if not 0 <= self.size < _LARGEST:
            raise ValueError(f"size {self.size} is not a size")


class ImageIndex(msgspec.Struct, frozen=True, rename="camel"):
    """A list of manifests, one for each platform (OCI image index)."""

    manifests: tuple[Descriptor, ...]
    schema_version: int = 2
    media_type: str = OCI_INDEX
    annotations: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET


class ImageManifest(msgspec.Struct, frozen=True, rename="camel"):
    """An image's configuration and layers, the lowest first (OCI image manifest). Raises ValueError."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    schema_version: int = 2
    media_type: str = OCI_MANIFEST
    annotations: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET

    def __post_init__(self) -> None:
        for part in (self.config, *self.layers):
            if not DIGEST.match(part.digest):
                raise ValueError(f"digest {part.digest[:80]!r} is not sha256: and 64 hex digits")


class HealthConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """Durations in nanoseconds, as Docker writes them."""

    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0

    def __post_init__(self) -> None:
        _no_zero(self.test, "Healthcheck")
        if not all(0 <= n < 1 << 63 for n in (self.interval, self.timeout, self.start_period, self.start_interval)):
            raise ValueError("a duration of Healthcheck is out of range")
        if not 0 <= self.retries < 1 << 31:
            raise ValueError("Retries of Healthcheck is out of range")


class RunConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """How a container of the image runs (OCI image configuration, `config`; Docker's own keys beside it)."""

    user: str = ""
    exposed_ports: dict[str, object] | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, object] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: HealthConfig | None = None
    on_build: tuple[str, ...] | None = None
    shell: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in (
            "user",
            "exposed_ports",
            "env",
            "entrypoint",
            "cmd",
            "volumes",
            "working_dir",
            "labels",
            "stop_signal",
            "on_build",
            "shell",
        ):
            _no_zero(getattr(self, name), name)


class RootFs(msgspec.Struct, frozen=True):
    """The digests of the unpacked layers, the lowest first (OCI image configuration, `rootfs`). Raises ValueError."""

    diff_ids: tuple[str, ...]
    type: str = "layers"

    def __post_init__(self) -> None:
        for digest in self.diff_ids:  # a layer's folder is called after it
            if not DIGEST.match(digest):
                raise ValueError(f"diff_id {digest[:80]!r} is not sha256: and 64 hex digits")


class HistoryEntry(msgspec.Struct, frozen=True):
    """A step that made the image; one with an *empty_layer* changed only its configuration."""

    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class Config(msgspec.Struct, frozen=True):
    """An image's configuration (OCI image configuration)."""

    rootfs: RootFs
    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    config: RunConfig | None = None
    author: str | None = None
    history: tuple[HistoryEntry, ...] | None = None
