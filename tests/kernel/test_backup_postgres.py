"""A database under writes is backed up, its node is lost, and it goes on from the backup on another: the database itself says
whether it is whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.skipif(postgres.home() is None, reason="postgresql is not installed"),
]

SERVER = """
services:
  db:
    image: postgres
    user: "999:999"
    command: ["sh", "-c", "test -s /data/db/PG_VERSION || initdb -D /data/db --data-checksums --locale=C -U postgres -A trust;
      exec postgres -D /data/db -k /tmp -c fsync=on"]
    stop_signal: SIGINT
    tmpfs: /tmp
    healthcheck: {test: pg_isready, interval: 1s, retries: 60}
    volumes: ["data:/data"]
    depends_on: {prepare: {condition: service_completed_successfully}}
    deploy: {placement: {constraints: ["node.hostname != n1"]}}
  prepare:
    image: postgres
    command: chown 999:999 /data
    deploy: {mode: replicated-job, placement: {constraints: ["node.hostname != n1"]}}
    volumes: ["data:/data"]
volumes:
  data:
    x-backup:
      to: %s
      password: backups
      cron: never
      pause: true
secrets:
  backups: {environment: BACKUP_PASSWORD}
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with cluster_of(3) as lab:
        lab.environment["BACKUP_PASSWORD"] = "a long sentence"
        lab("image", "load", "-i", str(postgres.image(tmp_path / "postgres.tar")), timeout=300)
        yield Stack(lab, tmp_path)


def sql(stack: Stack, text: str, check: bool = True) -> str:
    return stack.run("exec", "-T", "db", "psql", "-XAtc", text, check=check).stdout.strip()


def test_a_database_under_writes_goes_on_from_its_backup_on_another_node(stack: Stack, tmp_path: Path) -> None:
    place, lab, volume = tmp_path / "backups", stack.pystack, f"{stack.name}_data"
    place.mkdir()
    stack.write(SERVER % place)
    lab("-f", str(stack.file), "up", "-p", stack.name, timeout=300)
    sql(stack, "CREATE EXTENSION amcheck; CREATE TABLE line (n bigint PRIMARY KEY, text text)")
    old = str(stack.ps()["db-1"]["node"])
    # each statement commits a line; what was acknowledged before the backup must be in it
    loop = (
        "DO $$ BEGIN FOR i IN 1..100000000 LOOP INSERT INTO line VALUES (i, repeat(md5(i::text), 20)); COMMIT; END LOOP; END $$"
    )
    command = [sys.executable, "-m", "orchestrator", "-p", stack.name, "exec", "-T", "db", "psql", "-c", loop]
    with subprocess.Popen(command, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as writer:
        eventually(lambda: _more(stack, 500), 60)
        before = int(sql(stack, "SELECT count(*) FROM line"))
        lab("volume", "backup", volume, timeout=300)
        eventually(lambda: _more(stack, before), 60)  # it was paused, and goes on
        again = int(sql(stack, "SELECT count(*) FROM line"))
        lab("volume", "backup", volume, timeout=300)
        lab("lab", "fault", "--name", lab.lab, "crash", old)
        writer.kill()
    other = next(n for n in ("n2", "n3") if n != old)
    eventually(lambda: _silent(lab, old), 60)
    lab("volume", "restore", volume, "--stop", "--node", other, timeout=300)
    assert stack.ps()["db-1"]["node"] == other
    assert int(sql(stack, "SELECT count(*) FROM line")) >= again > before
    assert sql(stack, "SELECT count(*) - max(n) FROM line") == "0"  # none is missing in between
    stack.run("exec", "-T", "db", "pg_amcheck", "--all", "--heapallindexed")  # each page, and each index
    sql(stack, "INSERT INTO line VALUES (0, 'goes on')")
    history = lab.json("volume", "snapshots", volume, "--format", "json")
    assert {s["node"] for s in history} == {old}


def _more(stack: Stack, count: int) -> None:
    assert int(sql(stack, "SELECT count(*) FROM line")) > count


def _silent(lab: Pystack, node: str) -> None:
    rows = {r["name"]: r for r in lab.json("node", "ls", "--format", "json")}
    assert rows[node]["state"] != "ready"
