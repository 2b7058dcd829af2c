"""`pystack harden` and `pystack profile record`: what a service needs is found by running it."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Stack

pytestmark = pytest.mark.kernel
NEEDY = """
services:
  needy:
    image: busybox
    stop_grace_period: 0s
    command: sh -c 'mkdir /srv/cache && touch /srv/cache/x && chown 33:33 /srv/cache && touch /tmp/ready && exec sleep 1000'
    healthcheck: {test: [CMD, test, -e, /tmp/ready], interval: 1s, start_interval: 0.2s, start_period: 20s}
"""


def test_what_a_service_needs_beyond_strict_is_printed_to_be_pasted(stack: Stack) -> None:
    stack.write(NEEDY)
    done = stack.run("harden", "needy")
    assert done.stdout.splitlines() == [
        "services:",
        "  needy:",
        "    x-harden: strict",
        "    cap_add: [CHOWN]",
        "    volumes: [/srv]",
    ]
    pasted = NEEDY + "    x-harden: strict\n    cap_add: [CHOWN]\n    volumes: [/srv]\n"
    stack.up(pasted)
    assert stack.ps()["needy-1"]["health"] == "healthy"
    assert stack.run("ps", "-a", "--format", "json").stdout.count("-trial-") == 0
    again = stack.run("harden", "needy").stdout.splitlines()
    assert again == done.stdout.splitlines()[:-1], "what the file mounts is not asked for again"


def test_a_service_that_needs_nothing_more_gets_one_line(stack: Stack) -> None:
    stack.write("services: {a: {image: busybox, command: sleep 1000, stop_grace_period: 0s}}")
    assert stack.run("harden", "a", "--for", "1s").stdout.splitlines()[-1] == "    x-harden: strict"


def test_a_service_that_does_not_run_is_told_with_its_last_words(stack: Stack) -> None:
    stack.write("services: {a: {image: busybox, command: sh -c 'echo no database; exit 3', stop_grace_period: 0s}}")
    done = stack.run("harden", "a", check=False)
    assert done.returncode == 1
    assert "service a does not run as it is: it ended with 3: no database" in done.stderr


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_a_recorded_profile_is_small_and_is_enough(stack: Stack, runtime: str) -> None:
    serve = "command: sh -c 'echo hello > /srv/index.html; exec httpd -f -p 80 -h /srv', stop_grace_period: 0s"
    text = f"services: {{web: {{image: busybox, runtime: {runtime}, {serve}"
    stack.write(f"{text}}}}}")
    test = "wget -q -O /dev/null http://127.0.0.1/"
    file = stack.directory / "web.json"
    words = ("record", "-p", stack.name, "web", "--for", "2s", "--test", test, "-o", str(file))
    done = stack.pystack("-f", str(stack.file), "profile", *words)
    profile = json.loads(file.read_text())
    allowed = {n for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}
    assert {"accept", "bind", "execve"} <= allowed
    assert not allowed & {"ptrace", "mknod", "mq_open", "msgget", "setxattr"}
    assert len(allowed) < 0.6 * int(done.stderr.rpartition("default profile's ")[2])
    stack.up(f"{text}, security_opt: ['seccomp=web.json']}}}}")
    stack.exec("web", "sh", "-c", test)
    assert stack.run("exec", "-T", "web", "mkfifo", "/tmp/fifo", check=False).returncode != 0
