"""Policies and signatures, held against what images are. No root, no network."""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path

import pytest

from agent.contract.trust import ImagePolicy, ImageProof, ImageTrust, Locked, SigningRule, Verdict, WantedImage, parse_age
from agent.images.reference import parse
from agent.images.signatures import key_problem, problem, verify
from agent.images.store import ImageStore
from agent.images.trust import KEPT, ImageDetails, Trust, is_root, problems, verified
from agent.paths import Paths
from agent.settings import Settings
from tests.images import layout, tar_of
from tests.signing import Key, digest_of, new_key, payload, public, sign

NAME, DIGEST = "registry.example/team/app:1", "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


def proof(key: Key, digest: str = DIGEST, name: str = "registry.example/team/app", index: bytes = b"") -> ImageProof:
    document = payload(digest, name)
    return ImageProof(payload=document, signature=sign(key, document), index=index)


@pytest.mark.parametrize("kind", ["ecdsa", "ed25519"])
def test_a_signature_counts_by_its_key_alone(kind: str) -> None:
    key, stranger = new_key(kind), new_key(kind)
    assert key_problem(public(key)) == ""
    assert problem([proof(key)], [public(key)], DIGEST, NAME) == ""
    assert problem([proof(stranger), proof(key)], [public(key)], DIGEST, NAME) == ""
    assert "not by a key" in problem([proof(stranger)], [public(key)], DIGEST, NAME)
    assert problem([], [public(key)], DIGEST, NAME) == "it is not signed"


def test_a_signature_is_of_one_content_under_one_name() -> None:
    key = new_key()
    assert "is of sha256:bbbbb" in problem([proof(key, OTHER)], [public(key)], DIGEST, NAME)
    assert "signed as registry.example/team/other" in problem(
        [proof(key, name="registry.example/team/other")], [public(key)], DIGEST, NAME
    )
    assert problem([proof(key)], [public(key)], DIGEST, "registry.example/team/app:another-tag") == ""


def test_a_signature_of_an_index_is_one_of_what_it_lists() -> None:
    key = new_key()
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST, "size": 1}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    assert problem([proof(key, digest_of(index), index=index)], [public(key)], DIGEST, NAME) == ""
    assert problem([proof(key, digest_of(index), index=index)], [public(key)], OTHER, NAME) != ""
    assert problem([proof(key, digest_of(index), index=b"{}")], [public(key)], DIGEST, NAME) != ""


@pytest.mark.parametrize("document", [b"", b"{}", b"[" * 100_000, b'{"critical": 7}', b"\xff"])
def test_what_is_signed_may_be_anything(document: bytes) -> None:
    key = new_key()
    strange = ImageProof(payload=document, signature=sign(key, document))
    assert problem([strange], [public(key)], DIGEST, NAME) != ""


def test_what_is_no_key_verifies_nothing() -> None:
    for text in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "\0"):
        assert not verify(text, b"x", b"y")
        assert key_problem(text)


def details(**changes: object) -> ImageDetails:
    name = str(changes.pop("name", NAME))
    given = {"digest": DIGEST, "created": "2026-05-01T00:00:00Z", "user": "1000", "reference": parse(name), **changes}
    return ImageDetails(name=name, **given)  # type: ignore[arg-type]


CASES: dict[str, tuple[ImagePolicy, ImageDetails, str]] = {
    "any, where nothing is said": (ImagePolicy(), details(), ""),
    "of an allowed registry": (ImagePolicy(registries=("registry.example",)), details(), ""),
    "of an allowed repository": (ImagePolicy(registries=("registry.example/team/*",)), details(), ""),
    "of another registry": (
        ImagePolicy(registries=("docker.io/library/*",)),
        details(),
        "it is from registry.example/team/app",
    ),
    "whose name begins alike": (
        ImagePolicy(registries=("registry.example",)),
        details(name="registry.example.evil.test/a:1"),
        "it is from registry.example.evil.test/a",
    ),
    "an ID without a name": (
        ImagePolicy(registries=("x.test",)),
        details(name="sha256:" + "c" * 64, reference=None),
        "it is from",
    ),
    "latest": (ImagePolicy(latest=False), details(name="nginx"), "its tag is latest"),
    "no latest": (ImagePolicy(latest=False), details(), ""),
    "root": (ImagePolicy(root=False), details(user=""), "it runs as root"),
    "root by its number": (ImagePolicy(root=False), details(user="00:7"), "it runs as 00:7"),
    "not root": (ImagePolicy(root=False), details(), ""),
    "too old": (ImagePolicy(max_age_s=parse_age("4w")), details(), "it is 31 days old, and the policy allows 28"),
    "young enough": (ImagePolicy(max_age_s=parse_age("32d")), details(), ""),
    "of no known age": (ImagePolicy(max_age_s=parse_age("32d")), details(created="long ago"), "it does not say when"),
    "without a lock": (ImagePolicy(locked=True), details(), "no entry in stack.lock"),
    "altered": (ImagePolicy(latest=False), details(damage="its document was altered"), "altered"),
    "whose signature is asked for": (ImagePolicy(signed=(SigningRule(keys=(public(new_key()),)),)), details(), "not signed"),
    "whose signature is not asked for": (ImagePolicy(signed=(SigningRule(images=("docker.io/*",)),)), details(), ""),
}


@pytest.mark.parametrize(("policy", "image", "expected"), CASES.values(), ids=CASES)
def test_an_image(policy: ImagePolicy, image: ImageDetails, expected: str) -> None:
    found = problems(image, policy, (), None, NOW)
    assert (len(found) == 1 and expected in found[0]) if expected else found == []


def test_a_lock_names_the_content_of_each_platform() -> None:
    lock = (Locked(image=NAME, digests=(("linux/amd64", DIGEST),)),)
    assert problems(details(), ImagePolicy(), (), lock, NOW) == []
    assert "stack.lock has" in problems(details(digest=OTHER), ImagePolicy(), (), lock, NOW)[0]
    assert "no entry" in problems(details(name="other:1"), ImagePolicy(), (), lock, NOW)[0]
    assert problems(details(digest=OTHER), ImagePolicy(), (), None, NOW) == []


def test_only_what_a_key_of_ours_signed_is_kept_and_carried() -> None:
    key, stranger = new_key(), new_key()
    mine = [proof(key, name=f"registry.example/{n}") for n in range(20)]
    kept = verified([*[proof(stranger, name=f"registry.example/{n}") for n in range(50)], *mine, *mine], [public(key)])
    assert kept == mine[:KEPT]
    assert verified(mine, []) == []


def store_of(folder: Path, name: str) -> tuple[ImageStore, str]:
    """A node's store with one image of that name, and its manifest's digest."""
    store = ImageStore(Paths(root=folder, run=folder / "run", tag="abcd"))
    blobs = {path: data for path, data in layout([tar_of({"a": b"x"})]).items() if path.startswith("blobs/")}
    for data in blobs.values():
        store.put_blob(data)
    digest = next(digest_of(data) for data in blobs.values() if b"schemaVersion" in data)
    store.tag(parse(name), digest)
    return store, digest


def test_a_signature_that_came_along_is_enough_and_is_remembered(tmp_path: Path) -> None:
    key, name = new_key(), "127.0.0.1:1/team/app:1"  # nobody listens there
    store, digest = store_of(tmp_path, name)
    policy = ImagePolicy(signed=(SigningRule(keys=(public(key),)),))

    def verdict(*proofs: ImageProof) -> Verdict:
        trust = ImageTrust(policy=policy, proofs=tuple((digest, p) for p in proofs))
        return asyncio.run(Trust(store, Settings()).verdicts([WantedImage(name=name)], trust))[0]

    unknown = verdict(proof(new_key(), digest, "127.0.0.1:1/team/app"))
    assert "the policy asks for a signature: it is not signed" in unknown.problems
    assert any("could not be asked for signatures" in p for p in unknown.problems)
    assert unknown.proofs == ()
    mine = proof(key, digest, "127.0.0.1:1/team/app")
    assert verdict(mine) == Verdict(name=name, digest=digest, proofs=(mine,))
    assert verdict().problems == ()  # after a restart without a registry, and without the control plane
    blob = store.blob(digest)
    blob.write_bytes(blob.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion":  2'))
    assert "was altered on this node" in verdict(mine).problems[0]


def test_who_is_root() -> None:
    assert [u for u in ("", "root", "0", "0:0", "root:staff", "000", "1000", "app", "10", "rooty") if is_root(u)] == [
        "",
        "root",
        "0",
        "0:0",
        "root:staff",
        "000",
    ]
