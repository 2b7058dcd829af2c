"""The content store: an OCI layout of blobs, names that point at manifests, and layers unpacked once for all images.

images/blobs/sha256/<hex>   manifests, configs, compressed layers
images/names.json           name → manifest digest; replaced atomically; it decides which images exist
layers/<hex20>/             an unpacked layer, shared read-only by overlayfs; it exists only if it is complete
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import AsyncIterable, Callable, Sequence
from pathlib import Path

import msgspec

from agent import files, mounts
from agent.cancellation import to_end
from agent.contract.failpoints import failpoint
from agent.errors import ConflictError, ImageError, ImageNotFoundError, of_worker
from agent.images import types
from agent.images.attached import Attached
from agent.images.reference import DIGEST, Reference, parse
from agent.paths import Paths
from agent.settings import ImageLimits
from agent.trees import process

log = logging.getLogger(__name__)


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image of this node. *id* is its config's digest (as in Docker), *digest* its manifest's."""

    id: str
    digest: str
    names: tuple[str, ...]
    config: types.Config
    layers: tuple[str, ...]
    size: int
    created: str


def layer_directory(layers: Path, diff_id: str) -> Path:
    """Twenty hex digits are unique enough on a node, and let 190 layers fit one mount call."""
    return layers / diff_id.removeprefix("sha256:")[:20]


def mountable(name: str, layers: Sequence[str]) -> None:
    """An image called *name* with the layers *layers*, DiffIDs, can run here. Raises ImageError."""
    most, count = mounts.most_layers(), len(set(layers))
    if not count:
        raise ImageError(f"image {name} has no layers, so that there is nothing to run in: build it with a file at least")
    if count > most:
        raise ImageError(
            f"image {name} has {count} layers, and this kernel mounts at most {most}: flatten it, or build it in fewer steps"
        )


def _sync(path: Path) -> None:
    """Wait until the content of *path* would survive a power cut. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class ImageStore:
    """The images of a node: blobs, unpacked layers, and the names of images."""

    def __init__(self, paths: Paths, limits: ImageLimits = ImageLimits()) -> None:
        self.limits = limits
        self.root = paths.images
        self.layers = paths.layers
        self.blobs = self.root / "blobs" / "sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.layers.mkdir(parents=True, exist_ok=True)
        self._names_file = self.root / "names.json"
        self._pulls = self.root / "pulls"
        self._used = self.root / "used"
        self.names: dict[str, str] = self._read_names()
        self.attached = Attached(self.root / "attached.json", self.blob)
        self._cache: dict[str, Image] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.users: Callable[[], set[str]] = set
        """Returns the manifests that containers use: their images outlive their names."""
        self.held: Callable[[], set[str]] = set
        """Returns what builds hold: names of layers' directories, and the first 20 digits of blobs' digests."""

    @property
    def bounds(self) -> str:
        """The limits as the workers for trees get them (`agent.trees.bounds.Bounds`)."""
        names = ("entries", "bytes", "path_bytes", "path_depth")
        return json.dumps({name: getattr(self.limits, name) for name in names})

    def _read_names(self) -> dict[str, str]:
        if not self._names_file.exists():
            return {}
        try:
            return msgspec.json.decode(self._names_file.read_bytes(), type=dict[str, str])
        except msgspec.DecodeError:
            # a damaged index loses names, never data: a new pull finds blobs by digest
            log.warning("%s is damaged: images lost their names, not their content: pull them again", self._names_file)
            self._names_file.rename(self._names_file.with_suffix(".damaged"))
            return {}

    def sweep(self) -> None:
        """Remove the remains of an interrupted pull or load: partial layers and files."""
        for path in self.layers.glob("*.tmp"):
            files.remove_tree(path)
        for path in (*self.blobs.glob("*.tmp"), *self.root.glob("plain-*.tmp")):
            path.unlink()

    def _save_names(self) -> None:
        failpoint("image.names")
        files.write_atomically(self._names_file, json.dumps(self.names, sort_keys=True).encode(), sync=True)

    def blob(self, digest: str) -> Path:
        """The path of a blob, whether it exists or not. Raises ImageError if *digest* is malformed."""
        if not DIGEST.match(digest):
            raise ImageError(f"digest {digest!r} is not sha256: and 64 hex digits")
        return self.blobs / digest[7:]

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is here. Raises ImageError if *digest* is malformed."""
        return self.blob(digest).exists()

    def put_blob(self, data: bytes, digest: str = "") -> str:
        """Store *data*; returns its digest. Raises ImageError if that is not *digest*."""
        found = "sha256:" + hashlib.sha256(data).hexdigest()
        if digest and digest != found:
            raise ImageError(f"digest mismatch: asked for {digest}, received {found}")
        path = self.blob(found)
        if not path.exists():
            failpoint("image.blob")
            files.write_atomically(path, data)
        return found

    def has_layer(self, diff_id: str) -> bool:
        """Whether the layer is unpacked here."""
        return layer_directory(self.layers, diff_id).is_dir()

    async def unpack(
        self,
        source: AsyncIterable[bytes],
        *,
        digest: str,
        diff_id: str,
        keep: bool = True,
        progress: Callable[[int], None] = lambda _: None,
        unpacked: Callable[[], None] = lambda: None,
    ) -> dict[str, object]:
        """Stream a layer into place: verified, decompressed, extracted, and only then given its final name. *unpacked* is
        called when nothing is left but to wait for the disk.

        Two pulls of one layer share the work. Raises ImageError; nothing half-done stays."""
        lock = self._locks.setdefault(digest or diff_id, asyncio.Lock())
        async with lock:
            if diff_id and digest and self.has_layer(diff_id) and (not keep or self.has_blob(digest)):
                return {"digest": digest, "diff_id": diff_id}
            key = (digest or diff_id or os.urandom(32).hex()).removeprefix("sha256:")[:20]
            directory = self.layers / f"{key}.tmp"
            blob = self.blobs / f"{key}.tmp" if keep else None
            await asyncio.to_thread(files.remove_tree, directory)
            directory.mkdir(mode=0o755)
            failpoint("layer.unpack")
            try:
                words = (str(directory), digest, diff_id, str(blob or ""), mounts.overlay_attribute("opaque"), self.bounds)
                reply = await process.fed("layer", words, source, stall_s=self.limits.stall_s, progress=progress)
                if "error" in reply:
                    raise of_worker(reply, ImageError)
                final = layer_directory(self.layers, str(reply["diff_id"]))
                failpoint("layer.commit")
                if blob:
                    unpacked()
                    await asyncio.to_thread(_sync, blob)
                    blob.rename(self.blob(str(reply["digest"])))
                if not final.exists():
                    directory.rename(final)
                return reply
            finally:
                if blob:
                    blob.unlink(missing_ok=True)
                if directory.exists():
                    await to_end(asyncio.to_thread(files.remove_tree, directory))

    def tag(self, reference: Reference, digest: str) -> None:
        """Name the image *digest* by *reference*, and save the names."""
        self.names[reference.name] = digest
        self._save_names()

    def mark_pulled(self, reference: Reference) -> None:
        """Remember that *reference* was asked for at its registry just now."""
        self._pulls.mkdir(exist_ok=True)
        (self._pulls / hashlib.sha256(reference.name.encode()).hexdigest()[:32]).touch()

    def age_s(self, reference: Reference) -> float | None:
        """Seconds since *reference* was last pulled; None if it never was, 0 if the clock was set back since."""
        try:
            at = (self._pulls / hashlib.sha256(reference.name.encode()).hexdigest()[:32]).stat().st_mtime
        except FileNotFoundError:
            return None
        return max(0.0, time.time() - at)

    def mark_used(self, digest: str) -> None:
        """Remember that a container is made of the image now."""
        self._used.mkdir(exist_ok=True)
        (self._used / digest[7:]).touch()

    def last_used(self, digest: str) -> float:
        """When a container was last made of the image, or else when it came, in seconds since the epoch."""
        for path in (self._used / digest[7:], self.blob(digest)):
            with contextlib.suppress(FileNotFoundError):
                return path.stat().st_mtime
        return 0.0

    def keep_untagged(self, digest: str) -> None:
        """Keep an image that has no name (`name@sha256:…`, or a build without a tag)."""
        self.names[f"@{digest}"] = digest
        self._save_names()

    def untag(self, name: str) -> None:
        """Remove *name*, and save the names. Raises KeyError if there is none."""
        del self.names[name]
        self._save_names()

    def image(self, digest: str) -> Image:
        """The image whose manifest is *digest*. Raises ImageError if a document is missing or broken."""
        if known := self._cache.get(digest):
            names = tuple(sorted(n for n, d in self.names.items() if d == digest and not n.startswith("@")))
            return msgspec.structs.replace(known, names=names)
        try:
            manifest = msgspec.json.decode(self.blob(digest).read_bytes(), type=types.ImageManifest)
            raw = self.blob(manifest.config.digest).read_bytes()
            config = msgspec.json.decode(raw, type=types.Config)
        except (OSError, msgspec.MsgspecError) as error:
            raise ImageError(f"image {digest} is damaged in the store ({error}): pull it again") from error
        image = Image(
            id=manifest.config.digest,
            digest=digest,
            names=(),
            config=config,
            layers=config.rootfs.diff_ids,
            size=sum(layer.size for layer in manifest.layers),
            created=config.created or "",
        )
        self._cache[digest] = image
        return self.image(digest)

    def manifest(self, digest: str) -> types.ImageManifest:
        """The manifest *digest*. Raises OSError if it is missing, msgspec.DecodeError if it is malformed."""
        return msgspec.json.decode(self.blob(digest).read_bytes(), type=types.ImageManifest)

    def find(self, text: str) -> Image:
        """By name, by manifest digest, or by (the beginning of) its ID. Raises ImageNotFoundError."""
        bare = text.removeprefix("sha256:")
        if len(bare) >= 6 and all(c in "0123456789abcdef" for c in bare):
            # several manifests may have one config, as after a build that added nothing: they are one image
            hits = {i.id: i for i in self.everything() if bare == i.id[7 : 7 + len(bare)] or i.digest == text}
            if len(hits) == 1:
                return next(iter(hits.values()))
            if len(hits) > 1:
                raise ImageError(f"image {text}: {len(hits)} images begin so; give more digits")
        reference = parse(text)
        digest = reference.digest or self.names.get(reference.name, "")
        if not digest or digest not in self.names.values():
            raise ImageNotFoundError(f"No such image: {text if reference.digest else reference.familiar}")
        return self.image(digest)

    def everything(self) -> tuple[Image, ...]:
        """All images, with a name or without; those that cannot be read are left out."""
        found = []
        for digest in sorted(set(self.names.values())):
            try:
                found.append(self.image(digest))
            except ImageError:
                continue
        return tuple(found)

    def is_complete(self, image: Image) -> bool:
        """Whether all layers of *image* are unpacked here."""
        return all(self.has_layer(diff_id) for diff_id in image.layers)

    def lower(self, image: Image) -> list[Path]:
        """The image's layers as directories, bottom first. Raises ImageError if they cannot be mounted together."""
        mountable(parse(image.names[0]).familiar if image.names else image.digest, image.layers)
        # overlayfs takes no directory twice; of a layer that comes again the upper one is enough
        names = dict.fromkeys(reversed(image.layers))
        return [layer_directory(self.layers, diff_id) for diff_id in reversed(names)]

    def remove(self, text: str, *, in_use: set[str]) -> list[dict[str, str]]:
        """Untag, and delete what is not needed any more. *in_use* are manifest digests of containers' images.

        Returns Docker's list of {"Untagged": …} and {"Deleted": …}."""
        image = self.find(text)
        by_id = text.removeprefix("sha256:") in image.id
        names = [n for n, d in self.names.items() if d == image.digest] if by_id else [parse(text).name]
        gone = [{"Untagged": parse(n).familiar} for n in names if not n.startswith("@")]
        last = set(names) >= {n for n, d in self.names.items() if d == image.digest}
        if last and image.digest in in_use:
            raise ConflictError(f"image {text} is used by a container: remove that first")
        for name in names:
            self.names.pop(name, None)
        self._save_names()
        if last:
            gone.append({"Deleted": image.id})
            (self._used / image.digest[7:]).unlink(missing_ok=True)
            self.collect()
        return gone

    def collect(self) -> int:
        """Delete blobs and layers that no name reaches and no container uses; returns the bytes freed."""
        failpoint("image.collect")
        blobs: set[str] = set()
        layers: set[str] = set()
        kept = {image.digest: image for image in self.everything()}
        for digest in self.users() - kept.keys():
            with contextlib.suppress(ImageError):
                kept[digest] = self.image(digest)
        for image in kept.values():
            manifest = self.manifest(image.digest)
            blobs |= {image.digest[7:], image.id[7:], *(layer.digest[7:] for layer in manifest.layers)}
            blobs |= {digest[7:] for digest in self.attached.digests(image.digest)}
            diff_ids = set(image.layers)
            for other in self.attached.images(image.digest):
                with contextlib.suppress(ImageError):
                    diff_ids.update(self.image(other).layers)
            layers |= {layer_directory(self.layers, diff_id).name for diff_id in diff_ids}
        freed = 0
        busy = {key.removeprefix("sha256:")[:20] for key, lock in self._locks.items() if lock.locked()} | self.held()
        for path in list(self.blobs.iterdir()):
            if path.name not in blobs and path.name[:20] not in busy:
                freed += path.stat().st_size
                path.unlink()
        for path in list(self.layers.iterdir()):
            if path.name not in layers and path.stem not in busy:
                doomed = path.with_suffix(".tmp")
                path.rename(doomed)
                files.remove_tree(doomed)
        self._cache.clear()
        return freed
