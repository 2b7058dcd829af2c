"""`run`: every option, and the containers that it leaves, as Docker's tools and pystack's own verbs see them."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Stack, eventually

pytestmark = pytest.mark.kernel
ONE = """
services:
  a:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    environment: {KEPT: one, CHANGED: one}
    labels: {kept: one}
    ports: ['18650:80']
"""


def once(stack: Stack, *arguments: str) -> str:
    return stack.run("run", "--rm", "-T", *arguments).stdout


def test_options_change_what_runs(stack: Stack) -> None:
    stack.write(ONE)
    (stack.directory / "more.env").write_text("CHANGED=two\nFILE=three\n")
    said = once(stack, "--env-from-file", str(stack.directory / "more.env"), "-e", "LAST=four", "a", "env").split()
    assert {"KEPT=one", "CHANGED=two", "FILE=three", "LAST=four"} <= set(said)
    assert once(stack, "--entrypoint", "echo", "a") == "\n"  # the service's command is nothing for another entrypoint
    assert once(stack, "--entrypoint", "echo hello", "a", "you") == "hello you\n"
    assert once(stack, "-u", "7", "-w", "/srv", "a", "sh", "-c", "id -u; pwd") == "7\n/srv\n"
    (stack.directory / "here").mkdir()
    (stack.directory / "here" / "file").write_text("mine\n")
    assert once(
        stack, "-v", f"{stack.directory}/here:/there:ro", "a", "sh", "-c", "cat /there/file; touch /there/x || echo ro"
    ).split() == ["mine", "ro"]
    effective = "grep CapEff /proc/self/status"
    plain = int(once(stack, "a", "sh", "-c", effective).split()[1], 16)
    more = int(once(stack, "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "a", "sh", "-c", effective).split()[1], 16)
    assert more & 1 << 12
    assert not plain & 1 << 12
    assert plain & 1
    assert not more & 1


def test_ports_of_its_own_or_of_the_service(stack: Stack) -> None:
    stack.write(ONE)
    both = stack.run("run", "--service-ports", "--publish", "18651:80", "a", "true", check=False)
    assert both.returncode == 2
    assert "exclude each other" in both.stderr
    for option, port in (("--publish 18651:81", 18651), ("-P", 18650)):
        name = f"{stack.name}-r{port}"
        inside = "80" if option == "-P" else "81"
        stack.run("run", "-d", "--name", name, *option.split(), "a", "httpd", "-f", "-p", inside, "-h", "/srv")

        def answers(port: int = port) -> None:
            said = stack.pystack.on("n1", "wget", "-q", "-T", "1", "-O", "-", f"http://127.0.0.1:{port}/hello", check=False)
            assert "hello" in said

        eventually(answers)
    assert stack.run("ps", "-q").stdout == ""


def test_they_are_seen_by_all_and_go_with_the_orphans(stack: Stack) -> None:
    stack.up(ONE)
    stack.run("run", "-d", "--name", f"{stack.name}-lives", "-l", "mine=yes", "a", "sleep", "1000")
    stack.run("run", "-T", "--name", f"{stack.name}-ended", "a", "true")
    assert set(stack.ps()) == {"a-1"}
    rows = {r["task"].removeprefix(f"{stack.name}-"): r for r in json.loads(stack.run("ps", "-a", "--format", "json").stdout)}
    assert {name: (r["state"], r["oneoff"]) for name, r in rows.items()} == {
        "a-1": ("running", False),
        "lives": ("running", True),
        "ended": ("exited", True),
    }
    (seen,) = json.loads(stack.pystack("container", "inspect", f"{stack.name}-lives").stdout)
    labels = seen["Config"]["Labels"]
    assert {k: labels[f"com.docker.compose.{k}"] for k in ("project", "service", "oneoff", "container-number")} == {
        "project": stack.name,
        "service": "a",
        "oneoff": "True",
        "container-number": "1",
    }
    assert (labels["kept"], labels["mine"]) == ("one", "yes")
    (task,) = json.loads(stack.pystack("container", "inspect", f"{stack.name}-a-1").stdout)
    assert task["Config"]["Labels"]["com.docker.compose.oneoff"] == "False"
    stack.run("stop")
    assert stack.exec("a", "echo", "in the other one") == "in the other one\n"
    stack.run("start")
    stack.run("up", "--remove-orphans")
    assert {r["task"] for r in json.loads(stack.run("ps", "-a", "--format", "json").stdout)} == {
        f"{stack.name}-a-1",
        f"{stack.name}-lives",
    }
    stack.run("down")
    assert stack.pystack("container", "inspect", f"{stack.name}-lives", check=False).returncode == 1


def test_the_service_answers_for_it_only_where_that_is_asked_for(stack: Stack) -> None:
    stack.up(
        "services:\n  a:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n"
        "  b:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n"
    )
    stack.run("rm", "-sf", "a")
    stack.run("run", "-d", "--name", f"{stack.name}-one", "a", "sleep", "1000")
    assert (
        "can't resolve" in stack.run("exec", "-T", "b", "sh", "-c", "nslookup a 2>&1; true").stdout
        or stack.run("exec", "-T", "b", "nslookup", "a", check=False).returncode
    )
    stack.run("run", "-d", "--use-aliases", "--name", f"{stack.name}-two", "a", "sleep", "1000")
    assert stack.run("exec", "-T", "b", "ping", "-c1", "-W2", "a").returncode == 0
