"""Branches come, change, are pushed with force and go, in an order of chance: exactly their stacks run, no other is left."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.gitops.previews import slug
from tests.conftest import Pystack, eventually
from tests.kernel.test_gitops import Repository

pytestmark = pytest.mark.long

BRANCHES, STEPS = 30, 60
STACK = """
services:
  web: {image: busybox, command: [sleep, "10000"], stop_signal: SIGKILL, environment: {V: "%s"}, volumes: ["data:/data"],
    mem_limit: 16m}
volumes: {data: {}}
"""


@pytest.fixture
def repository(lab: Pystack, tmp_path: Path) -> Iterator[Repository]:
    made = Repository(lab, tmp_path)
    yield made
    lab("gitops", "rm", made.name, check=False)
    for row in lab.json("ls", "--format", "json"):
        if row["stack"].startswith(made.name):
            lab("down", "-p", row["stack"], "-v")


def stacks(repository: Repository) -> dict[str, str]:
    """The previews that run: name → the value of V in their containers."""
    out: dict[str, str] = {}
    for row in repository.pystack.json("ls", "--format", "json"):
        if row["stack"].startswith(f"{repository.name}-"):
            done = repository.pystack("exec", "-p", row["stack"], "-T", "web", "sh", "-c", "echo $V", check=False)
            out[row["stack"]] = done.stdout.strip()
    return out


def run(repository: Repository, count: int, steps: int, seed: int) -> None:
    repository.push("first", {"stack.yml": STACK % "main"})
    repository.add("--previews", "feature/*", "--preview-host", "{branch}.example.org", "--interval", "2s")
    rnd, wanted = random.Random(seed), dict[str, str]()
    names = [f"feature/{n}" for n in range(count)]
    for step in range(steps):
        branch = rnd.choice(names)
        if branch in wanted and rnd.random() < 0.4:
            repository.git("push", "-q", "origin", "--delete", branch)
            del wanted[branch]
            continue
        (repository.copy / "stack.yml").write_text(STACK % step)
        amend = ["--amend"] if rnd.random() < 0.5 else []  # which only --force can push
        repository.git("commit", "-q", "-a", *amend, "-m", f"step {step}")
        repository.git("push", "-q", "--force", "origin", f"HEAD:refs/heads/{branch}")
        wanted[branch] = str(step)
    expected = {f"{repository.name}-{slug(b)}": v for b, v in wanted.items()}

    def settled() -> None:
        assert stacks(repository) == expected

    eventually(settled, 30 + 20 * count)
    volumes = [v["name"] for v in repository.pystack.json("volume", "ls", "--format", "json")]
    mine = {v for v in volumes if v.startswith(f"{repository.name}-")}
    assert mine == {f"{name}_data" for name in expected}  # those of branches that are gone went with them
    rows = {r["name"] for r in repository.pystack.json("gitops", "ls", "--format", "json")}
    assert {r for r in rows if r.startswith(f"{repository.name}.")} == {f"{repository.name}.{slug(b)}" for b in wanted}
    repository.pystack("gitops", "rm", repository.name)
    assert stacks(repository) == {}


def test_a_few_branches(repository: Repository) -> None:
    run(repository, 3, 8, seed=5)


def test_a_request_has_a_preview_and_an_old_one_has_none(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.push("first", {"stack.yml": STACK % "main"})
    requests = {"refs/pull/7/head": "seven", "refs/merge-requests/8/head": "eight"}
    for ref, value in requests.items():
        (repository.copy / "stack.yml").write_text(STACK % value)
        repository.git("commit", "-q", "-a", "-m", value)
        repository.git("push", "-q", "origin", f"HEAD:{ref}")
    with monkeypatch.context() as patched:
        patched.setenv("GIT_COMMITTER_DATE", "2020-01-01T00:00:00+00:00")
        repository.git("commit", "-q", "--amend", "-m", "long ago")
    repository.git("push", "-q", "origin", "HEAD:refs/pull/3/head")
    patterns = ("--previews", "refs/pull/*/head", "--previews", "refs/merge-requests/*/head")
    repository.add(*patterns, "--preview-host", "{branch}.example.org", "--preview-ttl", "30d", "--interval", "1s")
    expected = {f"{repository.name}-{slug(ref)}": value for ref, value in requests.items()}

    def settled() -> None:
        assert stacks(repository) == expected
        rows = {r["name"]: r["state"] for r in repository.pystack.json("gitops", "ls", "--format", "json")}
        assert rows[f"{repository.name}.{slug('refs/pull/3/head')}"] == "expired"

    eventually(settled, 60)
    repository.git("push", "-q", "origin", "--delete", "refs/pull/7/head")
    del expected[f"{repository.name}-{slug('refs/pull/7/head')}"]
    eventually(settled, 60)


def test_a_branch_that_goes_while_its_preview_comes_leaves_nothing(repository: Repository) -> None:
    """A hook runs before anything of the stack is there; what began went on, and was nobody's."""
    repository.push("first", {"stack.yml": STACK % "main"})
    repository.add("--previews", "feature/*", "--preview-host", "{branch}.example.org", "--interval", "1s")
    slow = (STACK % "slow").replace("image: busybox,", 'image: busybox, x-hooks: {pre_deploy: [sleep, "8"]},')
    (repository.copy / "stack.yml").write_text(slow)
    repository.git("commit", "-q", "-a", "-m", "slow")
    repository.git("push", "-q", "origin", "HEAD:refs/heads/feature/slow")
    name = f"{repository.name}-{slug('feature/slow')}"

    def hooked() -> None:
        rows = repository.pystack.json("job", "history", "-p", name, "--format", "json")
        assert [r["state"] for r in rows] == ["running"]

    eventually(hooked, 60)
    repository.git("push", "-q", "origin", "--delete", "feature/slow")

    def gone() -> None:
        assert len(repository.pystack.json("gitops", "ls", "--format", "json")) == 1

    eventually(gone, 60)
    end = time.monotonic() + 20  # the hook would have ended by then, and the stack begun
    while time.monotonic() < end:
        assert stacks(repository) == {}
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thirty_branches(repository: Repository) -> None:
    run(repository, BRANCHES, STEPS, seed=7)
