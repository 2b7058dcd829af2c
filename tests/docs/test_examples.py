"""The examples' files are read without a warning, and what is given to machines is what their programs read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from orchestrator.stackfile.load import Options, load

ROOT = Path(__file__).parents[2]
STACKS = sorted((ROOT / "examples").rglob("stack.yml"))


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.parent.name)
def test_a_stack_is_read_without_a_warning(path: Path, tmp_path: Path) -> None:
    copied = tmp_path / path.parent.name
    shutil.copytree(path.parent, copied)
    (copied / "build").mkdir(exist_ok=True)
    for name in ("password", "cert.pem", "key.pem"):
        (copied / "build" / name).touch()
    assert [str(w) for w in load(Options(files=(str(copied / "stack.yml"),)), {}).warnings] == []


def test_cloud_init_installs_what_a_node_needs() -> None:
    text = (ROOT / "examples/hosts/cloud-init.yml").read_text()
    assert text.startswith("#cloud-config\n")
    assert {"runc", "conmon", "nftables", "python3"} <= set(yaml.safe_load(text)["packages"])


def test_an_inventory_adds_what_is_missing_and_labels_the_rest(tmp_path: Path) -> None:
    """The script's own calls are what is looked at; what they do is `tests/kernel/test_cluster.py`'s."""
    said = tmp_path / "said"
    program = tmp_path / "pystack"
    program.write_text(f'#!/bin/sh\necho "$*" >> {said}\n[ "$2" != ls ] || echo n2\n')
    program.chmod(0o755)
    folder = ROOT / "examples/hosts"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", folder / "add", folder / "inventory.txt"], env=environment, check=True)
    assert said.read_text().splitlines() == [
        "node ls --format {{.name}}",
        "node add root@10.0.0.2 --name n1 --label zone=a --label disk=ssd",
        "node label n2 zone=b",
        "node add root@node3.lan --name n3",
    ]
