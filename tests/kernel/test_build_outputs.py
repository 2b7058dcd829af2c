"""What `pystack build` makes beside an image of the node: archives, files, caches, attestations; where; SSH agents."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builds import Node
from tests.conftest import Pystack, Stack, cluster_of
from tests.kernel.test_registry import registry
from tests.registry_server import HOST

__all__ = ("registry",)  # a fixture
pytestmark = pytest.mark.kernel
DOCKERFILE = """FROM busybox AS base
RUN head -c 16 /dev/urandom | sha256sum > /random
FROM busybox
COPY --from=base /random /copied
RUN cat /copied > /again && chmod 640 /again && ln -s /again /link
"""
ALONE = """FROM busybox
RUN head -c 16 /dev/urandom | sha256sum > /copied
RUN cat /copied > /again
"""


def project(stack: Stack, build: str = "", more: str = "", dockerfile: str = DOCKERFILE) -> None:
    (stack.directory / "app").mkdir(exist_ok=True)
    (stack.directory / "app/Dockerfile").write_text(dockerfile)
    stack.write(f"services:\n  a:\n    image: {HOST}/{stack.name}:1\n    build: {{context: ./app{build}}}\n{more}")


def forgotten(stack: Stack) -> None:
    """The node has neither the image nor a step of its build."""
    node = Node(f"{stack.pystack.environment['PYSTACK_ROOT']}/run/docker.sock")
    stack.pystack("image", "rm", f"{HOST}/{stack.name}:1", check=False)
    assert node.ask("POST", "/build/prune?all=1")[0] == 200


def built(stack: Stack, *words: str) -> str:
    return stack.pystack("-f", str(stack.file), "build", *words).stderr


def files_of(stack: Stack) -> dict[str, bytes]:
    out = stack.directory / "tree"
    shutil.rmtree(out, ignore_errors=True)
    built(stack, "-o", str(out))
    return {name: (out / name).read_bytes() for name in ("copied", "again")}


def test_a_result_as_files_and_as_archives(stack: Stack) -> None:
    project(stack)
    out = stack.directory / "out"
    built(stack, "-o", str(out / "tree"), "-o", f"type=tar,dest={out}/files.tar")
    assert (out / "tree/again").read_bytes() == (out / "tree/copied").read_bytes()
    assert (out / "tree/again").stat().st_mode & 0o777 == 0o640
    assert str((out / "tree/link").readlink()) == "/again"
    with tarfile.open(out / "files.tar") as archive:
        assert archive.extractfile("again").read() == (out / "tree/again").read_bytes()  # type: ignore[union-attr]
    for kind in ("oci", "docker"):
        built(stack, "-o", f"type={kind},dest={out}/{kind}.tar", "--annotation", "a.b=c")
        with tarfile.open(out / f"{kind}.tar") as archive:
            index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
            digest = index["manifests"][0]["digest"][7:]
            manifest = json.load(archive.extractfile(f"blobs/sha256/{digest}"))  # type: ignore[arg-type]
            assert manifest["annotations"] == {"a.b": "c"}
    done = stack.pystack("-f", str(stack.file), "build", "-o", "type=nothing,dest=x", check=False)
    assert done.returncode == 1
    assert "known" in done.stderr
    node = Node(f"{stack.pystack.environment['PYSTACK_ROOT']}/run/docker.sock")
    assert node.ask("GET", "/pystack/build/outputs/..")[0] == 404
    assert not list((Path(stack.pystack.environment["PYSTACK_ROOT"]) / "build/outputs").iterdir())


@pytest.mark.parametrize("kind", ["registry", "local", "inline"])
def test_steps_come_from_a_cache_elsewhere(stack: Stack, registry: str, kind: str) -> None:
    where = {
        "registry": (f"type=registry,ref={HOST}/{stack.name}:cache", f"type=registry,mode=max,ref={HOST}/{stack.name}:cache"),
        "local": ("type=local,src=steps", "type=local,mode=max,dest=steps"),
        "inline": (f"{HOST}/{stack.name}:1", "type=inline"),
    }[kind]
    text = DOCKERFILE if kind != "inline" else ALONE  # an inline cache has the steps of the image's own layers
    project(stack, f", cache_from: ['{where[0]}'], cache_to: ['{where[1]}']", dockerfile=text)
    with contextlib.chdir(stack.directory):
        built(stack, "--push")
        before = files_of(stack)
        forgotten(stack)
        said = built(stack)
        assert said.count("Using cache") == (3 if kind != "inline" else 2), said
        assert files_of(stack) == before
        if kind == "inline":
            forgotten(stack)
            project(stack, dockerfile=text)
            built(stack)
            assert files_of(stack) != before


def ask(lab: Pystack, path: str, kind: str = "application/vnd.oci.image.index.v1+json") -> dict[str, Any]:
    """A document of the registry."""
    said = lab.on("outside", "curl", "-s", "-H", f"Accept: {kind}", f"http://{HOST}/v2/{path}")
    found: dict[str, Any] = json.loads(said)
    return found


def test_attestations_go_along_to_the_registry(lab: Pystack, stack: Stack, registry: str) -> None:
    project(stack, ", provenance: mode=max, sbom: true, args: {A: value}")
    built(stack, "--push")
    index = ask(lab, f"{stack.name}/manifests/1")
    image, aside = index["manifests"]
    assert aside["annotations"]["vnd.docker.reference.digest"] == image["digest"]
    assert aside["platform"] == {"architecture": "unknown", "os": "unknown"}
    manifest = ask(lab, f"{stack.name}/manifests/{aside['digest']}", "application/vnd.oci.image.manifest.v1+json")
    statements = [ask(lab, f"{stack.name}/blobs/{layer['digest']}") for layer in manifest["layers"]]
    kinds = {s["predicateType"]: s for s in statements}
    assert set(kinds) == {"https://slsa.dev/provenance/v1", "https://spdx.dev/Document"}
    definition = kinds["https://slsa.dev/provenance/v1"]["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["request"]["args"] == {"A": "value"}
    assert definition["resolvedDependencies"][0]["uri"].startswith("pkg:docker/busybox")
    assert statements[0]["subject"][0]["digest"] == {"sha256": image["digest"][7:]}
    forgotten(stack)
    lab("image", "pull", f"{HOST}/{stack.name}:1")
    assert "/again" in lab("container", "run", "--rm", f"{HOST}/{stack.name}:1", "ls", "-l", "/link").stdout


def test_an_ssh_agent_of_the_client_reaches_run(stack: Stack) -> None:
    """ssh-add of this host, with its libraries, speaks to an agent of this host from inside of the build."""
    program = shutil.which("ssh-add")
    if not program or not shutil.which("ssh-agent"):
        pytest.skip("there is no ssh-agent")
    project(stack, dockerfile="FROM busybox\nCOPY root /\nRUN --mount=type=ssh,required=true ssh-add -l && ssh-add -l\n")
    needed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for path in (program, *(word for word in needed.split() if word.startswith("/"))):
        copy = stack.directory / "app/root" / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    key, at = stack.directory / "key", str(stack.directory / "agent.sock")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of a test", "-f", str(key)], check=True)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", at], stdout=subprocess.DEVNULL)
    try:
        while not Path(at).exists():
            assert agent.poll() is None
        subprocess.run(["ssh-add", "-q", str(key)], env=os.environ | {"SSH_AUTH_SOCK": at}, check=True)
        assert built(stack, "--ssh", f"default={at}").count("of a test") == 2
        done = stack.pystack("-f", str(stack.file), "build", "--no-cache", check=False)
        assert "no agent default came with the build" in done.stderr
        done = stack.pystack("-f", str(stack.file), "build", "--ssh", "default=/none", check=False)
        assert "no agent answers at /none" in done.stderr
    finally:
        agent.terminate()
        agent.wait(10)


@pytest.fixture
def pair() -> Iterator[Pystack]:
    with cluster_of(2) as lab:
        lab("node", "label", "n2", "builds=yes")
        yield lab


def test_a_service_is_built_on_the_node_that_is_for_builds(pair: Pystack, tmp_path: Path) -> None:
    at = f"{pair.environment['PYSTACK_ROOT']}/run/pystack.sock"
    body = json.dumps({"image": "busybox", "to": "n2"})
    pair.on("n1", "curl", "-sf", "--unix-socket", at, "-d", body, "http://server/v1/nodes/n1/ship")
    stack = Stack(pair, tmp_path)
    project(
        stack,
        more="    x-build: {node: builds}\n    command: sleep 1000\n    stop_grace_period: 0s\n"
        "    deploy: {placement: {constraints: [node.hostname == n1]}}\n",
    )
    try:
        stack.up("", "--build")
        assert len(stack.exec("a", "cat", "/again")) > 40
        root = Path(pair.environment["PYSTACK_ROOT"])
        steps = {name: set((root.parent / name / "build/cache").glob("*.json")) for name in ("n1", "n2")}
        built(stack, "--no-cache", "--on", "n2")
        assert steps["n1"] == set((root.parent / "n1/build/cache").glob("*.json"))
        assert steps["n2"] < set((root.parent / "n2/build/cache").glob("*.json"))
        done = pair("-f", str(stack.file), "build", "--on", "nowhere", check=False)
        assert "no node has this name or label" in done.stderr
    finally:
        stack.down()
