"""A disk that is full at whichever write: said in one line, nothing half done, and all is well once there is room."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.images import archive, busybox_rootfs, tar_of
from tests.kernel.test_crash import STACK, leftovers

pytestmark = [pytest.mark.long, pytest.mark.kernel]


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(1, disk="256m") as pystack:
        yield pystack


def fault(lab: Pystack, *words: str) -> None:
    lab("lab", "fault", "--name", lab.lab, *words)


def test_an_up_at_every_fill(lab: Pystack, stack: Stack) -> None:
    """Each step leaves room for a few writes more; from some on the whole `up` has room."""
    stack.write(STACK)
    went_well = 0
    for free in [*range(0, 192 << 10, 24 << 10), 1 << 20]:
        fault(lab, "fill-disk", "n1", str(free))
        try:
            done = stack.run("up", check=False)
            if done.returncode:
                assert "is full" in done.stderr, done.stderr
                assert "make room" in done.stderr
            went_well += done.returncode == 0
            stack.ps()  # looking works on a full disk
        finally:
            fault(lab, "heal")
        stack.run("up")
        assert stack.exec("b", "wget", "-qO-", "http://a/") == "it works\n"
        assert stack.exec("a", "cat", "/srv/hello") == "hello from the image\n"
        stack.down()

        def clean() -> None:
            assert not any(leftovers(lab).values()), leftovers(lab)

        eventually(clean, 5)
    assert 0 < went_well < 8


def test_room_that_was_made_counts_at_once(lab: Pystack, stack: Stack) -> None:
    """A node looks at its disk once a second: who makes room and gives the command again is not refused for the last look."""
    stack.write(STACK)

    def noticed() -> None:
        (row,) = json.loads(lab("node", "ls", "--format", "json").stdout)
        assert "is full" in row["error"]

    for _ in range(3):
        fault(lab, "fill-disk", "n1")
        try:
            eventually(noticed, 10)
        finally:
            fault(lab, "heal")
        stack.run("up")
        stack.down()


def test_a_volume_is_never_taken_for_filled_when_it_is_not(lab: Pystack, stack: Stack, tmp_path: Path) -> None:
    """The disk is full in the middle of the image's files: what was copied goes, and the next start copies all."""
    files = {f"var/kept/{n}": os.urandom(256 << 10) for n in range(8)}
    tar = archive(tmp_path / "i.tar", [busybox_rootfs(), tar_of(files)], name=f"docker.io/library/{stack.name}:1")
    lab("image", "load", "-i", str(tar))
    stack.write(
        f"services: {{a: {{image: '{stack.name}:1', command: sleep 1000, stop_grace_period: 0s, volumes: ['d:/var/kept']}}}}\n"
        "volumes: {d: {}}\n"
    )
    fault(lab, "fill-disk", "n1", str(1 << 20))
    try:
        done = stack.run("up", check=False)
        assert done.returncode
        assert "is full" in done.stderr, done.stderr
        data = Path(lab.environment["PYSTACK_ROOT"]) / f"volumes/{stack.name}_d/_data"
        assert not list(data.iterdir())
    finally:
        fault(lab, "heal")
    stack.run("up")
    found = stack.exec("a", "sh", "-c", "cd /var/kept && sha256sum *").split()
    assert dict(zip(found[1::2], found[::2], strict=True)) == {
        name.rpartition("/")[2]: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }


def test_images_networks_volumes_and_secrets(lab: Pystack, tmp_path: Path) -> None:
    layers = [tar_of({"a": os.urandom(3 << 20)}), tar_of({"b": b"2"})]
    tar = archive(tmp_path / "i.tar", layers, name="docker.io/library/large:1")
    root = Path(lab.environment["PYSTACK_ROOT"])
    (tmp_path / "secret").write_text("x")
    orders = {
        "image": (("image", "load", "-i", str(tar)), ("image", "rm", "large:1")),
        "network": (("network", "create", "full"), ("network", "rm", "full")),
        "volume": (("volume", "create", "full"), ("volume", "rm", "full")),
        "secret": (("secret", "create", "full", str(tmp_path / "secret")), ("secret", "rm", "full")),
    }
    for free in (0, 4096, 1 << 20):
        for kind, (make, unmake) in orders.items():
            before = lab(kind, "ls").stdout
            fault(lab, "fill-disk", "n1", str(free))
            try:
                done = lab(*make, check=False)
            finally:
                fault(lab, "heal")
            if done.returncode:
                assert "is full" in done.stderr, kind
                assert lab(kind, "ls").stdout == before, kind
                lab(*make)
            lab(*unmake)
    assert not list(root.rglob("*.tmp"))
    assert not list(root.rglob(".*.tmp"))


def test_a_server_starts_and_containers_run_on_a_full_disk(lab: Pystack, stack: Stack) -> None:
    stack.up(STACK)
    ids = {name: row["id"] for name, row in stack.ps().items()}
    manifest = Path(lab.environment["PYSTACK_ROOT"]) / "manifest.json"
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    fault(lab, "fill-disk", "n1")
    try:
        fault(lab, "kill", "n1", "server")

        def back() -> None:
            assert {name: row["id"] for name, row in stack.ps().items()} == ids

        eventually(back, 20)
        assert stack.exec("b", "wget", "-qO-", "http://a/") == "it works\n"
        assert hashlib.sha256(manifest.read_bytes()).hexdigest() == digest
        done = stack.run("stop", check=False)  # what must be written is refused, or fits in what the ballast gave back
        assert done.returncode == 0 or "is full" in done.stderr
    finally:
        fault(lab, "heal")
    stack.run("up")
    stack.down()


def test_a_build_at_every_fill(lab: Pystack, stack: Stack) -> None:
    """Context, layers, their archives, cache and what comes back: nothing half made stays, and the next one goes on."""
    (stack.directory / "Dockerfile").write_text(
        "FROM busybox AS first\nCOPY large /large\nRUN --mount=type=cache,target=/c cp /large /again && cp /large /c/kept\n"
        "FROM busybox\nCOPY --from=first /again /copied\nRUN echo done > /done\n"
    )
    stack.write(f"services:\n  a: {{image: '{stack.name}:1', build: .}}\n")
    root, went_well = Path(lab.environment["PYSTACK_ROOT"]), 0
    for free in [*range(0, 12 << 20, 3 << 19), 48 << 20]:
        (stack.directory / "large").write_bytes(os.urandom(2 << 20))
        fault(lab, "fill-disk", "n1", str(free))
        try:
            done = stack.run("build", check=False)
        finally:
            fault(lab, "heal")
        went_well += done.returncode == 0
        if done.returncode:
            assert "is full" in done.stderr or "No space left" in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
        assert not [*(root / "build/jobs").iterdir(), *root.glob("layers/*.tmp"), *root.glob("images/blobs/sha256/*.tmp")]
        stack.run("build", "-o", str(stack.directory / "out"))
        assert (stack.directory / "out/copied").read_bytes() == (stack.directory / "large").read_bytes()
        assert (stack.directory / "out/done").read_text() == "done\n"
    assert 0 < went_well < 8


SPARES = """
services:
  web:
    image: busybox
    command: sh -c "while true; do echo line; sleep 0.2; done"
    stop_signal: SIGKILL
    environment: [V=%d]
    deploy: {replicas: 2, placement: {max_replicas_per_node: 2}, update_config: {order: start-first}}
  far:
    image: busybox
    command: sh -c "while true; do echo line; sleep 0.1; done"
    stop_signal: SIGKILL
    deploy: {placement: {constraints: [node.hostname == n2]}}
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pystack]:
    with cluster_of(2, disk="256m") as pystack:
        yield pystack


def test_one_node_of_several_has_a_full_disk(pair: Pystack, tmp_path: Path) -> None:
    """It is named, the others are well, the spare is gone, and the logs tell that something may be missing."""
    stack = Stack(pair, tmp_path)
    stack.up(SPARES % 1)
    before = {name: row["id"] for name, row in stack.ps().items()}
    fault(pair, "fill-disk", "n2")
    try:

        def said() -> None:
            rows = {r["name"]: r for r in pair.json("node", "ls", "--format", "json")}
            assert "is full" in rows["n2"]["error"]
            assert (rows["n2"]["state"], rows["n1"]["error"]) == ("ready", "")

        eventually(said, 20)
        assert any(
            not c["ok"] and c["check"] == "disk" and c["target"].startswith("n2")
            for c in json.loads(pair("doctor", "--format", "json", check=False).stdout)
        )
        done = stack.up(SPARES % 2, check=False)
        assert done.returncode == 1
        assert "node n2: the disk is full" in done.stderr
        assert {name: row["id"] for name, row in stack.ps().items()} == before
    finally:
        fault(pair, "heal")
    eventually(
        lambda: _same({r["name"]: r["error"] for r in pair.json("node", "ls", "--format", "json")}, {"n1": "", "n2": ""}), 20
    )
    eventually(lambda: _has("lines may be missing here", stack.run("logs", "far").stderr), 20)
    texts = {line.partition("| ")[2] for line in stack.run("logs", "far").stdout.splitlines() if "pystack:" not in line}
    assert all("line".startswith(text) for text in texts), texts  # half a line is half a line, and not glued to the next
    stack.up()
    assert {row["state"] for row in stack.ps().values()} == {"running"}
    assert set(stack.ps()) == set(before)
    for machine in ("n1", "n2"):
        for log in ("server.log", "agent.log"):
            path = Path(f"/var/lib/pystack-lab/{pair.lab}/{machine}/{log}")
            assert not path.exists() or "Traceback" not in path.read_text()
    stack.down()


def _same(found: object, wanted: object) -> None:
    assert found == wanted


def _has(part: str, whole: str) -> None:
    assert part in whole
