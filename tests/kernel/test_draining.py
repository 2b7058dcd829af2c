"""Who is about to end gets no new connection and keeps those that it has, on every node; nobody stays drained."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

WEB = """
services:
  web:
    image: busybox
    command: sh -c "mkdir -p /w; echo $$VERSION > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    ports: ["18091:80"]
    environment: {VERSION: "%s"}
    deploy: {replicas: 3, update_config: {parallelism: 1, monitor: 600s}}
"""
ECHO = """
services:
  echo:
    image: busybox
    command: sh -c "trap 'sleep 4; exit 0' TERM; nc -l -p 80 -e cat & while :; do sleep 0.1; done"
    stop_grace_period: 20s
    ports: ["18092:80"]
    deploy: {placement: {constraints: [node.hostname == n3]}}
"""
TALK = """
import socket, sys, time
def connected():
    for _ in range(100):
        try:
            talk = socket.create_connection((sys.argv[1], 18092), 2)
            talk.sendall(b"x")
            if talk.recv(1) == b"x":
                return talk
        except OSError:
            time.sleep(0.1)
with connected() as talk:
    print("on", flush=True)
    begun = time.monotonic()
    try:
        while True:
            talk.sendall(b"x")
            if not talk.recv(1):
                break
            time.sleep(0.05)
    except TimeoutError:
        print("nothing came for 2 s, after", time.monotonic() - begun)
        sys.exit(1)
    except OSError:
        pass
    print(time.monotonic() - begun)
"""


def _is(found: object, wanted: object) -> None:
    assert found == wanted


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        yield pystack


def answers(lab: Pystack) -> set[str]:
    ask = "for n in 1 2 3; do curl -s -m 3 http://10.99.0.$n:18091/ || echo none; done"
    return set(lab.on("outside", "sh", "-c", ask).split())


def test_a_node_without_containers_answers_published_ports(stack: Stack, lab: Pystack) -> None:
    """Its agent never attached a container, and whoever turns forwarding off there is told of by doctor, which turns it on."""
    stack.up((WEB % "one").replace("replicas: 3", "placement: {constraints: [node.hostname == n3]}"))
    eventually(lambda: _is(answers(lab), {"one"}))

    def told() -> None:
        """A change of the node's endpoints turns it on again: then it is taken once more."""
        for node in ("n1", "n2"):
            lab.on(node, "sysctl", "-qw", "net.ipv4.ip_forward=0")
        assert "none" in answers(lab)
        found = json.loads(lab("doctor", "--format", "json", check=False).stdout)
        assert {c["target"].split(":")[0] for c in found if c["check"] == "sysctl" and not c["ok"]} == {"n1", "n2"}

    eventually(told)
    lab("doctor", "--repair", check=False)
    eventually(lambda: _is(answers(lab), {"one"}))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-C", "kill -9"])
def test_an_update_whose_client_goes_away_leaves_every_task_its_connections(
    stack: Stack, lab: Pystack, number: signal.Signals
) -> None:
    """Each node's port leads to its own replica: the new one rests while it is watched, which goes on in the cluster; whoever
    gives that up leaves none resting."""
    stack.up(WEB % "one")
    eventually(lambda: _is(answers(lab), {"one"}))
    stack.write(WEB % "two")
    # who runs the tests in the background may have SIGINT ignored, and children inherit that
    words = ["env", "--default-signal=INT", sys.executable, "-m", "orchestrator", "-f", str(stack.file), "up", "-p", stack.name]
    with subprocess.Popen(words, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:

        def exchanged() -> None:
            read = ("exec", "-T", "--index")
            assert "two\n" in {stack.run(*read, n, "web", "cat", "/w/index.html", check=False).stdout for n in "123"}

        eventually(exchanged, 20)
        client.send_signal(number)
        client.wait(30)
    lab("rollout", "abort", "-p", stack.name)
    home = {str(row["node"]) for row in stack.ps().values()}
    assert home == {"n1", "n2", "n3"}

    def each_answers() -> None:
        assert answers(lab) == {"one"}

    eventually(each_answers, 20)


@pytest.mark.parametrize("verb", ["down", "rm -f -s echo", "stop"])
def test_a_connection_by_way_of_another_node_lives_as_long_as_its_container(stack: Stack, lab: Pystack, verb: str) -> None:
    stack.up(ECHO)
    with subprocess.Popen(
        ["nsenter", "-t", lab.pid(), "-n", sys.executable, "-c", TALK, "10.99.0.1"],
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout
        assert client.stdout.readline() == "on\n"
        stack.run(*verb.split())
        said = client.stdout.readline()
        assert client.wait(10) == 0, said
        assert float(said) > 3
