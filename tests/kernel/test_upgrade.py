"""From the last version to this one: the cluster comes up on the old code, is upgraded under load, and nothing of it restarts.

The old version is that of the newest tag, or of a commit before there was one. Both run from a symbolic link that is turned
from one tree to the other, as an installation does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.conftest import PATIENCE, Pystack, eventually
from tests.images import archive, busybox_rootfs

pytestmark = [pytest.mark.long, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
BEFORE_TAGS = "3dd4997"
STACK = """
services:
  web:
    image: busybox
    command: [sh, -c, "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www"]
    ports: ["18080:80"]
    stop_signal: SIGKILL
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
"""
LOAD = """
wrong=0; asked=0
while [ ! -e "$0/enough" ]; do
    for node in 1 2 3; do
        curl -sf -m 5 -o /dev/null http://10.99.0.$node:18080/ || wrong=$((wrong + 1)); asked=$((asked + 1))
    done
done
echo "$asked $wrong" > "$0/counted"
"""


def _git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)


def _old() -> str:
    tag = _git("describe", "--tags", "--abbrev=0")
    found = tag.stdout.decode().strip() if tag.returncode == 0 else BEFORE_TAGS
    if _git("cat-file", "-e", f"{found}^{{commit}}").returncode:
        pytest.skip(f"this checkout does not have {found}: git fetch --unshallow")
    return found


class Versions(Pystack):
    """The command of whichever version the link leads to, on a lab whose machines follow it when they start again."""

    def __init__(self, place: Path) -> None:
        super().__init__(f"t{uuid.uuid4().hex[:6]}")
        self.place = place
        self.code, self.python = place / "code", place / "venv/bin/python"
        old = place / "old"
        old.mkdir()
        packed = _git("archive", _old())
        subprocess.run(["tar", "-x"], input=packed.stdout, cwd=old, check=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
        (site,) = (place / "venv/lib").glob("python*/site-packages")
        (site / "trees.pth").write_text(f"{self.code}\n{Path(msgspec.__file__).parents[1]}\n")
        self.turn(old)

    def turn(self, tree: Path) -> None:
        """Lead the link to *tree*, at once."""
        fresh = self.place / "fresh"
        fresh.symlink_to(tree)
        fresh.rename(self.code)

    def __call__(
        self, *arguments: str, check: bool = True, stdin: str = "", timeout: float = 90, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.python), "-P", "-m", "orchestrator", *arguments],
            capture_output=True,
            text=True,
            input=stdin,
            env=self.environment,
            timeout=timeout * PATIENCE,
            check=False,
            cwd=cwd or self.place,
        )
        assert not check or done.returncode == 0, (
            f"pystack {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def restart(self, machine: str, process: str) -> None:
        """Have a machine's process begin anew, with the code that the link leads to by now."""
        path = Path(f"/var/lib/pystack-lab/{self.lab}/{machine}/run/{process}.pid")
        before = path.read_text()
        self("lab", "fault", "--name", self.lab, "kill", machine, process)

        def anew() -> None:
            assert path.read_text() != before

        eventually(anew, 30)
        eventually(self.ready, 60)

    def ready(self) -> None:
        """Every node answers."""
        done = self("node", "ls", "--format", "json", check=False)
        assert done.returncode == 0, done.stderr
        assert [row["state"] for row in json.loads(done.stdout)] == ["ready"] * 3


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[Versions]:
    if os.geteuid() != 0:
        pytest.skip("labs need root")
    made = Versions(tmp_path)
    made("lab", "up", "--name", made.lab, "--nodes", "3")
    try:
        for word in made("lab", "env", "--name", made.lab).stdout.split():
            key, eq, value = word.partition("=")
            if eq:
                made.environment[key] = value
        yield made
    finally:
        made("lab", "down", "--name", made.lab)


def _tasks(versions: Versions) -> dict[str, object]:
    rows = versions.json("ps", "-p", "shop", "--format", "json")
    assert [row["state"] for row in rows] == ["running"] * 3
    return {row["task"]: (row["node"], row["id"], row["restarts"], row["started"]) for row in rows}


def test_a_cluster_is_upgraded_under_load_and_nothing_restarts(versions: Versions, tmp_path: Path) -> None:
    old = tmp_path / "old"
    archive(tmp_path / "busybox.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")
    (tmp_path / "stack.yml").write_text(STACK)
    versions("image", "load", "-i", str(tmp_path / "busybox.tar"))
    versions("-p", "shop", "up")
    before = _tasks(versions)
    load = subprocess.Popen(["nsenter", "-t", versions.pid(), "-n", "sh", "-c", LOAD, str(tmp_path)])
    try:
        versions.turn(ROOT)
        assert _tasks(versions) == before  # a new client of an old server
        versions.restart("n1", "server")
        assert _tasks(versions) == before  # a new server of old agents
        versions.turn(old)
        assert _tasks(versions) == before  # an old client of a new server
        versions.turn(ROOT)
        for node in ("n2", "n3"):
            versions.restart(node, "agent")
        assert _tasks(versions) == before
    finally:
        (tmp_path / "enough").touch()
        load.wait(60)
    asked, wrong = map(int, (tmp_path / "counted").read_text().split())
    assert asked > 20
    assert wrong == 0
    assert (
        versions("-p", "shop", "plan", "--exit-code").returncode == 0
    )  # the new version wants nothing else of the old one's tasks
    versions("-p", "shop", "up", "--scale", "web=2")
    versions("-p", "shop", "down")


def test_back_within_a_minor_version(versions: Versions, tmp_path: Path) -> None:
    """What the new server wrote, the old one reads: a step back is open until the next minor version."""
    archive(tmp_path / "busybox.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")
    (tmp_path / "stack.yml").write_text(STACK)
    versions.turn(ROOT)
    versions.restart("n1", "server")
    versions("image", "load", "-i", str(tmp_path / "busybox.tar"))
    versions("-p", "shop", "up")
    before = _tasks(versions)
    versions.turn(tmp_path / "old")
    versions.restart("n1", "server")
    assert _tasks(versions) == before
    versions("-p", "shop", "down")
