"""Which images a node may run: policies, signatures that were found, and what a stack's lock says."""

from __future__ import annotations

import re

from agent.contract.wire import WireStruct

_AGE = r"(\d{1,6})([hdw])"
_SECONDS = {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_age(text: str) -> float:
    """Seconds of `90d`, `12h`, `4w`. Raises ValueError."""
    match = re.fullmatch(_AGE, text)
    if not match or not int(match[1]):
        raise ValueError(f"{text[:40]!r} is not an age: a number with h, d or w, such as 90d")
    return int(match[1]) * _SECONDS[match[2]]


class SigningRule(WireStruct, frozen=True, kw_only=True):
    """Images whose full name (`docker.io/library/nginx`) matches one of *images* (`*` and `?` as in a shell; none: all) must
    have a signature by one of *keys*, public keys in PEM."""

    images: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


class ImagePolicy(WireStruct, frozen=True, kw_only=True):
    """What an image must be to be run. *registries* are patterns of full names, none for any; *latest* and *root* say whether
    those are allowed; *max_age_s* 0 is any age; *locked*: it must stand in the stack's lock."""

    signed: tuple[SigningRule, ...] = ()
    registries: tuple[str, ...] = ()
    latest: bool = True
    root: bool = True
    max_age_s: float = 0.0
    locked: bool = False

    @property
    def demands(self) -> bool:
        """Whether it refuses anything."""
        return bool(self.signed or self.registries or not self.latest or not self.root or self.max_age_s or self.locked)


class ImageProof(WireStruct, frozen=True, kw_only=True):
    """A signature that was found for an image: of *payload*; *index* is the image index that was signed in place of the
    image's own manifest, b"" if it was not. Nothing of it is to be believed before it is verified."""

    payload: bytes = b""
    signature: bytes = b""
    index: bytes = b""


class Locked(WireStruct, frozen=True, kw_only=True):
    """An entry of stack.lock: the digests that *image* may have, one for each platform."""

    image: str
    digests: tuple[tuple[str, str], ...] = ()
    """(os/arch, manifest digest)."""


class ImageTrust(WireStruct, frozen=True, kw_only=True):
    """What a task's images are held to: its stack's *policy*, *locked* where there is a lock (None: there is none), and
    the *proofs* that the control plane knows of, by manifest digest."""

    policy: ImagePolicy = ImagePolicy()
    locked: tuple[Locked, ...] | None = None
    proofs: tuple[tuple[str, ImageProof], ...] = ()

    @property
    def demands(self) -> bool:
        """Whether it refuses anything."""
        return self.policy.demands or self.locked is not None


class WantedImage(WireStruct, frozen=True, kw_only=True):
    """An image by the *name* that a service gives it, and the *user* that the service runs it as, "" for the image's own."""

    name: str
    user: str = ""


class VerdictRequest(WireStruct, frozen=True, kw_only=True):
    """A question to a node: may these *images* be run under *trust*, and under the node's own policy?"""

    images: tuple[WantedImage, ...]
    trust: ImageTrust = ImageTrust()


class Verdict(WireStruct, frozen=True, kw_only=True):
    """*problems* are why the image *name* may not be run, none if it may. *digest* is that of its manifest for the node, ""
    where neither the node nor its registry has it; *proofs* are the signatures that were found."""

    name: str
    digest: str = ""
    problems: tuple[str, ...] = ()
    proofs: tuple[ImageProof, ...] = ()


class RegistryImage(WireStruct, frozen=True, kw_only=True):
    """What a registry has under *name* now: the digest of what the tag points at, the manifests by platform (os/arch), or why
    that could not be found out."""

    name: str
    digest: str = ""
    platforms: tuple[tuple[str, str], ...] = ()
    error: str = ""
