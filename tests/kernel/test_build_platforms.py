"""Images for other platforms than the node's, by themselves and several in one build."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builds import Failed, Node
from tests.conftest import Pystack, Stack
from tests.docker_clients import debian_emulator
from tests.kernel.test_build_outputs import ask
from tests.kernel.test_registry import registry
from tests.registry_server import HOST

__all__ = ("registry",)  # a fixture
pytestmark = pytest.mark.kernel
BOTH = """FROM scratch
ARG TARGETPLATFORM BUILDPLATFORM TARGETARCH
COPY file-$TARGETARCH /file
COPY <<EOF /arguments
$BUILDPLATFORM $TARGETPLATFORM
EOF
"""
FILES: dict[str, bytes | str | None] = {"file-amd64": b"of amd64", "file-arm64": b"of arm64", "file-arm": b"of arm"}
CODE = (0x92800C60, 0x10000101, 0xD2800822, 0xD2803483, 0xD2800708, 0xD4000001, 0xD2800000, 0xD2800BA8, 0xD4000001)
"""openat(AT_FDCWD, "/made", O_WRONLY | O_CREAT, 0644) and exit(0), for arm64."""


@pytest.fixture
def node(lab: Pystack) -> Node:
    return Node(f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock")


def architecture(node: Node, ident: str) -> tuple[str, str]:
    seen = json.loads(node.ask("GET", f"/images/{ident}/json")[1])
    return seen["Os"], seen["Architecture"]


def test_an_image_for_another_machine(node: Node) -> None:
    built = node.build(BOTH, FILES, platform="linux/arm64")
    assert architecture(node, built.ident) == ("linux", "arm64")
    assert built.text("file") == "of arm64"
    assert built.text("arguments") == "linux/amd64 linux/arm64\n"
    assert node.build(BOTH, FILES, platform="linux/arm").document()["variant"] == "v7"
    assert architecture(node, node.build(BOTH, FILES).ident) == ("linux", "amd64")


def test_a_stage_of_the_builders_own_platform_makes_files_for_another(node: Node) -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM busybox AS cross\nARG TARGETARCH\nRUN echo for $TARGETARCH > /made\n"
        "FROM scratch\nCOPY --from=cross /made /\n"
    )
    built = node.build(text, platform="linux/riscv64")
    assert built.text("made") == "for riscv64\n"
    assert architecture(node, built.ident) == ("linux", "riscv64")


def test_what_nothing_here_runs_is_said_before_the_first_step(node: Node) -> None:
    text = f"FROM scratch\nCOPY file-arm64 /{uuid.uuid4().hex}\nFROM --platform=linux/s390x scratch\nRUN true\n"
    with pytest.raises(
        Failed, match="Dockerfile:4:1: RUN for linux/s390x: this node runs linux/amd64, and no emulator"
    ) as error:
        node.build(text, FILES)
    assert "Step 2" not in error.value.said
    with pytest.raises(Failed, match='Dockerfile:3:1: "linux/z80": unknown operating system'):
        node.build(text.replace("s390x", "z80"), FILES)
    for bad, words in (("windows/amd64", "for linux alone"), ("linux/z80", "unknown operating system")):
        with pytest.raises(Failed, match=words):
            node.build(BOTH, FILES, platform=bad)


def test_an_image_of_the_name_for_another_machine_is_no_base_of_this_one(node: Node) -> None:
    name = f"{uuid.uuid4().hex[:10]}:1"
    node.build(BOTH, FILES, platform="linux/arm64", t=name)
    with pytest.raises(Failed, match="Dockerfile:1:1: no registry could be asked"):
        node.build(f"FROM {name}\n", platform="linux/amd64")
    assert architecture(node, node.build(f"FROM {name}\n", platform="linux/arm64").ident)[1] == "arm64"
    node.build(f"FROM {name}\n")


def project(stack: Stack, dockerfile: str, platforms: str, more: str = "") -> None:
    (stack.directory / "app").mkdir(exist_ok=True)
    (stack.directory / "app/Dockerfile").write_text(dockerfile)
    for name, data in FILES.items():
        (stack.directory / "app" / name).write_bytes(data if isinstance(data, bytes) else b"")
    stack.write(
        f"services:\n  a:\n    image: {HOST}/{stack.name}:1\n    build: {{context: ./app, platforms: [{platforms}]{more}}}\n"
    )


def test_one_build_for_several_machines(lab: Pystack, stack: Stack, node: Node, registry: str) -> None:
    """Their index goes to the registry and into archives, one folder each to the client; each is a base of its own kind."""
    image = f"{HOST}/{stack.name}:1"
    project(stack, BOTH, "linux/arm64, linux/amd64, linux/arm", ", provenance: true")
    out = stack.directory / "out"
    pushed = f"type=registry,name={image},annotation-index.a.b=c"
    specs = (str(out / "tree"), f"type=oci,dest={out}/oci.tar", pushed)
    said = stack.pystack("-f", str(stack.file), "build", *(word for spec in specs for word in ("-o", spec))).stderr
    assert said.index("Building for linux/amd64") < said.index("Building for linux/arm64"), "the node's own comes first"
    for folder, word in (("linux_amd64", "amd64"), ("linux_arm64", "arm64"), ("linux_arm_v7", "arm")):
        assert (out / "tree" / folder / "file").read_text() == f"of {word}"
    index = ask(lab, f"{stack.name}/manifests/1")
    assert index["annotations"] == {"a.b": "c"}
    wanted: list[dict[str, Any]] = [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v7"},
    ]
    assert [one["platform"] for one in index["manifests"][:3]] == wanted
    asides = [one["annotations"]["vnd.docker.reference.digest"] for one in index["manifests"][3:]]
    assert asides == [one["digest"] for one in index["manifests"][:3]]
    with tarfile.open(out / "oci.tar") as archive:
        assert {f"blobs/sha256/{one['digest'][7:]}" for one in index["manifests"]} < set(archive.getnames())
    assert architecture(node, image) == ("linux", "amd64")
    child = f"FROM {image}\nCOPY file-arm /more\n"
    for word in ("arm64", "amd64"):
        assert node.build(child, FILES, platform=f"linux/{word}").text("file") == f"of {word}"
    lab("image", "rm", image)
    assert node.build(child, FILES, platform="linux/arm64").text("file") == "of arm64", "from the registry"
    assert architecture(node, node.build(child, FILES).ident)[1] == "amd64"
    assert node.build(child, FILES, platform="linux/arm64").text("file") == "of arm64", "it took no name of the other"
    with pytest.raises(Failed, match=r"no version for linux/s390x, only for linux/amd64, linux/arm64, linux/arm/v7"):
        node.build(child, FILES, platform="linux/s390x")


@contextlib.contextmanager
def registered(lab: Pystack, emulator: Path, folder: Path) -> Iterator[None]:
    """The kernel runs programs for arm64 by *emulator*, and the node sees that."""
    name = f"pystack-{uuid.uuid4().hex[:8]}"
    magic = "".join(f"\\x{byte:02x}" for byte in b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 183))
    folder.mkdir()
    if subprocess.run(["mount", "-t", "binfmt_misc", "none", str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("the kernel has no binfmt_misc")
    try:
        (folder / "register").write_text(f":{name}:M::{magic}::{emulator}:F")
        try:
            lab.on("n1", "mount", "-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc")
            yield
        finally:
            lab.on("n1", "umount", "/proc/sys/fs/binfmt_misc")
            (folder / name).write_text("-1")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_an_emulator_of_the_kernels_runs_other_machines_commands(lab: Pystack, node: Node, tmp_path: Path) -> None:
    emulator = debian_emulator("aarch64")
    if emulator is None:
        pytest.skip("there is no qemu-user-static")
    body = struct.pack(f"<{len(CODE)}I", *CODE) + b"/made\0"
    size = 64 + 56 + len(body)
    program = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, 0x400000 + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000)
        + body
    )
    text = 'FROM scratch\nCOPY --chmod=755 program /program\nRUN ["/program"]\nCMD ["/program"]\n'
    with registered(lab, emulator, tmp_path / "binfmt"):
        built = node.build(text, {"program": program}, platform="linux/arm64", nocache="1")
        assert "made" in built.files()
        assert architecture(node, built.ident)[1] == "arm64"
    with pytest.raises(Failed, match="Dockerfile:3:1: RUN for linux/arm64"):
        node.build(text, {"program": program}, platform="linux/arm64")
