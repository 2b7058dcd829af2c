"""Whether an image may be run: policies held against what the image is, on the node that is to run it.

The policy of the node and that of a task's stack each count. An image is looked at where it is: its manifest and config must
have the digests by which they are known, not those of the names' file.
"""

from __future__ import annotations

import datetime
import fnmatch
import hashlib
import itertools
from collections.abc import Iterable, Sequence

import msgspec

from agent import files
from agent.contract.trust import ImagePolicy, ImageProof, ImageTrust, Locked, RegistryImage, SigningRule, Verdict, WantedImage
from agent.errors import AgentError, BadRequestError, ForbiddenError, ImageError, ImageNotFoundError
from agent.images import documents, signatures, types
from agent.images.platforms import architecture, own
from agent.images.pull import choose
from agent.images.reference import Reference, parse
from agent.images.registry import Registry
from agent.images.store import ImageStore
from agent.settings import Settings

KEPT = 8
"""Signatures of one image that are kept, and carried to other nodes."""


class ImageDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an image: its *name* as it was asked for, its manifest's *digest*, when it was *created* (RFC 3339),
    whose *user* it runs as; *reference* is None if the name is that of no image (an ID)."""

    name: str
    digest: str
    created: str = ""
    user: str = ""
    reference: Reference | None = None
    damage: str = ""


def problems(
    details: ImageDetails,
    policy: ImagePolicy,
    proofs: Sequence[ImageProof],
    locked: Sequence[Locked] | None,
    now: datetime.datetime,
) -> list[str]:
    """All reasons for which *policy* and the lock refuse the image; *locked* None: there is no lock."""
    found = [details.damage] if details.damage else []
    name = signatures.repository(details.name)
    if policy.registries and not any(
        fnmatch.fnmatchcase(name, p) or fnmatch.fnmatchcase(name, f"{p}/*") for p in policy.registries
    ):
        found.append(f"it is from {name or 'no registry'}, and the policy allows {', '.join(policy.registries)}")
    if not policy.latest and details.reference and details.reference.tag == "latest" and not details.reference.digest:
        found.append("its tag is latest, which the policy forbids: name a version")
    if not policy.root and is_root(details.user):
        found.append(f"it runs as {details.user or 'root'}, which the policy forbids: give the service a user")
    if policy.max_age_s:
        found += _too_old(details, policy.max_age_s, now)
    for rule in policy.signed:
        if reason := unsigned(details, rule, proofs):
            found.append(f"the policy asks for a signature: {reason}")
    if policy.locked or locked is not None:
        found += _not_locked(details, locked)
    return found


def unsigned(details: ImageDetails, rule: SigningRule, proofs: Sequence[ImageProof]) -> str:
    """Why *proofs* do not give the image the signature that *rule* asks for; "" where they do, or it asks for none."""
    name = signatures.repository(details.name)
    if rule.images and not any(fnmatch.fnmatchcase(name, pattern) for pattern in rule.images):
        return ""
    return signatures.problem(proofs, rule.keys, details.digest, details.name)


def is_root(user: str) -> bool:
    """Whether a `user` of an image or service is root; a name that only the image's passwd knows counts as no root here."""
    return user.partition(":")[0].strip() in ("", "root") or user.partition(":")[0].strip().lstrip("0") == ""


def _too_old(details: ImageDetails, most_s: float, now: datetime.datetime) -> list[str]:
    try:
        made = datetime.datetime.fromisoformat(details.created.replace("Z", "+00:00"))
    except ValueError:
        return ["it does not say when it was made, and the policy limits its age"]
    if made.tzinfo is None:
        made = made.replace(tzinfo=datetime.UTC)
    age = (now - made).total_seconds()
    if age <= most_s:
        return []
    return [f"it is {age / 86_400:.0f} days old, and the policy allows {most_s / 86_400:g}"]


def _not_locked(details: ImageDetails, locked: Sequence[Locked] | None) -> list[str]:
    entry = next((e for e in locked or () if e.image == details.name), None)
    if entry is None:
        return ["it has no entry in stack.lock: `pystack lock` writes one"]
    if details.digest in {digest for _, digest in entry.digests}:
        return []
    known = ", ".join(f"{digest[:19]}… ({where})" for where, digest in entry.digests)
    return [f"it is {details.digest[:19]}…, and stack.lock has {known or 'nothing'}: `pystack lock` again, if that is right"]


def local_details(store: ImageStore, wanted: WantedImage) -> ImageDetails | None:
    """What this node has under the name; None if it has nothing whole."""
    try:
        image = store.find(wanted.name)
    except (ImageError, ImageNotFoundError):
        return None
    return ImageDetails(
        name=wanted.name,
        digest=image.digest,
        created=image.config.created or "",
        user=wanted.user or (image.config.config.user if image.config.config else ""),
        reference=_reference(wanted.name),
        damage=_damage(store, image.digest, image.id),
    )


def _damage(store: ImageStore, *digests: str) -> str:
    """What of the image's documents is not what its digest says."""
    for digest in digests:
        try:
            data = store.blob(digest).read_bytes()
        except OSError:
            return f"its document {digest[:19]}… is not on this node"
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            return f"its document {digest[:19]}… was altered on this node: remove the image and pull it again"
    return ""


def _reference(name: str) -> Reference | None:
    try:
        return parse(name)
    except BadRequestError:
        return None


def verified(proofs: Iterable[ImageProof], keys: Sequence[str]) -> list[ImageProof]:
    """Those of *proofs* that are by one of *keys*, KEPT at most: nothing else is kept or carried, for a registry may send
    much."""
    found = (p for p in dict.fromkeys(proofs) if any(signatures.verify(key, p.payload, p.signature) for key in keys))
    return list(itertools.islice(found, KEPT))


class Trust:
    """Verdicts of one node."""

    def __init__(self, store: ImageStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._own = settings.image_policy.policy
        self._folder = store.root / "signatures"

    def applies(self, trust: ImageTrust | None) -> bool:
        """Whether anything is refused at all."""
        return self._own.demands or bool(trust and trust.demands)

    async def verdicts(self, wanted: Iterable[WantedImage], trust: ImageTrust) -> list[Verdict]:
        """A verdict on each of *wanted*; what this node has not is looked at in its registry."""
        return [await self._verdict(one, trust) for one in wanted]

    async def _verdict(self, wanted: WantedImage, trust: ImageTrust, *, digest: str = "") -> Verdict:
        details = local_details(self._store, msgspec.structs.replace(wanted, name=digest) if digest else wanted)
        if details and digest:
            details = msgspec.structs.replace(details, name=wanted.name, reference=_reference(wanted.name))
        rules = [*self._own.signed, *trust.policy.signed]
        keys = [key for rule in rules for key in rule.keys]
        known = [proof for of, proof in trust.proofs if details and of == details.digest]
        unasked = ""
        try:
            if details is None:
                details, known = await self._remote(wanted)
            elif rules:
                known = verified([*known, *self._stored_proofs(details.digest)], keys)
                if any(unsigned(details, rule, known) for rule in rules):
                    known = await self._proofs(details)
        except AgentError as error:
            if details is None:
                return Verdict(name=wanted.name, problems=(f"it is on no node, and its registry does not tell: {error}",))
            unasked = str(error)
        now = datetime.datetime.now(datetime.UTC)
        own = problems(details, self._own, known, trust.locked, now) if self._own.demands else []
        found = [*own, *problems(details, trust.policy, known, trust.locked, now)]
        if found and unasked:
            found.append(f"its registry could not be asked for signatures: {unasked}")
        proofs = verified(known, keys)
        if proofs and self._store.has_blob(details.digest):
            self._store_proofs(details.digest, proofs)
        return Verdict(name=wanted.name, digest=details.digest, problems=tuple(dict.fromkeys(found)), proofs=tuple(proofs))

    def _stored_proofs(self, digest: str) -> list[ImageProof]:
        """The signatures that were found before: a node without a way to the registry starts what it had."""
        try:
            return msgspec.json.decode((self._folder / digest[7:]).read_bytes(), type=list[ImageProof])
        except (OSError, msgspec.MsgspecError):
            return []

    def _store_proofs(self, digest: str, proofs: list[ImageProof]) -> None:
        if proofs != self._stored_proofs(digest):
            self._folder.mkdir(exist_ok=True)
            files.write_atomically(self._folder / digest[7:], msgspec.json.encode(proofs))

    async def require(self, name: str, digest: str, user: str, trust: ImageTrust | None) -> None:
        """Raises ForbiddenError with every reason for which the image *name*, here with this manifest *digest*, may not be
        run as *user*."""
        if not self.applies(trust):
            return
        verdict = await self._verdict(WantedImage(name=name, user=user), trust or ImageTrust(), digest=digest)
        if verdict.problems:
            raise ForbiddenError(f"image {name} is refused: {'; '.join(verdict.problems)}")

    async def _proofs(self, details: ImageDetails) -> list[ImageProof]:
        """The signatures that the registry has for an image of this node."""
        if details.reference is None:
            return []
        async with Registry(details.reference, self._settings) as registry:
            found = list(await signatures.find(registry, [details.digest], self._settings.limits))
            if not found:  # what was signed may be the index that the tag leads to
                data, digest, kind = await registry.manifest(details.reference.target)
                if kind in types.INDEXES:
                    found = list(await signatures.find(registry, [digest], self._settings.limits, data))
        return found

    async def _remote(self, wanted: WantedImage) -> tuple[ImageDetails, list[ImageProof]]:
        """What a registry has under the name for this node's platform. Raises AgentError."""
        reference, limits = parse(wanted.name), self._settings.limits
        what = f"of image {reference.familiar}"
        async with Registry(reference, self._settings) as registry:
            data, digest, kind = await registry.manifest(reference.target)
            proofs = list(await signatures.find(registry, [digest], limits, data if kind in types.INDEXES else b""))
            if kind in types.INDEXES:
                entry = choose(documents.index(data, f"the index {what}", limits), own(), reference.familiar)
                data, digest, _ = await registry.manifest(entry.digest)
                proofs += await signatures.find(registry, [digest], limits)
            manifest = documents.manifest(data, f"the manifest {what}", limits)
            raw = b"".join([c async for c in registry.blob(manifest.config.digest, manifest.config.size)])
            config = documents.config(raw, f"the config {what}", limits, layers=len(manifest.layers))
        details = ImageDetails(
            name=wanted.name,
            digest=digest,
            created=config.created or "",
            user=wanted.user or (config.config.user if config.config else ""),
            reference=reference,
        )
        return details, proofs

    async def at_registry(self, name: str) -> RegistryImage:
        """What the registry has under *name* now, for every platform."""
        try:
            reference = parse(name)
            async with Registry(reference, self._settings) as registry:
                data, digest, kind = await registry.manifest(reference.target)
            if kind in types.INDEXES:
                entries = documents.index(data, f"the index of image {name}", self._settings.limits).manifests
                platforms = tuple(
                    (f"{e.platform.os}/{e.platform.architecture}", e.digest)
                    for e in entries
                    if e.platform and e.platform.os not in ("", "unknown")
                )
                return RegistryImage(name=name, digest=digest, platforms=platforms)
            return RegistryImage(name=name, digest=digest, platforms=((f"linux/{architecture()}", digest),))
        except AgentError as error:
            return RegistryImage(name=name, error=str(error))
