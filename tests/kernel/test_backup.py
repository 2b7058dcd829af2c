"""Backups of volumes on a real lab, with the real restic: made, tried, brought back, on another node too."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.long

STACK = """
services:
  db:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    volumes: ["data:/data"]
volumes:
  data:
    x-backup:
      to: %s
      password: backups
      cron: never
      keep: {last: 2}
      %s
secrets:
  backups: {environment: BACKUP_PASSWORD}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pystack]:
    with cluster_of(2) as made:
        made.environment["BACKUP_PASSWORD"] = "a long sentence"
        yield made


@pytest.fixture
def stack(cluster: Pystack, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(cluster, tmp_path)
    yield made
    made.down()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that every machine of the lab has: they share the host's files."""
    made = tmp_path / "backups"
    made.mkdir()
    return made


def written(stack: Stack, text: str) -> None:
    stack.run("exec", "-T", "db", "sh", "-c", f"echo {text} > /data/file; chown 999:998 /data/file; chmod 640 /data/file")


def content(stack: Stack) -> str:
    return (
        stack.run("exec", "-T", "db", "sh", "-c", "stat -c '%u:%g %a' /data/file; cat /data/file")
        .stdout.split("\n", 1)[1]
        .strip()
    )


def snapshots(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.pystack.json("volume", "snapshots", f"{stack.name}_data", "--format", "json")
    return found


def test_a_volume_is_backed_up_tried_and_brought_back(stack: Stack, place: Path) -> None:
    volume = f"{stack.name}_data"
    stack.up(STACK % (place, "pause: true"))
    written(stack, "one")
    said = stack.pystack("volume", "backup", volume).stderr
    assert re.search(r"data@backup of .* on n\d: snapshot [0-9a-f]{8}: 1 files, 4 B, new", said)
    written(stack, "two")
    stack.pystack("volume", "backup", volume)
    first, second = snapshots(stack)
    assert b"a long sentence" not in b"".join(f.read_bytes() for f in place.rglob("*") if f.is_file())
    assert "is whole: 1 files, 4 B" in stack.pystack("volume", "verify", volume).stderr

    refused = stack.pystack("volume", "restore", volume, first["id"], check=False)
    assert refused.returncode == 1
    assert re.search(r"stack\.yml:3:\d+: .*db-1 uses volume .*, which cannot be replaced under it\n.*--stop", refused.stderr)
    assert content(stack) == "two"
    stack.pystack("volume", "restore", volume, first["id"], "--as", f"{stack.name}-old")
    again = stack.pystack("volume", "restore", volume, second["id"], "--as", f"{stack.name}-old", check=False)
    assert f"there is a volume {stack.name}-old already" in again.stderr
    beside = json.loads(stack.pystack("volume", "inspect", f"{stack.name}-old").stdout)[0]
    old = Path(beside["Mountpoint"]) / "file"
    assert old.read_text() == "one\n"
    assert (old.stat().st_uid, old.stat().st_gid, old.stat().st_mode & 0o777) == (999, 998, 0o640)
    assert content(stack) == "two"
    stack.pystack("volume", "restore", volume, first["id"], "--stop")
    assert content(stack) == "one"

    stack.pystack("volume", "backup", volume)  # keep: {last: 2}
    assert snapshots(stack)[0]["id"] == second["id"]
    history = stack.pystack.json("cron", "history", "-p", stack.name, "data@backup", "--format", "json")
    assert [r["state"] for r in history] == ["succeeded"] * 3
    stack.pystack("volume", "rm", f"{stack.name}-old")


def test_a_server_of_sftp_and_a_command_that_runs_before(stack: Stack, cluster: Pystack, tmp_path: Path) -> None:
    """n2's own sshd has the repository; the volume is on n1, and a task of its service writes the dump that is backed up."""
    place, volume = tmp_path / "far", f"{stack.name}_data"
    place.mkdir()
    target = next(n for n in cluster.json("node", "ls", "--format", "json") if n["name"] == "n2")["address"]
    address = target.rpartition("@")[2]
    home = f"{cluster.environment['PYSTACK_ROOT']}/home/.ssh"
    for name, command in (("key", f"cat {home}/id_ed25519"), ("host", f"ssh-keyscan -t ed25519 {address} 2>/dev/null")):
        cluster("secret", "create", name, "-", stdin=cluster.on("n1", "sh", "-c", command))
    try:
        text = STACK % (f"sftp:root@{address}:{place}", "ssh_key: key\n      known_hosts: host\n      before: %s")
        text = text.replace("%s", "{service: db, command: [sh, -c, 'echo dumped > /data/file; echo told; exit $$CODE']}")
        text += "  key: {external: true}\n  host: {external: true}\n"
        text = text.replace(
            "    volumes: [",
            "    deploy: {placement: {constraints: ['node.hostname == n1']}}\n    environment: {CODE: '%s'}\n    volumes: [",
        )
        stack.up(text % 0)
        stack.pystack("volume", "backup", volume)
        assert (place / "config").exists()
        stack.pystack("volume", "restore", volume, "--as", f"{stack.name}-back", "--node", "n2")
        beside = json.loads(stack.pystack("volume", "inspect", f"{stack.name}-back").stdout)[0]
        assert (beside["Node"], (Path(beside["Mountpoint"]) / "file").read_text()) == ("n2", "dumped\n")
        stack.pystack("volume", "rm", f"{stack.name}-back")
        stack.up(text % 3)
        failed = stack.pystack("volume", "backup", volume, check=False)
        assert failed.returncode == 1
        assert f"{volume}: the command before it exited with 3: told" in failed.stderr
        doctor = stack.pystack("doctor", check=False)
        assert doctor.returncode == 1
        assert f"backup: {volume}: backup: the last one failed" in doctor.stdout
    finally:
        stack.down()
        for name in ("key", "host"):
            cluster("secret", "rm", name)


S3 = "import sys; from moto.server import main; main(sys.argv[1:])"


@pytest.fixture
def s3(cluster: Pystack) -> Iterator[str]:
    """A server of S3 beside the nodes; its address."""
    if not importlib.util.find_spec("moto"):
        pytest.skip("needs moto: `make setup`")
    address = "10.99.0.254:5000"
    words = [sys.executable, "-c", S3, "-H", "10.99.0.254", "-p", "5000"]
    inside = ["nsenter", "-t", cluster.pid(), "-n", "--", *words]
    with subprocess.Popen(inside, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: cluster.on("outside", "curl", "-sS", "-m", "5", f"http://{address}/"), 60)
            yield address
        finally:
            server.terminate()


def test_a_bucket_of_s3(stack: Stack, cluster: Pystack, s3: str) -> None:
    """Through restic's own S3 client; what changed is sent, and another node brings it back."""
    volume = f"{stack.name}_data"
    cluster("secret", "create", "bucket", "-", stdin="AWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY=hidden\n")
    try:
        text = STACK % (f"s3:http://{s3}/backups/{stack.name}", "credentials: bucket") + "  bucket: {external: true}\n"
        text = text.replace("    volumes: [", "    deploy: {placement: {constraints: ['node.hostname == n1']}}\n    volumes: [")
        stack.up(text)
        stack.run("exec", "-T", "db", "sh", "-c", "dd if=/dev/urandom of=/data/large bs=1M count=20; echo one > /data/file")
        stack.pystack("volume", "backup", volume)
        stack.run("exec", "-T", "db", "sh", "-c", "echo two > /data/file")
        said = stack.pystack("volume", "backup", volume).stderr
        assert re.search(r"snapshot [0-9a-f]{8}: 2 files, 21\.0 MB, new [0-9.]+ k?B", said), said
        assert len(snapshots(stack)) == 2
        assert "is whole: 2 files" in stack.pystack("volume", "verify", volume).stderr
        stack.pystack("volume", "restore", volume, "--as", f"{stack.name}-back", "--node", "n2")
        beside = json.loads(stack.pystack("volume", "inspect", f"{stack.name}-back").stdout)[0]
        assert (beside["Node"], (Path(beside["Mountpoint"]) / "file").read_text()) == ("n2", "two\n")
        stack.pystack("volume", "rm", f"{stack.name}-back")
    finally:
        stack.down()
        cluster("secret", "rm", "bucket")


def test_of_replicas_with_a_volume_each_one_is_backed_up_alone(stack: Stack, place: Path) -> None:
    volumes = '    volumes: ["data:/data"]'
    assert volumes in STACK
    text = STACK.replace(volumes, f"    x-stable: true\n    deploy: {{replicas: 2}}\n{volumes}")
    stack.up(text % (place, "pause: true"))
    one, other = f"{stack.name}_data-1", f"{stack.name}_data-2"
    said = stack.pystack("volume", "backup", other).stderr
    assert re.search(r"data@backup of .* on n\d: snapshot", said)

    def kept(volume: str) -> int:
        listed = stack.pystack("volume", "snapshots", volume, "--format", "json", check=False)
        return len(json.loads(listed.stdout)) if not listed.returncode else 0

    assert (kept(one), kept(other)) == (0, 1)
    checks = json.loads(stack.pystack("doctor", "--format", "json", check=False).stdout)
    targets = [c["target"] for c in checks if c["check"] == "backup"]
    assert f"{other}: backup" in targets
    assert f"{one}: backup" not in targets, "nothing is known of it yet"
    stack.pystack("volume", "backup", one)
    assert (kept(one), kept(other)) == (1, 1)
