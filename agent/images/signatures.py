"""Signatures of images in cosign's format: found beside the image in its registry, verified with public keys.

A signature is over a payload, the "simple signing" document, which names the manifest's digest. It is found by the tag
`sha256-HEX.sig`, or among the manifests that refer to the image (OCI referrers). What signs an image index signs the
manifests that it lists. Nothing that a registry sends is believed until a key of ours has signed it.
Source: sigstore/cosign, specs/SIGNATURE_SPEC.md; containers/image, docs/atomic-signature.md; OCI Distribution Specification
1.1, "Listing Referrers" and the referrers tag schema.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

import msgspec

from agent.contract.trust import ImageProof
from agent.errors import BadRequestError, ImageNotFoundError
from agent.images import documents, types
from agent.images.reference import DIGEST, parse
from agent.images.registry import Registry
from agent.settings import ImageLimits

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
MOST = 32
"""Signatures of one image that are looked at."""
PAYLOAD_BYTES = 64 << 10


class _Referrer(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str = ""
    digest: str = ""
    artifact_type: str = ""


class _Referrers(msgspec.Struct, frozen=True):
    manifests: tuple[_Referrer, ...] = ()


class _Image(msgspec.Struct, frozen=True):
    digest: str = msgspec.field(name="docker-manifest-digest", default="")


class _Identity(msgspec.Struct, frozen=True):
    reference: str = msgspec.field(name="docker-reference", default="")


class _Critical(msgspec.Struct, frozen=True):
    type: str = ""
    image: _Image = _Image()
    identity: _Identity = _Identity()


class _Payload(msgspec.Struct, frozen=True):
    critical: _Critical = _Critical()


async def find(registry: Registry, digests: Iterable[str], limits: ImageLimits, index: bytes = b"") -> tuple[ImageProof, ...]:
    """The signatures that *registry* has for manifests or indexes of these *digests*; *index* goes with each. Raises ImageError
    where the registry cannot be asked; one that has none is not an error."""
    found: list[ImageProof] = []
    for digest in digests:
        mark = digest.replace(":", "-")
        for target in (f"{mark}.sig", *await _referrers(registry, digest, mark, limits)):
            found += await _of_manifest(registry, target, limits, index, MOST - len(found))
    return tuple(dict.fromkeys(found))


async def _referrers(registry: Registry, digest: str, mark: str, limits: ImageLimits) -> list[str]:
    """The digests of signatures that refer to *digest*."""
    what = f"what refers to {digest}"
    data = await registry.referrers(digest)
    if data is None:  # a registry that does not list them has them under a tag
        try:
            data, _, kind = await registry.manifest(mark)
        except ImageNotFoundError:
            return []
        if kind not in types.INDEXES:
            return []
    listed = documents.read(data, _Referrers, what, limits.manifest_bytes).manifests
    return [r.digest for r in listed if r.artifact_type == ARTIFACT and DIGEST.match(r.digest)][:MOST]


async def _of_manifest(registry: Registry, target: str, limits: ImageLimits, index: bytes, most: int) -> list[ImageProof]:
    try:
        data, _, kind = await registry.manifest(target)
    except ImageNotFoundError:
        return []
    if kind not in types.MANIFESTS:
        return []
    found = []
    for layer in documents.manifest(data, f"the signature {target}", limits).layers[: max(most, 0)]:
        text = layer.annotations.get(ANNOTATION, "")
        if layer.media_type != PAYLOAD or not text or layer.size > PAYLOAD_BYTES:
            continue
        payload = b"".join([chunk async for chunk in registry.blob(layer.digest, layer.size)])
        try:
            signature = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if "sha256:" + hashlib.sha256(payload).hexdigest() == layer.digest:
            found.append(ImageProof(payload=payload, signature=signature, index=index))
    return found


def problem(proofs: Iterable[ImageProof], keys: Iterable[str], digest: str, name: str) -> str:
    """Why none of *proofs* shows that one of *keys* (PEM) signed the manifest *digest* as image *name*; "" if one does."""
    reasons: list[str] = []
    for proof in proofs:
        reason = _problem(proof, keys, digest, name)
        if not reason:
            return ""
        reasons.append(reason)
    return "; ".join(dict.fromkeys(reasons)) or "it is not signed"


def _problem(proof: ImageProof, keys: Iterable[str], digest: str, name: str) -> str:
    if not any(verify(key, proof.payload, proof.signature) for key in keys):
        return "its signature is not by a key that the policy names"
    try:
        critical = msgspec.json.decode(proof.payload, type=_Payload).critical
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "what was signed is not a statement about an image"
    if critical.image.digest != digest and not _lists(proof.index, critical.image.digest, digest):
        return f"the signature is of {critical.image.digest[:19]}…, and the image is {digest[:19]}…"
    signed, wanted = repository(critical.identity.reference), repository(name)
    if signed != wanted:
        return f"it was signed as {signed or 'nothing'}, not as {wanted}"
    return ""


def repository(name: str) -> str:
    """HOST/REPOSITORY of an image's name, without tag and digest; "" if it is not a name."""
    try:
        found = parse(name)
    except BadRequestError:  # a name in a payload may be anything
        return ""
    return f"{found.host}/{found.repository}"


def _lists(index: bytes, signed: str, digest: str) -> bool:
    """Whether *index* is the one with the digest *signed*, and has the manifest *digest*."""
    if not index or "sha256:" + hashlib.sha256(index).hexdigest() != signed:
        return False
    try:
        return any(entry.digest == digest for entry in msgspec.json.decode(index, type=types.ImageIndex).manifests)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def verify(key: str, payload: bytes, signature: bytes) -> bool:
    """Whether *signature* of *payload* is by the holder of the public *key*: ECDSA with SHA-256 (ASN.1), or Ed25519. A key of
    another kind has signed nothing; see `key_problem`."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    try:
        public = serialization.load_pem_public_key(key.encode())
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
            return True
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, payload)
            return True
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return False


def key_problem(key: str) -> str:
    """Why *key* can verify nothing; "" if it can."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    try:
        public = serialization.load_pem_public_key(key.encode())
    except (ValueError, UnsupportedAlgorithm):
        return "is not a public key in PEM (BEGIN PUBLIC KEY)"
    known = isinstance(public, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey))
    return "" if known else "is a key of another kind: ECDSA and Ed25519 are known"
