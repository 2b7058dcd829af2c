"""`deploy` from a working tree: built where builds are, rolled out, in the history with commit and person, one at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.long

FILE = """
services:
  web:
    build: .
    command: sleep 1000
    stop_signal: SIGKILL
    deploy: {placement: {constraints: ["node.hostname == n1"]}}
"""
PERSON = ("-c", "user.name=Ann Author", "-c", "user.email=ann@example.org")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pystack]:
    with cluster_of(2) as made:
        made("node", "label", "n2", "builds=true")
        first = Stack(made, tmp_path_factory.mktemp("first"))
        first.up(FILE.replace("build: .", "image: busybox").replace("== n1", "== n2"))  # it has what is built from
        first.down()
        yield made


@pytest.fixture
def stack(cluster: Pystack, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(cluster, tmp_path)
    made.write(FILE)
    git(made, "init", "-q")
    git(made, "config", "user.name", "Dora Deployer")
    git(made, "config", "user.email", "dora@example.org")
    yield made
    made.down()


def git(stack: Stack, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=stack.directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def committed(stack: Stack, text: str) -> str:
    (stack.directory / "Dockerfile").write_text(f"FROM busybox\nRUN echo {text} > /which\n")
    git(stack, "add", "-A")
    git(stack, *PERSON, "commit", "-q", "-m", f"now {text}")
    return git(stack, "rev-parse", "HEAD")


def test_a_working_tree_is_deployed_with_its_commit_and_who_did_it(stack: Stack) -> None:
    for text in ("one", "two"):
        commit = committed(stack, text)
        stack.run("deploy")
        assert stack.run("exec", "-T", "web", "cat", "/which").stdout == f"{text}\n"
    newest = stack.pystack.json("history", "-p", stack.name, "--format", "json")[-1]
    assert (newest["user"], newest["message"]) == ("Dora Deployer <dora@example.org>", "now two")
    assert newest["source"] == f"{stack.directory.name}@{commit}"
    (stack.directory / "Dockerfile").write_text("FROM busybox\nRUN echo three > /which\n")
    refused = stack.run("deploy", check=False)
    assert refused.returncode == 1
    assert "not committed: Dockerfile: commit it, or say --dirty" in refused.stderr
    stack.run("deploy", "--dirty")
    assert stack.pystack.json("history", "-p", stack.name, "--format", "json")[-1]["source"].endswith(f"{commit}+changes")


CLAIM = """
import sys
from orchestrator.cli.client import Client
from orchestrator.cli.deploy import WorkingTree, claimed
with claimed(Client(), sys.argv[1], WorkingTree("abcdef1234567890", "s", "Bob <bob@example.org>", "o", ())):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_two_people_do_not_deploy_one_stack_at_once(stack: Stack) -> None:
    committed(stack, "one")
    command = [sys.executable, "-c", CLAIM, stack.name]
    environment = {**stack.pystack.environment, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout
        assert other.stdout.readline() == b"claimed\n"
        refused = stack.run("deploy", check=False)
        assert refused.returncode == 1
        assert f"Bob <bob@example.org> deploys commit abcdef123456 of {stack.name} since" in refused.stderr
        assert stack.name not in {r["stack"] for r in stack.pystack.json("ls", "--format", "json")}
        other.kill()  # who dies claims nothing any more

    def deployed() -> None:
        assert stack.run("deploy", check=False).returncode == 0

    eventually(deployed, 30)
