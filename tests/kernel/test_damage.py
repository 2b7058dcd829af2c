"""Damaged state files, a full disk, a reboot: said, and healed from what the kernel and the control plane know."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.store.interface import Put
from orchestrator.store.sqlite import SqliteStore
from tests.conftest import Pystack, Stack, eventually
from tests.images import archive, busybox_rootfs, tar_of

pytestmark = [pytest.mark.long, pytest.mark.kernel]
PAIR = """
services:
  a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  b: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
"""


def root(stack: Stack) -> Path:
    return Path(stack.pystack.environment["PYSTACK_ROOT"])


def restart(stack: Stack) -> str:
    """Kill the server; what the next one said, once it answers."""
    log = root(stack) / "server.log"
    begin = log.stat().st_size
    pid = (root(stack) / "run/server.pid").read_text()
    stack.pystack("lab", "fault", "--name", stack.pystack.lab, "kill", "n1", "server")

    def back() -> None:
        assert (root(stack) / "run/server.pid").read_text() != pid
        assert stack.pystack("ls", check=False).returncode == 0

    eventually(back, 20)
    return log.read_bytes()[begin:].decode()


@pytest.mark.parametrize("name", ["manifest.json", "networks.json", "images/names.json"])
def test_a_damaged_document_costs_no_container(stack: Stack, name: str) -> None:
    stack.up(PAIR)
    stack.pystack("container", "run", "-d", "--name", f"lone-{stack.name}", "busybox", "sleep", "1000")
    try:
        before = {t: r["id"] for t, r in stack.ps().items()}
        names = root(stack) / "images/names.json"
        kept = names.read_bytes()
        (root(stack) / name).write_text('{"torn')
        said = restart(stack)
        assert f"{name.split('/')[-1]} is damaged" in said
        if name.startswith("images"):
            stack.pystack("image", "prune")
            names.write_bytes(kept)
            restart(stack)
        assert {t: r["id"] for t, r in stack.ps().items()} == before
        stack.run("up")
        assert {t: r["id"] for t, r in stack.ps().items()} == before
        assert "b.s" in stack.exec("a", "nslookup", "b") or "Address" in stack.exec("a", "nslookup", "b")
        lone = stack.pystack("container", "exec", f"lone-{stack.name}", "ip", "route").stdout
        assert "default via" in lone
    finally:
        stack.pystack("container", "rm", "-f", f"lone-{stack.name}")


def test_a_damaged_record_is_made_anew(stack: Stack) -> None:
    stack.up(PAIR)
    ident = str(stack.ps()["a-1"]["id"])
    (root(stack) / "containers" / ident / "record.json").write_text("torn")
    assert "record.json is damaged" in restart(stack)

    def again() -> None:
        row = stack.ps()["a-1"]
        assert row["state"] == "running"
        assert row["id"] != ident

    eventually(again, 10)
    assert stack.exec("a", "echo", "x") == "x\n"


def test_an_image_without_a_name_lives_as_long_as_its_container(stack: Stack) -> None:
    """A name that moves to another image must not let prune take the layers of what runs."""
    name = f"u{stack.name}"
    for content in ("first", "second"):
        path = stack.directory / f"{content}.tar"
        layers = [busybox_rootfs(), tar_of({"marker": f"{content} {name}".encode()})]
        archive(path, layers, name=f"docker.io/library/{name}:latest")
        stack.pystack("image", "load", "-i", str(path))
        if content == "first":
            stack.up(f"services: {{a: {{image: {name}, command: sleep 1000, stop_signal: SIGKILL}}}}")
    stack.pystack("image", "prune")
    assert stack.exec("a", "cat", "/marker").startswith("first")
    stack.run("restart")
    assert stack.exec("a", "cat", "/marker").startswith("first")


async def test_a_damaged_store_ends_the_server_with_what_to_do(lab: Pystack, tmp_path: Path) -> None:
    """Its first page is sound: the damage is found while it is read."""
    path = tmp_path / "root" / "store.db"
    store = await SqliteStore.open(path)
    for number in range(200):
        await store.transact((), [Put(f"tasks/n1/t{number}", b"x" * 2000)])
    await store.close()
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    command = f"PYSTACK_ROOT={path.parent} {sys.executable} -m orchestrator.embedded; echo ended with $?"
    said = lab.on("n1", "sh", "-c", f"cd {Path(__file__).parents[2]}; {{ {command}; }} 2>&1")
    assert said.splitlines()[-1] == "ended with 1"
    (line,) = (line for line in said.splitlines() if line.startswith("pystack server:"))
    assert "store.db is damaged" in line
    assert "restore a backup" in line
    assert "Traceback" not in said
