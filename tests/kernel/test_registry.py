"""Pulls from a real registry, Debian's docker-registry, that runs on the lab's `outside` machine."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, eventually
from tests.images import archive, busybox_rootfs, tar_of
from tests.registry_server import HOST, registry_at

pytestmark = pytest.mark.kernel
LOCKED = "10.99.0.254:5001"


@pytest.fixture(scope="module")
def registry(lab: Pystack) -> Iterator[str]:
    """An open registry, and beside it on LOCKED one that asks for a name and a password."""
    root = Path(lab.environment["PYSTACK_ROOT"])
    # htpasswd entry of user `someone`, password `secret` (bcrypt)
    (root / "htpasswd").write_text("someone:$2y$05$G21XTJjm0ICgtNZFFSwJeOLJFkGuQgKBDDdvNOfD9AvVrc5p6nfsy\n")
    (root / "config.yml").write_text(
        f"registries: {{'{HOST}': {{insecure: true}}, '{LOCKED}': {{insecure: true}},\n"
        f"  docker.io: {{mirrors: ['http://{HOST}']}}}}\ndocker_config: {root}/docker-config\n"
    )
    with registry_at(lab, HOST, LOCKED, more={LOCKED: f"auth: {{htpasswd: {{realm: x, path: {root}/htpasswd}}}}\n"}):
        lab("lab", "fault", "--name", lab.lab, "kill", "n1", "agent")
        for _ in range(100):  # the agent comes back with its new settings
            if lab("image", "ls", check=False).returncode == 0:
                break
        yield HOST


@pytest.mark.parametrize("compress", ["gzip", "zstd", "none"])
def test_push_and_pull(lab: Pystack, registry: str, tmp_path: Path, compress: str) -> None:
    name = f"{registry}/some/{compress}:1"
    layers = [tar_of({"a": b"one" * 1000}), tar_of({"b": compress.encode()})]
    path = archive(tmp_path / "i.tar", layers, name=name, compress=compress)
    lab("image", "load", "-i", str(path))
    lab("image", "push", name)
    lab("image", "rm", name)
    assert "Digest: sha256:" in lab("image", "pull", name).stderr
    assert name in lab("image", "ls").stdout


def test_a_name_of_the_hub_comes_through_the_mirror(lab: Pystack, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/library/mirrored:1"
    path = archive(tmp_path / "i.tar", [tar_of({"a": b"x"})], name=name)
    lab("image", "load", "-i", str(path))
    lab("image", "push", name)
    lab("image", "pull", "mirrored:1")
    assert "mirrored:1" in lab("image", "ls").stdout


def test_what_a_stack_builds_is_pushed_with_all_its_tags(stack: Stack, registry: str) -> None:
    (stack.directory / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    stack.write(f"""
services:
  a: {{image: {registry}/built:1, build: {{context: ., tags: ["{registry}/built:also"]}}}}
  b: {{build: .}}
  c: {{image: {registry}/not-ours:1}}
""")
    stack.run("build")
    said = stack.run("push").stderr
    assert f"{registry}/built:1: " in said
    assert "not-ours" not in said
    for tag in ("1", "also"):
        stack.pystack("image", "rm", f"{registry}/built:{tag}")
        stack.pystack("image", "pull", f"{registry}/built:{tag}")
    assert "nothing to push" in stack.run("push", "b").stderr
    assert "no such service: d" in stack.run("push", "d", check=False).stderr
    stack.write(f"""
services:
  a: {{image: "10.99.0.254:4999/built:1", build: .}}
  b: {{image: "{registry}/b:1", build: .}}
""")
    stack.run("build")
    assert stack.run("push", check=False).returncode == 1
    assert f"{registry}/b:1: " in stack.run("push", "--ignore-push-failures").stderr


def test_a_tag_that_is_not_there(lab: Pystack, registry: str) -> None:
    done = lab("image", "pull", f"{registry}/nothing:9", check=False)
    assert done.returncode == 1
    assert "manifest unknown" in done.stderr


def _put(lab: Pystack, repository: str, path: str, content: bytes, kind: str) -> None:
    """Upload a blob or a manifest as any registry client does."""
    address = f"http://{HOST}/v2/{repository}"
    file = Path(lab.environment["PYSTACK_ROOT"]) / "upload"
    file.write_bytes(content)
    if path.startswith("sha256:"):
        begin = lab.on("outside", "curl", "-sf", "-X", "POST", "-D", "-", f"{address}/blobs/uploads/")
        location = next(line.split(": ", 1)[1] for line in begin.splitlines() if line.lower().startswith("location"))
        joint = "&" if "?" in location else "?"
        lab.on(
            "outside",
            "curl",
            "-sf",
            "-X",
            "PUT",
            "--data-binary",
            f"@{file}",
            "-H",
            "Content-Type: application/octet-stream",
            f"{location}{joint}digest={path}",
        )
    else:
        lab.on(
            "outside",
            "curl",
            "-sf",
            "-X",
            "PUT",
            "--data-binary",
            f"@{file}",
            "-H",
            f"Content-Type: {kind}",
            f"{address}/manifests/{path}",
        )


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_the_right_one_of_many_platforms_in_dockers_own_format(lab: Pystack, registry: str) -> None:
    docker = "application/vnd.docker.distribution.manifest"
    entries = []
    for architecture in ("arm64", "amd64"):
        layer = tar_of({"platform": architecture.encode()})
        packed = gzip.compress(layer, 1, mtime=0)
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Cmd": ["x"], "Labels": {"for": architecture}},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
                "history": [{"created_by": "here"}],
            }
        ).encode()
        for blob in (packed, config):
            _put(lab, "multi", _digest(blob), blob, "")
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{docker}.v2+json",
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "digest": _digest(config),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "digest": _digest(packed),
                        "size": len(packed),
                    }
                ],
            }
        ).encode()
        _put(lab, "multi", _digest(manifest).replace("sha256:", "t"), manifest, f"{docker}.v2+json")
        entries.append(
            {
                "mediaType": f"{docker}.v2+json",
                "digest": _digest(manifest),
                "size": len(manifest),
                "platform": {"architecture": architecture, "os": "linux"},
            }
        )
    many = json.dumps({"schemaVersion": 2, "mediaType": f"{docker}.list.v2+json", "manifests": entries}).encode()
    _put(lab, "multi", "1", many, f"{docker}.list.v2+json")
    lab("image", "pull", f"{registry}/multi:1")
    (seen,) = lab.json("image", "inspect", f"{registry}/multi:1")
    assert seen["Config"]["Labels"] == {"for": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]}


def test_credentials_come_from_dockers_config_and_from_a_helper(lab: Pystack, registry: str, tmp_path: Path) -> None:
    open_name, name = f"{registry}/locked:1", f"{LOCKED}/locked:1"
    lab("image", "load", "-i", str(archive(tmp_path / "i.tar", [tar_of({"a": b"x"})], name=open_name)))
    lab("image", "push", open_name)
    folder = Path(lab.environment["PYSTACK_ROOT"]) / "docker-config"
    folder.mkdir()
    refused = lab("image", "pull", name, check=False)
    assert refused.returncode == 1
    assert "401" in refused.stderr or "credentials" in refused.stderr
    word = base64.b64encode(b"someone:secret").decode()
    (folder / "config.json").write_text(json.dumps({"auths": {LOCKED: {"auth": word}}}))
    lab("image", "pull", name)
    lab("image", "rm", name)
    helper = Path("/usr/local/bin") / f"docker-credential-{lab.lab}"
    helper.write_text(
        '#!/bin/sh\nread host\n[ "$1 $host" = "get ' + LOCKED + '" ] && '
        'echo \'{"ServerURL":"x","Username":"someone","Secret":"secret"}\'\n'
    )
    helper.chmod(0o755)
    try:
        (folder / "config.json").write_text(json.dumps({"credHelpers": {LOCKED: lab.lab}}))
        lab("image", "pull", name)
    finally:
        helper.unlink()
    (folder / "config.json").write_text("{")
    broken = lab("image", "pull", name, check=False)
    assert "config.json" in broken.stderr


def test_the_logins_of_who_asks_are_used_and_not_kept(lab: Pystack, registry: str, tmp_path: Path) -> None:
    """The server's host is logged in nowhere: `pull`, `up`, a build's base and `push` go by the user's own config.json."""
    open_name, name = f"{registry}/mine:1", f"{LOCKED}/mine:1"
    lab("image", "load", "-i", str(archive(tmp_path / "i.tar", [busybox_rootfs()], name=open_name)))
    lab("image", "push", open_name)
    lab("image", "rm", open_name)
    folder = Path(lab.environment["PYSTACK_ROOT"]) / "docker-config"
    (folder / "config.json").unlink(missing_ok=True)
    stack = Stack(lab, tmp_path)
    stack.write(f"services:\n  a: {{image: '{name}', command: sleep 1000, stop_signal: SIGKILL}}\n")
    refused = stack.run("up", check=False)
    assert refused.returncode == 1
    assert "401" in refused.stderr or "credentials" in refused.stderr
    own = tmp_path / "own"
    own.mkdir()
    word = base64.b64encode(b"someone:secret").decode()
    (own / "config.json").write_text(json.dumps({"auths": {f"https://{LOCKED}/v2/": {"auth": word}, "other.example": {}}}))
    lab.environment["DOCKER_CONFIG"] = str(own)
    try:
        stack.run("up")
        stack.run("down")
        lab("image", "rm", name)
        lab("image", "pull", name)
        lab("image", "push", name)
        lab("image", "rm", name)
        (tmp_path / "context").mkdir()
        (tmp_path / "context" / "Dockerfile").write_text(f"FROM {name}\nRUN echo 1 > /1\n")
        stack.write(f"services:\n  a: {{image: '{stack.name}:1', build: context}}\n")
        stack.run("build")
        lab("image", "rm", name, check=False)
    finally:
        del lab.environment["DOCKER_CONFIG"]
    stack.write(f"services:\n  a: {{image: '{name}', command: sleep 1000}}\n")
    assert stack.run("up", check=False).returncode == 1  # nothing kept what the user sent
    found = subprocess.run(["grep", "-rl", word, lab.environment["PYSTACK_ROOT"]], capture_output=True, text=True, check=False)
    assert found.stdout == ""


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no `docker` client on PATH")
def test_a_service_of_swarms_clients_is_pulled_with_their_login(lab: Pystack, registry: str, tmp_path: Path) -> None:
    open_name, name = f"{registry}/swarms:1", f"{LOCKED}/swarms:1"
    lab("image", "load", "-i", str(archive(tmp_path / "i.tar", [busybox_rootfs()], name=open_name)))
    lab("image", "push", open_name)
    word = base64.b64encode(b"someone:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {LOCKED: {"auth": word}}}))
    docker = ["docker", "--config", str(tmp_path), "-H", f"unix://{lab.environment['PYSTACK_ROOT']}/run/swarm.sock", "service"]
    create = ["create", "-d", "--name", "private", "--with-registry-auth", name, "sleep", "1000"]
    done = subprocess.run([*docker, *create], capture_output=True, text=True, check=False)
    try:
        assert done.returncode == 0, done.stderr

        def runs() -> None:
            row = subprocess.run([*docker, "ps", "private"], capture_output=True, text=True, check=False)
            assert "Running" in row.stdout, row

        eventually(runs, 20)
        stacks = subprocess.run([*docker[:-1], "stack", "ls", "-q"], capture_output=True, text=True, check=False)
        assert "services" not in stacks.stdout
        scaled = subprocess.run([*docker, "scale", "-d", "private=2"], capture_output=True, text=True, check=False)
        assert scaled.returncode == 0, scaled.stderr
    finally:
        gone = subprocess.run([*docker, "rm", "private"], capture_output=True, text=True, check=False)
    assert gone.returncode == 0, gone.stderr


def test_policies_ask_again_when_the_last_pull_is_old(lab: Pystack, registry: str, tmp_path: Path) -> None:
    """`daily` leaves a fresh image alone; `every_…` takes the registry's newer one once the time is over."""
    name = f"{registry}/some/aging:1"

    def publish(content: str) -> None:
        path = archive(tmp_path / f"{content}.tar", [busybox_rootfs(), tar_of({"word": content.encode()})], name=name)
        lab("image", "load", "-i", str(path))
        lab("image", "push", name)
        lab("image", "rm", name)

    stack = Stack(lab, tmp_path)
    text = f"services: {{a: {{image: '{name}', command: sleep 1000, stop_signal: SIGKILL, pull_policy: %s}}}}"
    publish("old")
    try:
        stack.up(text % "daily")
        assert stack.exec("a", "cat", "/word") == "old"
        other = archive(tmp_path / "side.tar", [busybox_rootfs(), tar_of({"word": b"new"})], name=f"{registry}/some/side:1")
        lab("image", "load", "-i", str(other))
        # the same name gets new content at the registry, behind this node's back
        lab("image", "push", f"{registry}/some/side:1")
        manifest = lab.on(
            "outside",
            "curl",
            "-s",
            "-H",
            "Accept: application/vnd.oci.image.manifest.v1+json",
            f"http://{registry}/v2/some/side/manifests/1",
        )
        for digest in [d["digest"] for d in (json.loads(manifest)["config"], *json.loads(manifest)["layers"])]:
            lab.on(
                "outside",
                "curl",
                "-s",
                "-f",
                "-X",
                "POST",
                f"http://{registry}/v2/some/aging/blobs/uploads/?mount={digest}&from=some/side",
            )
        lab.on(
            "outside",
            "curl",
            "-s",
            "-f",
            "-X",
            "PUT",
            "-H",
            "Content-Type: application/vnd.oci.image.manifest.v1+json",
            "--data-binary",
            manifest,
            f"http://{registry}/v2/some/aging/manifests/1",
        )
        stack.up(text % "daily")
        assert stack.exec("a", "cat", "/word") == "old", "pulled less than a day ago"
        stack.up(text % "every_10ms")
        assert stack.exec("a", "cat", "/word") == "new"
    finally:
        stack.down()


def test_a_policy_that_is_none_is_refused(lab: Pystack, tmp_path: Path) -> None:
    from tests.conftest import Stack

    done = Stack(lab, tmp_path).up("services: {a: {image: busybox, pull_policy: every_blue}}", check=False)
    assert done.returncode == 1
    assert "stack.yml:1:" in done.stderr
