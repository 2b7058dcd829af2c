"""A cluster of two nodes, by Docker's own command at the server's socket for clients of Swarm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Pystack, Stack, cluster_of, eventually

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no `docker` client on PATH"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pystack]:
    with cluster_of(2) as made:
        yield made


class Docker:
    def __init__(self, cluster: Pystack, config: Path) -> None:
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")} | {
            "DOCKER_HOST": f"unix://{cluster.environment['PYSTACK_ROOT']}/run/swarm.sock",
            "DOCKER_CONFIG": str(config),
        }

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, env=self.environment, timeout=60 * PATIENCE, check=False
        )
        assert done.returncode == code, f"docker {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stderr


def test_a_stack_is_seen_scaled_and_removed(cluster: Pystack, tmp_path: Path) -> None:
    docker = Docker(cluster, tmp_path / "config")
    stack = Stack(cluster, tmp_path)
    stack.up(
        "services:\n  web:\n    image: busybox\n    command: [sh, -c, 'echo it is $$HOSTNAME; sleep 1000']\n"
        "    stop_grace_period: 0s\n    deploy: {replicas: 2}\n"
        "  db: {image: busybox, command: sleep 1000, stop_grace_period: 0s}\n"
    )
    name = docker("stack", "ls", "--format", "{{.Name}}").strip()
    rows = docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}").splitlines()
    assert [row.strip() for row in rows] == ["n1 Ready Active Leader", "n2 Ready Active"]
    assert docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}").split() == [
        f"{name}_db",
        "1/1",
        f"{name}_web",
        "2/2",
    ]
    assert json.loads(docker("info", "--format", "{{json .Swarm}}"))["LocalNodeState"] == "active"
    said = docker("service", "logs", f"{name}_web")
    assert said.count("it is ") == 2
    assert f"{name}_web.1." in said
    docker("service", "scale", "-d", f"{name}_web=3")
    eventually(lambda: _replicas(docker, f"{name}_web", "3/3"), 30)
    assert any("docker service update" in row["message"] for row in cluster.json("history", "-p", name, "--format", "json"))
    docker("service", "rm", f"{name}_db")
    assert docker("service", "ls", "--format", "{{.Name}}").split() == [f"{name}_web"]
    docker("stack", "rm", "-d=false", name)
    eventually(lambda: _gone(docker, name), 30)


def _replicas(docker: Docker, name: str, wanted: str) -> None:
    assert docker("service", "ls", "--filter", f"name={name}", "--format", "{{.Replicas}}").strip() == wanted


def _gone(docker: Docker, name: str) -> None:
    assert name not in docker("stack", "ls", "--format", "{{.Name}}").split()


def test_the_rest_is_the_servers_node(cluster: Pystack, tmp_path: Path) -> None:
    docker = Docker(cluster, tmp_path / "config")
    assert docker("run", "--rm", "busybox", "echo", "here").strip() == "here"
    (tmp_path / "word").write_text("hush")
    docker("secret", "create", "word", str(tmp_path / "word"))
    assert docker("secret", "ls", "--format", "{{.Name}}").split() == ["word"]
    docker("secret", "rm", "word")
    docker("node", "update", "--label-add", "disk=ssd", "n2")
    assert docker("node", "ls", "-q", "--filter", "node.label=disk=ssd").strip()
    docker("node", "update", "--label-rm", "disk", "n2")


def test_a_stack_of_dockers_own_command(cluster: Pystack, tmp_path: Path) -> None:
    docker = Docker(cluster, tmp_path / "config")
    (tmp_path / "stack.yml").write_text(
        "version: '3.8'\nservices:\n  web:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n"
        "    deploy: {replicas: 2}\n"
    )
    docker("stack", "deploy", "-d=true", "--resolve-image", "never", "-c", str(tmp_path / "stack.yml"), "own")
    eventually(lambda: _replicas(docker, "own_web", "2/2"), 60)
    assert "own" in cluster("ls").stdout
    docker("stack", "rm", "own")
    eventually(lambda: _gone(docker, "own"), 30)


def test_a_service_without_a_stack_is_followed_by_the_client(cluster: Pystack, tmp_path: Path) -> None:
    """`create` and `update` return at once, as Swarm's do, and the client looks itself how far the tasks are."""
    docker = Docker(cluster, tmp_path / "config")
    words = ("--no-resolve-image", "--stop-signal", "SIGKILL", "--update-monitor", "1s", "--replicas", "2")
    said = docker("service", "create", *words, "--name", "alone", "busybox", "sleep", "1000")
    try:
        assert "converged" in said
        assert "alone" not in docker("stack", "ls", "--format", "{{.Name}}")
        docker("service", "update", "-d", "--force", "alone")
        assert docker("service", "inspect", "alone", "--format", "{{.UpdateStatus.State}}").strip() == "updating"
        eventually(lambda: _not_updated(docker, "alone"), 60)
        refused = docker("service", "update", "--no-resolve-image", "--args", "nosuchprogram", "alone", code=1)
        assert "update paused" in refused
        assert "nosuchprogram" in refused
        docker("service", "update", "--no-resolve-image", "--args", "sleep 1000", "alone")
        docker("service", "scale", "-d", "alone=1")
        eventually(lambda: _replicas(docker, "alone", "1/1"), 30)
    finally:
        docker("service", "rm", "alone")


def _not_updated(docker: Docker, name: str) -> None:
    assert "UpdateStatus" not in json.loads(docker("service", "inspect", name))[0]


def test_a_job_has_its_iteration_and_global_tasks_have_no_slot(cluster: Pystack, tmp_path: Path) -> None:
    docker = Docker(cluster, tmp_path / "config")
    job = ("--mode", "replicated-job", "--replicas", "2", "--name", "job", "busybox", "true")
    assert "job complete" in docker("service", "create", "--no-resolve-image", *job)
    docker("service", "create", "-d", "--no-resolve-image", "--mode", "global", "--name", "all", "busybox", "sleep", "1000")
    try:

        def ended() -> None:
            rows = docker("service", "ls", "--filter", "name=job", "--format", "{{.Replicas}}")
            assert "(2/2 completed)" in rows

        eventually(ended, 30)
        (service,) = json.loads(docker("service", "inspect", "job"))
        task, _ = json.loads(docker("inspect", *docker("service", "ps", "-q", "job").split()))
        assert task["JobIteration"] == service["JobStatus"]["JobIteration"]
        assert task["DesiredState"] == "complete"
        docker("service", "update", "-d", "--no-resolve-image", "--force", "job")
        (again,) = json.loads(docker("service", "inspect", "job"))
        assert again["JobStatus"]["JobIteration"] != service["JobStatus"]["JobIteration"]
        everywhere = json.loads(docker("inspect", *docker("service", "ps", "-q", "all").split()))
        assert ["Slot" in one for one in everywhere] == [False, False]
    finally:
        docker("service", "rm", "job", "all")
