"""SELinux: what a kernel that enforces makes of the labels of containers. `bash tests/vm/selinux` makes a machine with one.

Each refusal has its twin that is allowed, so that a policy which forbids all would not pass.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from agent.trees.relabel import ATTRIBUTE
from tests.conftest import Stack

ENFORCE = Path("/sys/fs/selinux/enforce")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not ENFORCE.exists() or ENFORCE.read_text() != "1", reason="no SELinux that enforces: tests/vm/selinux makes one"
    ),
]
FILE = """
x-base: &base {{image: busybox, command: sleep 100000, stop_signal: SIGKILL}}
services:
  a:
    <<: *base
    volumes: ["{folder}/plain:/plain", "{folder}/shared:/shared:z", "{folder}/a:/own:Z", "data:/data"]
  b:
    <<: *base
    depends_on: [a]
    volumes: ["{folder}/a:/others", "{folder}/shared:/shared:z", "{folder}/b:/own:Z", "data:/data"]
  free:
    <<: *base
    depends_on: [a]
    security_opt: [label=disable]
    volumes: ["{folder}/plain:/plain", "{folder}/a:/others"]
volumes: {{data: {{}}}}
"""


@pytest.fixture
def folder(stack: Stack) -> Path:
    """Four folders of the host with a file each, all labelled as what lies in /etc."""
    made = stack.directory / "folders"
    for name in ("plain", "shared", "a", "b"):
        (made / name).mkdir(parents=True)
        (made / name / "file").write_text(f"{name}\n")
        for path in (made / name, made / name / "file"):
            os.setxattr(path, ATTRIBUTE, b"system_u:object_r:etc_t:s0")
    return made


def label(path: Path) -> str:
    return os.getxattr(path, ATTRIBUTE).rstrip(b"\0").decode()


def refused(stack: Stack, service: str, *command: str) -> bool:
    done = stack.run("exec", "-T", service, *command, check=False)
    assert done.returncode == 0 or "Permission denied" in done.stderr + done.stdout, done.stderr
    return done.returncode != 0


def test_each_container_reads_what_is_its_own_and_what_is_shared(stack: Stack, folder: Path) -> None:
    stack.up(FILE.format(folder=folder))
    contexts = {s: stack.exec(s, "cat", "/proc/self/attr/current").rstrip("\0\n") for s in ("a", "b", "free")}
    pairs = [re.fullmatch(r"system_u:system_r:container_t:(s0:c\d+,c\d+)", contexts[s]) for s in ("a", "b")]
    assert pairs[0], contexts
    assert pairs[1], contexts
    assert pairs[0][1] != pairs[1][1]
    assert "container_t" not in contexts["free"]
    shared = "system_u:object_r:container_file_t:s0"
    assert label(folder / "shared/file") == shared
    assert label(folder / "a/file") == f"system_u:object_r:container_file_t:{pairs[0][1]}"
    assert label(folder / "plain/file") == "system_u:object_r:etc_t:s0"
    # a file of the host: of whose label the policy says nothing, and after :z
    assert refused(stack, "a", "cat", "/plain/file")
    assert stack.exec("a", "cat", "/shared/file") == stack.exec("b", "cat", "/shared/file") == "shared\n"
    # a folder of one container alone
    assert stack.exec("a", "cat", "/own/file") == "a\n"
    assert stack.exec("b", "cat", "/own/file") == "b\n"
    assert refused(stack, "b", "cat", "/others/file")
    assert refused(stack, "b", "sh", "-c", "echo x > /others/new")
    # a volume is everybody's
    stack.exec("a", "sh", "-c", "echo kept > /data/file")
    assert stack.exec("b", "cat", "/data/file") == "kept\n"
    # what is not confined
    assert stack.exec("free", "cat", "/plain/file") == "plain\n"
    assert stack.exec("free", "cat", "/others/file") == "a\n"
    # its own root, memory and files in /etc
    for path in ("/made", "/dev/shm/made", "/etc/hosts"):
        stack.exec("a", "sh", "-c", f"echo x >> {path} && cat {path}")
    messages = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    denials = [line for line in messages.splitlines() if "avc:  denied" in line and ":container_t:" in line]
    print("\n".join(denials[-12:]))
    assert any("{ read }" in line and ":etc_t:" in line for line in denials)
    assert any(f"container_file_t:{pairs[0][1]}" in line and f"container_t:{pairs[1][1]}" in line for line in denials)


def test_labels_last_as_long_as_the_container(stack: Stack, folder: Path) -> None:
    stack.up(FILE.format(folder=folder))
    before = stack.exec("a", "cat", "/proc/self/attr/current")
    stack.run("restart", "a")
    assert stack.exec("a", "cat", "/proc/self/attr/current") == before
    assert stack.exec("a", "cat", "/own/file") == "a\n"


def test_a_type_that_the_policy_does_not_have_is_refused(stack: Stack) -> None:
    done = stack.up(
        "services: {a: {image: busybox, command: sleep 9, security_opt: ['label=type:nobody_knows_t']}}", check=False
    )
    assert done.returncode == 1
    assert "does not know system_u:system_r:nobody_knows_t" in done.stderr


def test_a_directory_of_the_system_is_not_labelled(stack: Stack) -> None:
    before = label(Path("/etc"))
    done = stack.up("services: {a: {image: busybox, command: sleep 9, volumes: ['/etc:/x:Z']}}", check=False)
    assert done.returncode == 1
    assert "SELinux relabeling of /etc is not allowed" in done.stderr
    assert label(Path("/etc")) == before
