"""A cluster rises from its backup on other machines, with one command: stacks, secrets, a certificate, users, and what volumes
held."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Stack, cluster_of

pytestmark = pytest.mark.long

SHOP = """
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    secrets: [pin]
    volumes: ["data:/data"]
    deploy: {placement: {constraints: ["node.labels.kind == fast"]}}
volumes:
  data:
    x-backup: {to: %s, password: backups, cron: never}
secrets:
  pin: {external: true}
  backups: {external: true}
"""


def test_a_cluster_rises_from_its_backup_on_other_machines(tmp_path: Path) -> None:
    place, file = tmp_path / "backups", tmp_path / "cluster.backup"
    place.mkdir()
    with cluster_of(2) as lab:
        stack = Stack(lab, tmp_path)
        lab("node", "label", "n2", "kind=fast")
        lab("secret", "create", "pin", "-", stdin="4711")
        lab("secret", "create", "backups", "-", stdin="a long sentence")
        stack.up(SHOP % place)
        stack.run("exec", "-T", "web", "sh", "-c", "echo kept > /data/file")
        lab("volume", "backup", f"{stack.name}_data")
        lab("token", "create", "ci", "--role", "viewer")
        lab.environment["PYSTACK_PASSPHRASE"] = "correct horse battery"
        lab("cluster", "backup", str(file))
        assert b"4711" not in file.read_bytes()
        used = lab("cluster", "restore", str(file), check=False)
        assert used.returncode == 1
        assert f"this cluster has stacks ({stack.name})" in used.stderr
    with cluster_of(2) as lab:
        lab.environment["PYSTACK_PASSPHRASE"] = "another horse, no battery"
        wrong = lab("cluster", "restore", str(file), check=False)
        assert "the passphrase is another one" in wrong.stderr
        lab.environment["PYSTACK_PASSPHRASE"] = "correct horse battery"
        done = lab("cluster", "restore", str(file))
        assert "1 stacks run" in done.stdout
        stack = Stack(lab, tmp_path, name=stack.name)
        assert stack.ps()["web-1"]["node"] == "n2"
        assert stack.run("exec", "-T", "web", "cat", "/run/secrets/pin", "/data/file").stdout == "4711kept\n"
        assert [t["name"] for t in lab.json("token", "ls", "--format", "json")] == ["ci"]
