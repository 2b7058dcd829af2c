"""Signatures of images by cosign's published format, made with the `cryptography` library alone.

Source: sigstore/cosign, specs/SIGNATURE_SPEC.md: the payload, its media type, the annotation, the tag `sha256-HEX.sig`; OCI
Distribution Specification 1.1, the referrers tag schema.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Upload(NamedTuple):
    """What is put into a registry: *blobs*, and *manifest* under *target*."""

    blobs: tuple[bytes, ...]
    target: str
    manifest: bytes


def new_key(kind: str = "ecdsa") -> Key:
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else ed25519.Ed25519PrivateKey.generate()


def public(key: Key) -> str:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()


def payload(digest: str, name: str) -> bytes:
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


def sign(key: Key, data: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    return key.sign(data)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def signature(key: Key, digest: str, name: str, *, referrer: bool = False) -> Upload:
    """The signature of *digest* as image *name*, under its tag, or by its own digest to be listed among referrers."""
    document, config = payload(digest, name), b"{}"
    layer = {
        "mediaType": PAYLOAD,
        "digest": digest_of(document),
        "size": len(document),
        "annotations": {"dev.cosignproject.cosign/signature": base64.b64encode(sign(key, document)).decode()},
    }
    kind = ARTIFACT if referrer else "application/vnd.oci.image.config.v1+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": kind, "digest": digest_of(config), "size": len(config)},
            "layers": [layer],
        }
    ).encode()
    target = digest_of(manifest) if referrer else f"{digest.replace(':', '-')}.sig"
    return Upload((document, config), target, manifest)


def referrers(manifest: bytes) -> bytes:
    """The index that lists *manifest* as a signature."""
    entry = {"mediaType": MANIFEST, "digest": digest_of(manifest), "size": len(manifest), "artifactType": ARTIFACT}
    kind = "application/vnd.oci.image.index.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}).encode()
