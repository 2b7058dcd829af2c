"""Trusted images with a real registry: refused in the plan, by `up`, and by each node at each start."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.images import archive, busybox_rootfs, tar_of
from tests.registry_server import HOST, registry_at
from tests.signing import Key, Upload, new_key, public, referrers, signature

pytestmark = pytest.mark.kernel
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    """Two nodes, and an open registry on the lab's `outside` machine."""
    with cluster_of(2) as lab, registry_at(lab, HOST):
        configure(lab)
        yield lab


def configure(lab: Pystack, policy: str = "", nodes: tuple[str, ...] = ("n1", "n2")) -> None:
    """Give nodes their settings, and their agents a restart."""
    for node in nodes:
        root = Path(lab.environment["PYSTACK_ROOT"]).parent / node
        (root / "config.yml").write_text(f"registries: {{'{HOST}': {{insecure: true}}}}\n{policy}")
        lab("lab", "fault", "--name", lab.lab, "kill", node, "agent")

    def back() -> None:
        assert lab("image", "ls", check=False).returncode == 0
        rows = json.loads(lab("node", "ls", "--format", "json").stdout)
        assert [r["state"] for r in rows] == ["ready", "ready"]

    eventually(back, 30)


def curl(lab: Pystack, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = ["nsenter", "-t", lab.pid(), "-n", "curl", "-sf", *words]
    return subprocess.run(command, capture_output=True, check=False, timeout=60)


def put_manifest(lab: Pystack, repository: str, target: str, data: bytes, kind: str) -> None:
    path = Path(lab.environment["PYSTACK_ROOT"]) / "upload"
    path.write_bytes(data)
    address = f"http://{HOST}/v2/{repository}/manifests/{target}"
    done = curl(lab, "-X", "PUT", "--data-binary", f"@{path}", "-H", f"Content-Type: {kind}", address)
    assert done.returncode == 0, done.stderr


def put(lab: Pystack, repository: str, upload: Upload) -> None:
    path = Path(lab.environment["PYSTACK_ROOT"]) / "upload"
    for blob in upload.blobs:
        path.write_bytes(blob)
        begin = curl(lab, "-X", "POST", "-D", "-", f"http://{HOST}/v2/{repository}/blobs/uploads/").stdout.decode()
        location = next(line.split(": ", 1)[1] for line in begin.splitlines() if line.lower().startswith("location"))
        joint = "&" if "?" in location else "?"
        goal = f"{location.strip()}{joint}digest=sha256:{hashlib.sha256(blob).hexdigest()}"
        done = curl(lab, "-X", "PUT", "--data-binary", f"@{path}", "-H", "Content-Type: application/octet-stream", goal)
        assert done.returncode == 0, done.stderr
    put_manifest(lab, repository, upload.target, upload.manifest, MANIFEST)


def pushed(lab: Pystack, repository: str, content: str, tag: str = "1") -> str:
    """An image with this *content* is in the registry, and on no node. Returns its manifest's digest."""
    name = f"{HOST}/{repository}:{tag}"
    path = Path(lab.environment["PYSTACK_ROOT"]) / "image.tar"
    archive(path, [busybox_rootfs(), tar_of({"srv/content": content.encode()})], name=name, config={"User": "1000"})
    lab("image", "load", "-i", str(path))
    lab("image", "push", name)
    lab("image", "rm", name)
    head = curl(lab, "-I", "-H", f"Accept: {MANIFEST}", f"http://{HOST}/v2/{repository}/manifests/{tag}").stdout.decode()
    return next(line.split(": ")[1].strip() for line in head.splitlines() if line.lower().startswith("docker-content-digest"))


@pytest.fixture
def key(stack: Stack) -> Key:
    made = new_key()
    (stack.directory / "cosign.pub").write_text(public(made))
    return made


@pytest.fixture
def repository() -> str:
    return f"team/app-{os.urandom(4).hex()}"


def file(repository: str, policy: str = "signed: [{keys: cosign.pub}]", tag: str = "1") -> str:
    return f"""
x-policy: {{{policy}}}
services:
  app:
    image: {HOST}/{repository}:{tag}
    command: sleep 1000
    stop_grace_period: 0s
    deploy: {{mode: global}}
"""


def refused(stack: Stack, *reasons: str) -> None:
    """The plan and `up` say why, and nothing is made."""
    for verb in ("plan", "up"):
        done = stack.run(verb, check=False)
        assert done.returncode == 1, done.stdout
        for reason in reasons:
            assert reason in done.stderr
        assert "stack.yml:" in done.stderr
    assert stack.pystack("ps", "-p", stack.name, check=False).stdout.count(f"{stack.name}-app") == 0


def runs(stack: Stack) -> None:
    assert {row["state"] for row in stack.ps().values()} == {"running"}


@pytest.mark.parametrize("where", ["by tag", "among the referrers"])
def test_a_signed_image_runs_on_every_node(lab: Pystack, stack: Stack, key: Key, repository: str, where: str) -> None:
    digest = pushed(lab, repository, where)
    stack.write(file(repository))
    refused(stack, "it is not signed")
    if where == "by tag":
        put(lab, repository, signature(key, digest, f"{HOST}/{repository}"))
    else:
        made = signature(key, digest, f"{HOST}/{repository}", referrer=True)
        put(lab, repository, made)
        put_manifest(lab, repository, digest.replace(":", "-"), referrers(made.manifest), INDEX)
    stack.up()
    runs(stack)
    assert len(stack.ps()) == 2


def test_a_wrong_signature_is_none(lab: Pystack, stack: Stack, key: Key, repository: str) -> None:
    digest = pushed(lab, repository, "wrongly signed")
    put(lab, repository, signature(new_key(), digest, f"{HOST}/{repository}"))
    stack.write(file(repository))
    refused(stack, "its signature is not by a key that the policy names")
    put(lab, repository, signature(key, "sha256:" + "0" * 64, f"{HOST}/{repository}"))
    put(lab, repository, signature(key, digest, f"{HOST}/team/other")._replace(target=f"{digest.replace(':', '-')}.sig"))
    refused(stack, f"it was signed as {HOST}/team/other, not as {HOST}/{repository}")


def test_an_image_under_anothers_name_is_not_the_one_that_was_signed(
    lab: Pystack, stack: Stack, key: Key, repository: str
) -> None:
    digest = pushed(lab, repository, "signed")
    put(lab, repository, signature(key, digest, f"{HOST}/{repository}"))
    stack.up(file(repository))
    stack.run("down")
    evil = pushed(lab, f"{repository}-evil", "evil")
    lab("image", "pull", f"{HOST}/{repository}-evil:1")
    lab("image", "tag", f"{HOST}/{repository}-evil:1", f"{HOST}/{repository}:1")  # re-tagged on the node
    assert evil != digest
    refused(stack, "it is not signed")
    lab("image", "rm", "-f", f"{HOST}/{repository}:1")
    # and the other way: a signed image by a name that nobody signed it as
    lab("image", "pull", f"{HOST}/{repository}:1")
    lab("image", "tag", f"{HOST}/{repository}:1", f"{HOST}/{repository}-evil:1")
    stack.write(file(f"{repository}-evil"))
    refused(stack, "image ", "is refused")


def test_a_document_that_was_altered_on_a_node_is_noticed_there(lab: Pystack, stack: Stack, key: Key, repository: str) -> None:
    digest = pushed(lab, repository, "altered")
    put(lab, repository, signature(key, digest, f"{HOST}/{repository}"))
    stack.up(file(repository))
    blob = Path(lab.environment["PYSTACK_ROOT"]).parent / "n2" / "images/blobs/sha256" / digest[7:]
    whole = blob.read_bytes()
    blob.write_bytes(whole.replace(b'"schemaVersion": 2', b'"schemaVersion":  2', 1))
    assert blob.read_bytes() != whole
    try:
        lab("container", "ls")
        stack.run("restart", check=False)

        def told() -> None:
            rows = stack.ps()
            assert "was altered on this node" in str(lab("ps", "-p", stack.name).stdout) or rows["app-n2"]["state"] == "failed"
            assert rows["app-n1"]["state"] == "running"

        eventually(told, 20)
    finally:
        blob.write_bytes(whole)


def test_a_lock_holds_a_stack_to_what_it_was_tried_with(lab: Pystack, stack: Stack, repository: str) -> None:
    pushed(lab, repository, "first")
    stack.write(file(repository, "locked: true"))
    refused(stack, "it has no entry in stack.lock")
    said = stack.run("lock").stdout
    assert f"{repository}:1: new: linux/amd64 sha256:" in said
    first = (stack.directory / "stack.lock").read_text()
    assert "unchanged" in stack.run("lock", "--check").stdout
    stack.up()
    runs(stack)
    pushed(lab, repository, "second")
    assert "the tag moved" in stack.run("plan").stderr
    assert stack.run("lock", "--check", check=False).returncode == 1
    assert (stack.directory / "stack.lock").read_text() == first
    lab("image", "pull", f"{HOST}/{repository}:1")
    done = stack.run("up", check=False)
    assert done.returncode == 1
    assert "and stack.lock has sha256:" in done.stderr
    runs(stack)  # what ran goes on
    why = stack.run("why-not", "app").stdout
    assert "✗ image: " in why
    assert "stack.lock" in why
    stack.run("lock")
    stack.up()
    runs(stack)


def test_up_locked_needs_a_lock(stack: Stack) -> None:
    stack.write("services: {app: {image: busybox, command: sleep 1000}}")
    done = stack.run("up", "--locked", check=False)
    assert done.returncode == 1
    assert "`pystack lock` writes it" in done.stderr


def test_a_policy_of_a_node_is_kept_there_whoever_asks(lab: Pystack, stack: Stack, repository: str) -> None:
    pushed(lab, repository, "by hand")
    lab("image", "pull", f"{HOST}/{repository}:1")
    keys = Path(lab.environment["PYSTACK_ROOT"]) / "policy.pub"
    keys.write_text(public(new_key()))
    configure(lab, f"image_policy: {{signed: [{{keys: [{keys}]}}], registries: ['{HOST}']}}\n", nodes=("n1",))
    try:
        done = lab("container", "run", "-d", "--name", "by-hand", f"{HOST}/{repository}:1", "sleep", "1000", check=False)
        assert done.returncode == 1
        assert "the policy asks for a signature: it is not signed" in done.stderr
        lab("container", "rm", "-f", "by-hand", check=False)
        done = lab("container", "run", "-d", "--name", "by-hand", "busybox", "sleep", "1000", check=False)
        assert f"it is from docker.io/library/busybox, and the policy allows {HOST}" in done.stderr
        lab("container", "rm", "-f", "by-hand", check=False)
        stack.write(file(repository, "root: true"))
        refused(stack, "it is not signed")
    finally:
        configure(lab, nodes=("n1",))


@pytest.mark.long
def test_a_run_of_a_schedule_is_held_to_the_lock_too(lab: Pystack, stack: Stack, repository: str) -> None:
    pushed(lab, repository, "first")
    stack.write(f"""
x-policy: {{locked: true}}
services:
  job: {{image: "{HOST}/{repository}:1", command: "true", x-schedule: "@yearly"}}
""")
    stack.run("lock")
    stack.up()
    lab("image", "rm", "-f", f"{HOST}/{repository}:1", check=False)
    pushed(lab, repository, "second")
    lab("image", "pull", f"{HOST}/{repository}:1")
    done = lab("cron", "run", "-f", str(stack.file), "-p", stack.name, "job", check=False)
    assert done.returncode == 1
    assert "stack.lock has" in done.stdout + done.stderr
