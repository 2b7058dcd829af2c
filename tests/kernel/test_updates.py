"""Replicas that come, go and are exchanged, while somebody talks to them. All parts are real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, eventually

WEB = """
services:
  web:
    image: busybox
    command: sh -c "%(run)s"
    stop_signal: TERM
    stop_grace_period: 2s
    ports: ["18090:80"]
    environment: {VERSION: "%(version)s"}
    deploy:
      replicas: 3
      endpoint_mode: vip
      update_config: {%(update)s}
"""
SERVE = "mkdir -p /w; echo $$VERSION > /w/index.html; trap 'sleep 0.3; exit 0' TERM; httpd -f -p 80 -h /w & wait"
BREAK = "sleep 0.2; exit 7"
TALK = """
import sys, urllib.request
failed, seen = 0, {}
print("on", flush=True)
while True:
    try:
        with urllib.request.urlopen("http://10.99.0.1:18090/", timeout=3) as answer:
            word = answer.read().decode().strip()
            seen[word] = seen.get(word, 0) + 1
    except OSError as error:
        failed += 1
        if failed < 10:
            print(error, file=sys.stderr, flush=True)
    if "%(last)s" in seen and seen["%(last)s"] > 300:
        print(failed, sum(seen.values()))
        break
"""


def versions(stack: Stack) -> dict[str, int]:
    out: dict[str, int] = {}
    for task in stack.ps():
        index = task.rpartition("-")[2]
        word = stack.run("exec", "-T", "--index", index, "web", "cat", "/w/index.html", check=False).stdout.strip()
        out[word] = out.get(word, 0) + 1
    return out


def answer(lab: Pystack) -> str:
    return lab.on("outside", "curl", "-s", "-m", "3", "http://10.99.0.1:18090/").strip()


def test_a_port_is_the_services_or_the_last_replicas(stack: Stack, lab: Pystack) -> None:
    """As replicas come and go, the published port is balanced over all of them, or leads to the one that is left."""
    file = WEB % {"run": SERVE.replace("$$VERSION", "$$HOSTNAME"), "version": "1", "update": ""}
    stack.up(file, "--scale", "web=1")
    alone = answer(lab)
    assert stack.ps()["web-1"]["ports"]
    for count in (3, 1, 2, 1):
        stack.run("up", "--scale", f"web={count}")
        again = "for n in $(seq 40); do curl -s -m 3 http://10.99.0.1:18090/; done"
        seen = set(lab.on("outside", "sh", "-c", again).split())
        assert len(seen) == count
        assert alone in seen
        assert bool(stack.ps()["web-1"]["ports"]) is True
        assert lab.on("n1", "curl", "-s", "-m", "3", "http://127.0.0.1:18090/").strip() in seen


@pytest.mark.parametrize("late", ["", "sleep 1; "], ids=["at once", "late"])
def test_start_first_loses_no_connection(stack: Stack, lab: Pystack, late: str) -> None:
    """Who has no healthcheck is sent connections once it listens, which it may be slow to do."""
    run = SERVE.replace("httpd", f"{late}httpd")
    stack.up(WEB % {"run": run, "version": "one", "update": "order: start-first"})
    assert versions(stack) == {"one": 3}

    def all_answer() -> None:
        many = "for n in $(seq 30); do curl -s -m 3 http://10.99.0.1:18090/ || echo none; done"
        assert set(lab.on("outside", "sh", "-c", many).split()) == {"one"}

    eventually(all_answer)
    with subprocess.Popen(
        ["nsenter", "-t", lab.pid(), "-n", sys.executable, "-c", TALK % {"last": "two"}],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.PIPE,
    ) as client:
        assert client.stdout
        assert client.stderr
        assert client.stdout.readline() == "on\n"
        out = stack.up(WEB % {"run": run, "version": "two", "update": "order: start-first"})
        failed, total = client.stdout.readline().split()
        assert int(failed) == 0, client.stderr.read()
    assert int(total) > 300
    assert versions(stack) == {"two": 3}
    assert f"{stack.name}-web-4" in out.stdout + out.stderr  # the spare, which is gone again
    assert set(stack.ps()) == {"web-1", "web-2", "web-3"}


def test_an_update_that_fails_stops_at_its_first_batch(stack: Stack, lab: Pystack) -> None:
    stack.up(WEB % {"run": SERVE, "version": "one", "update": "parallelism: 1"})
    done = stack.up(WEB % {"run": BREAK, "version": "two", "update": "parallelism: 1, monitor: 2s"}, check=False)
    assert done.returncode == 1
    assert "the update stops here: 2 of 3 tasks keep the definition from before" in done.stderr
    assert "exited with 7" in done.stderr
    assert sum(s["state"] == "running" for s in stack.ps().values()) == 2
    assert answer(lab) == "one"
    stack.up(WEB % {"run": SERVE, "version": "three", "update": "parallelism: 2"})  # mended
    assert versions(stack) == {"three": 3}


def test_an_update_that_fails_is_taken_back(stack: Stack, lab: Pystack) -> None:
    stack.up(WEB % {"run": SERVE, "version": "one", "update": ""})
    back = "parallelism: 2, failure_action: rollback, monitor: 1s"
    done = stack.up(WEB % {"run": BREAK, "version": "two", "update": back}, check=False)
    assert done.returncode == 1
    assert "was taken back" in done.stderr
    assert versions(stack) == {"one": 3}
    assert answer(lab) == "one"
    history = json.loads(stack.run("history", "--format", "json").stdout)
    assert "the update of web failed and was taken back" in json.dumps(history)
    plan = stack.run("plan", "--exit-code", check=False)  # the file still asks for what failed
    assert plan.returncode == 2
    spares = "order: start-first, failure_action: pause, monitor: 1s"  # a spare fails first, nothing else is touched
    done = stack.up(WEB % {"run": BREAK, "version": "three", "update": spares}, check=False)
    assert done.returncode == 1
    assert "3 of 3 tasks keep" in done.stderr
    assert versions(stack) == {"one": 3}


def test_a_failure_that_may_be_goes_on(stack: Stack) -> None:
    stack.up(WEB % {"run": SERVE, "version": "one", "update": ""})
    done = stack.up(WEB % {"run": BREAK, "version": "two", "update": "failure_action: continue, monitor: 1s"}, check=False)
    assert done.returncode == 1
    assert all(s["state"] != "running" for s in stack.ps().values())


def test_a_server_killed_during_an_update_leaves_what_the_next_up_ends(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    stack.up(WEB % {"run": SERVE, "version": "one", "update": ""})
    stack.write(WEB % {"run": SERVE, "version": "two", "update": "order: start-first, delay: 30s"})
    arguments = [sys.executable, "-m", "orchestrator", "-f", str(stack.file), "up", "-p", stack.name]
    with subprocess.Popen(arguments, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):

        def half() -> None:
            assert versions(stack).get("two", 0) >= 2  # one, and the spare

        eventually(half, 20)
        lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")

    def back() -> None:
        assert lab("ls", check=False).returncode == 0

    eventually(back, 20)
    stack.up(WEB % {"run": SERVE, "version": "two", "update": ""})
    assert versions(stack) == {"two": 3}
