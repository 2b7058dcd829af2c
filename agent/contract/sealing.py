"""The keys of a node, and data that only that node can read: the sender seals it to the node's public key.

A private key never leaves the node's state folder. Part of the contract: the control plane seals with this module too.
Source: RFC 9180 (HPKE), base mode, with X25519, HKDF-SHA256 and ChaCha20-Poly1305.
"""

from __future__ import annotations

import base64
import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite


class UnsealableError(Exception):
    """It was sealed to another key, for another purpose, or was changed on its way."""


PURPOSES = ("seal", "tunnel")
"""The purposes of a node's X25519 keys: secrets are sealed to `seal`, `tunnel` is for WireGuard."""


def private_key(folder: Path, purpose: str) -> Path:
    """The file of the private key: 32 bytes."""
    return folder / f"{purpose}.key"


def known_key(folder: Path, purpose: str) -> str:
    """The public key of this node for *purpose* in Base64, "" if it has none yet."""
    public = folder / f"{purpose}.pub"
    return public.read_text().strip() if public.exists() else ""


def make_key(folder: Path, purpose: str) -> str:
    """The public key of this node for *purpose*, made at the first call, kept in *folder* beside the private one."""
    # not at the top: a node without secrets is spared the import, 36 ms and 9 MB
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from agent.contract.atomic import write_atomically

    path = private_key(folder, purpose)
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = folder / f".{path.name}.{threading.get_native_id()}.made"
        write_atomically(made, X25519PrivateKey.generate().private_bytes_raw(), 0o600, sync=True)
        try:
            with contextlib.suppress(FileExistsError):  # of several that make one at once, all go by the first
                os.link(made, path)
        finally:
            made.unlink()
    private = X25519PrivateKey.from_private_bytes(path.read_bytes())
    public = base64.b64encode(private.public_key().public_bytes_raw()).decode()
    if known_key(folder, purpose) != public:
        write_atomically(folder / f"{purpose}.pub", public.encode() + b"\n")
    return public


def seal(public: str, data: bytes, purpose: str) -> bytes:
    """*data* sealed to the node with the public key *public*; it opens for the same *purpose* only."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    return _suite().encrypt(data, X25519PublicKey.from_public_bytes(base64.b64decode(public)), purpose.encode())


def unseal(folder: Path, sealed: bytes, purpose: str) -> bytes:
    """The content of data that was sealed to this node. Raises UnsealableError."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        private = X25519PrivateKey.from_private_bytes(private_key(folder, "seal").read_bytes())
        return _suite().decrypt(sealed, private, purpose.encode())
    except FileNotFoundError:
        raise UnsealableError(f"this host has no key in {folder}") from None
    except (InvalidTag, ValueError):
        raise UnsealableError("it was sealed to another key than this host's, or is damaged") from None


def _suite() -> Suite:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
