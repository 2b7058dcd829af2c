"""What goes along with images: an index that names an image, its attestations, and the images that the same build made for
other platforms. It takes the image's place in registries and archives.

images/attached.json    manifest digest → index digest
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent import files
from agent.images import types


class Attached:
    """Those of one store; *blob* gives the path of a digest."""

    def __init__(self, file: Path, blob: Callable[[str], Path]) -> None:
        self._file, self._blob = file, blob
        self._known: dict[str, str] = {}
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._known = msgspec.json.decode(file.read_bytes(), type=dict[str, str])

    def get(self, digest: str) -> str:
        """The digest of the index that has the image *digest* and what goes along with it, "" if it has none."""
        index = self._known.get(digest, "")
        return index if index and self._blob(index).exists() else ""

    def put(self, digest: str, index: str) -> None:
        """Attach *index* to the image *digest*, in place of an earlier one. Raises OSError."""
        self._known[digest] = index
        self._known = {image: one for image, one in self._known.items() if self._blob(image).exists()}
        files.write_atomically(self._file, msgspec.json.encode(self._known))

    def drop(self, digest: str) -> None:
        """Nothing goes along with the image *digest* any more. Raises OSError."""
        if self._known.pop(digest, ""):
            files.write_atomically(self._file, msgspec.json.encode(self._known))

    def parts(self, digest: str) -> list[types.Descriptor]:
        """Beside the image *digest*: the other manifests of its index, each after what it names."""
        index = self.get(digest)
        if not index:
            return []
        found: list[types.Descriptor] = []
        for entry in msgspec.json.decode(self._blob(index).read_bytes(), type=types.ImageIndex).manifests:
            if entry.digest != digest:
                manifest = msgspec.json.decode(self._blob(entry.digest).read_bytes(), type=types.ImageManifest)
                found += [manifest.config, *manifest.layers, entry]
        return found

    def images(self, digest: str) -> list[str]:
        """The manifests of the images for other platforms that the index of the image *digest* names."""
        return [p.digest for p in self.parts(digest) if p.platform and p.platform.os != "unknown"]

    def digests(self, digest: str) -> set[str]:
        """All blobs that go along with the image *digest*."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return {part.digest for part in self.parts(digest)} | {self.get(digest)} - {""}
        return set()
