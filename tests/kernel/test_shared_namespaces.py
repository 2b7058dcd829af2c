"""Namespaces of another service outlive its restarts, and who is in them follows where they cannot."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from tests.conftest import Stack, eventually

pytestmark = pytest.mark.kernel
QUIET = "image: busybox\n    stop_grace_period: 0s\n"
SIDECAR = f"""
services:
  vpn:
    {QUIET}    command: sleep 1000
    restart: always
    environment: {{V: '{{value}}'}}
    ports: ['{{port}}:80']
  app:
    {QUIET}    command: httpd -f -p 80 -h /srv
    network_mode: service:vpn
    {{more}}
  stranger:
    {QUIET}    command: sleep 1000
"""


def sidecar(value: int, port: int, more: str = "") -> str:
    return SIDECAR.replace("{value}", str(value)).replace("{port}", str(port)).replace("{more}", more)


def answers(stack: Stack, port: int, within_s: float = 10) -> None:
    words = ("wget", "-q", "-T", "1", "-O", "-", f"http://127.0.0.1:{port}/hello")

    def asked() -> None:
        assert "hello" in stack.pystack.on("n1", *words, check=False)

    eventually(asked, within_s)


def end_of(stack: Stack, service: str) -> None:
    """Kill the process behind its node's back, and wait until its policy has started it again."""
    before = stack.ps()[f"{service}-1"]
    pid = json.loads(stack.pystack("container", "inspect", f"{stack.name}-{service}-1").stdout)[0]["State"]["Pid"]
    stack.pystack.on("n1", "kill", "-9", str(pid))

    def again() -> None:
        row = stack.ps()[f"{service}-1"]
        assert row["state"] == "running"
        assert row["started"] != before["started"]

    eventually(again)


class Client(threading.Thread):
    """Asks the published port every 20 ms, in the node's own network namespace."""

    def __init__(self, stack: Stack, port: int) -> None:
        super().__init__()
        self.stack, self.port, self.ended = stack, port, threading.Event()
        self.said: list[tuple[float, bool]] = []

    def run(self) -> None:
        script = (
            f"while :; do if wget -q -T 1 -O /dev/null http://127.0.0.1:{self.port}/hello 2>/dev/null; "
            "then echo 1; else echo 0; fi || exit; sleep 0.02; done 2>/dev/null"
        )
        lab = ("lab", "exec", "--name", self.stack.pystack.lab, "n1", "--")
        words = [sys.executable, "-m", "orchestrator", *lab, "sh", "-c", script]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=self.stack.pystack.environment) as talk:
            assert talk.stdout
            for line in talk.stdout:
                self.said.append((time.monotonic(), line.strip() == "1"))
                if self.ended.is_set():
                    break
            talk.terminate()

    def gaps(self) -> list[float]:
        """How long it failed, each time, in seconds."""
        out, since = [], 0.0
        for when, good in self.said:
            if good and since:
                out.append(when - since)
                since = 0.0
            elif not good and not since:
                since = when
        return out


def test_a_network_namespace_outlives_its_owner_and_users_follow_a_new_one(stack: Stack) -> None:
    port = 18473
    stack.up(sidecar(0, port))
    answers(stack, port)
    first = stack.ps()
    client = Client(stack, port)
    client.start()
    try:
        for _ in range(3):
            stack.run("restart", "vpn")
        for _ in range(3):  # by its policy
            end_of(stack, "vpn")
        after = stack.ps()
        assert after["vpn-1"]["started"] > first["vpn-1"]["started"]  # type: ignore[operator]
        assert after["app-1"]["started"] == first["app-1"]["started"]
        answers(stack, port)
        for value in (1, 2):
            stack.write(sidecar(value, port))
            steps = json.loads(stack.run("plan", "--json").stdout)["steps"]
            assert {s["name"].removeprefix(f"{stack.name}-"): s["action"] for s in steps if s["kind"] == "task"} == {
                "vpn-1": "replace",
                "app-1": "update",
                "stranger-1": "none",
            }
            assert "it has its network namespace" in next(s["reason"] for s in steps if s["name"].endswith("app-1"))
            stack.run("up")
            answers(stack, port, 2)
        assert not any(json.loads(stack.run("plan", "--json").stdout)["summary"].values())
        last = stack.ps()
        assert last["stranger-1"]["started"] == first["stranger-1"]["started"]
        assert last["app-1"]["id"] == first["app-1"]["id"]
        assert last["vpn-1"]["id"] != first["vpn-1"]["id"]
    finally:
        client.ended.set()
        client.join()
    assert client.said
    assert max([0.0, *client.gaps()]) < 3, client.gaps()


@pytest.mark.parametrize("key", ["pid", "ipc", "network_mode"])
def test_users_of_every_kind_are_there_after_a_restart_and_a_replacement(stack: Stack, key: str) -> None:
    text = (
        f"services:\n  one:\n    {QUIET}    command: sleep 1000\n    restart: always\n    environment: {{{{V: '{{}}'}}}}\n"
        f"  two:\n    {QUIET}    command: sleep 2000\n    {key}: service:one\n"
    )
    stack.up(text.format(1))
    kind = {"pid": "pid", "ipc": "ipc", "network_mode": "net"}[key]

    def together() -> None:
        rows = stack.ps()
        assert {row["state"] for row in rows.values()} == {"running"}
        spaces = {stack.exec(name, "readlink", f"/proc/self/ns/{kind}") for name in ("one", "two")}
        assert len(spaces) == 1

    together()
    stack.run("restart", "one")
    together()
    end_of(stack, "one")
    eventually(together)
    stack.up(text.format(2))
    together()
    stack.run("up", "--force-recreate", "--no-deps", "one")
    together()


def test_shared_memory_is_that_of_the_owner_of_the_ipc_namespace(stack: Stack) -> None:
    """Its size is the owner's, and what is in it outlives a restart of the owner as the namespace does."""
    stack.up(
        f"services:\n  one:\n    {QUIET}    command: sleep 1000\n    shm_size: 8m\n"
        f"  two:\n    {QUIET}    command: sleep 2000\n    ipc: service:one\n    shm_size: 32m\n"
    )
    stack.exec("one", "sh", "-c", "echo shared > /dev/shm/word")
    assert stack.exec("two", "cat", "/dev/shm/word") == "shared\n"
    assert {stack.exec(name, "stat", "-f", "-c", "%b %S", "/dev/shm") for name in ("one", "two")} == {"2048 4096\n"}
    options = stack.exec("two", "grep", " /dev/shm ", "/proc/mounts").split()[3].split(",")
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(options)
    stack.run("restart", "one")
    assert stack.exec("one", "cat", "/dev/shm/word") == "shared\n"
    stack.exec("two", "rm", "/dev/shm/word")
    assert stack.exec("one", "ls", "/dev/shm") == ""


def test_volumes_of_another_are_those_of_its_new_container(stack: Stack) -> None:
    text = (
        f"services:\n  one:\n    {QUIET}    command: sleep 1000\n    volumes: ['{{}}:/data']\n"
        f"  two:\n    {QUIET}    command: sleep 2000\n    volumes_from: [one]\nvolumes: {{{{a: {{{{}}}}, b: {{{{}}}}}}}}\n"
    )
    stack.up(text.format("a"))
    stack.exec("one", "touch", "/data/first")
    assert stack.exec("two", "ls", "/data") == "first\n"
    stack.up(text.format("b"))
    stack.exec("one", "touch", "/data/second")
    assert stack.exec("two", "ls", "/data") == "second\n"


def test_the_last_one_out_lets_the_namespace_go(stack: Stack) -> None:
    stack.up(sidecar(0, 18474))
    ident = str(stack.ps()["vpn-1"]["id"])[:16]
    names = f"{stack.pystack.environment['PYSTACK_ROOT']}/run/netns"
    stack.run("stop", "vpn")
    assert ident in stack.pystack.on("n1", "ls", names)
    stack.run("stop", "app")

    def gone() -> None:
        assert ident not in stack.pystack.on("n1", "ls", names)

    eventually(gone)
    stack.run("start")
    answers(stack, 18474)


def test_the_namespace_outlives_an_agent_too(stack: Stack) -> None:
    stack.up(sidecar(0, 18475))
    stack.run("stop", "vpn")
    stack.pystack("lab", "fault", "--name", stack.pystack.lab, "kill", "n1", "agent")

    def back() -> None:
        assert stack.run("start", "vpn", check=False).returncode == 0

    eventually(back)
    answers(stack, 18475)


def test_a_donor_that_is_missing_is_told_at_once(stack: Stack) -> None:
    for more in ("network_mode: service:vpn", "volumes_from: [vpn]", "pid: service:vpn"):
        stack.write(
            f"services:\n  vpn:\n    {QUIET}    command: sleep 1000\n  app:\n    {QUIET}    command: sleep 1000\n    {more}\n"
        )
        done = stack.run("up", "--no-deps", "app", check=False)
        assert done.returncode == 1
        assert "app needs the container of vpn" in done.stderr
        assert stack.ps() == {}
        stack.down()
