"""Pulls from a real registry, Debian's docker-registry, that runs on the lab's `outside` machine."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack
from tests.images import archive, tar_of

pytestmark = pytest.mark.kernel
HOST = "10.99.0.254:5000"


@pytest.fixture(scope="module")
def registry(lab: Pystack) -> Iterator[str]:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: run `make setup`")
    root = Path(lab.environment["PYSTACK_ROOT"])
    config = root / "registry.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}/registry}}}}\nhttp: {{addr: {HOST}}}\n"
                      "log: {level: error}\n")
    (root / "config.yml").write_text(f"registries: {{'{HOST}': {{insecure: true}}, docker.io: {{mirrors: ['http://{HOST}']}}}}\n")
    lab("lab", "fault", "--name", lab.lab, "kill", "n1", "agent")
    process = subprocess.Popen(
        ["nsenter", "-t", _pid(lab), "-n", program, "serve", str(config)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(200):
        if lab.on("outside", "busybox", "wget", "-qO-", f"http://{HOST}/v2/", check=False) == "{}":
            break
        time.sleep(0.02)
    yield HOST
    process.kill()
    process.wait()


def _pid(lab: Pystack) -> str:
    import json

    path = Path(f"/var/lib/pystack-lab/{lab.lab}/lab.json")
    return str(json.loads(path.read_text())["machines"]["outside"]["pid"])


@pytest.mark.parametrize("compress", ["gzip", "zstd", "none"])
def test_push_and_pull(lab: Pystack, registry: str, tmp_path: Path, compress: str) -> None:
    name = f"{registry}/some/{compress}:1"
    layers = [tar_of({"a": b"one" * 1000}), tar_of({"b": compress.encode()})]
    path = archive(tmp_path / "i.tar", layers, name=name, compress=compress)
    for _ in range(100):
        if lab("image", "load", "-i", str(path), check=False).returncode == 0:
            break
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


def test_a_tag_that_is_not_there(lab: Pystack, registry: str) -> None:
    done = lab("image", "pull", f"{registry}/nothing:9", check=False)
    assert done.returncode == 1
    assert "does not exist" in done.stderr
