"""depends_on under verbs other than `up`: restart, start, run and scale wait for what it says, and tell the truth."""

from __future__ import annotations

import pytest

from tests.conftest import Stack

pytestmark = pytest.mark.kernel
QUIET = "image: busybox\n    stop_grace_period: 0s\n"
CHAIN = f"""
services:
  init:
    {QUIET}    command: ["sh", "-c", "sleep 0.5; test ! -e /state/broken"]
    volumes: ['state:/state']
  base:
    {QUIET}    command: ["sh", "-c", "sleep 0.3; touch /tmp/ready; exec sleep 1000"]
    healthcheck: {{test: test -e /tmp/ready, interval: 100ms, retries: 50}}
    depends_on: {{init: {{condition: service_completed_successfully}}}}
  web:
    {QUIET}    command: sleep 1000
    depends_on: {{base: {{condition: service_healthy}}}}
  keeper:
    {QUIET}    command: sleep 1000
    volumes: ['state:/state']
volumes: {{state: {{}}}}
"""


def started(stack: Stack) -> dict[str, str]:
    return {name: str(row["started"]) for name, row in stack.ps().items()}


@pytest.mark.parametrize("verb", ["restart", "stop start"])
def test_each_waits_for_what_it_depends_on(stack: Stack, verb: str) -> None:
    stack.up(CHAIN)
    before = started(stack)
    for word in verb.split():
        stack.run(word)
    after = started(stack)
    assert all(after[name] > before[name] for name in ("init-1", "base-1", "web-1"))
    assert after["init-1"] < after["base-1"] < after["web-1"]
    assert stack.ps()["base-1"]["health"] == "healthy"


@pytest.mark.parametrize("verb", ["restart", "start"])
def test_a_dependency_that_fails_keeps_the_others_back(stack: Stack, verb: str) -> None:
    stack.up(CHAIN)
    stack.exec("keeper", "touch", "/state/broken")
    if verb == "start":
        stack.run("stop", "init", "base", "web")
    before = started(stack)
    done = stack.run(verb, check=False)
    assert done.returncode == 1, done.stderr
    assert "was not started: it waits for init (service_completed_successfully)" in done.stderr
    assert "was not started: it waits for base (service_healthy)" in done.stderr
    after = started(stack)
    assert after["init-1"] > before["init-1"]
    assert (after["base-1"], after["web-1"]) == (before["base-1"], before["web-1"])


def test_run_and_scale_wait_too(stack: Stack) -> None:
    stack.up(CHAIN)
    stack.run("run", "--rm", "-T", "web", "true")
    stack.exec("keeper", "touch", "/state/broken")
    stack.run("restart", "--no-deps", "init", check=False)
    for words in (("run", "--rm", "-T", "base", "echo", "it ran"), ("scale", "base=2")):
        done = stack.run(*words, check=False)
        assert done.returncode == 1, (words, done.stderr)
        assert "it ran" not in done.stdout
        assert "it waits for init (service_completed_successfully)" in done.stderr
    assert stack.ps().get("base-2", {}).get("state") != "running"
    assert stack.run("run", "--rm", "-T", "--no-deps", "base", "echo", "it ran").stdout == "it ran\n"


def test_one_alone_does_not_wait_for_what_only_has_to_be_started(stack: Stack) -> None:
    stack.up(
        f"services:\n  a:\n    {QUIET}    command: sleep 1000\n  b:\n    {QUIET}    command: sleep 1000\n    depends_on: [a]\n"
    )
    stack.run("stop", "a")
    before = started(stack)
    stack.run("restart", "b")
    assert stack.ps()["a-1"]["state"] == "exited"
    assert started(stack)["b-1"] > before["b-1"]


def test_what_was_restarted_and_ends_badly_is_told(stack: Stack) -> None:
    stack.up(f"services:\n  a:\n    {QUIET}    command: [sh, -c, 'test ! -e /seen || exit 3; touch /seen; exec sleep 1000']\n")
    done = stack.run("restart", check=False)
    assert done.returncode == 1
    assert "exited with 3" in done.stderr
