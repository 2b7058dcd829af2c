"""Who may use a node's Docker socket, and for what: a group, readers, a project, certificates, and a connection over SSH's two
streams. And runtimes that a node's settings name."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, cluster_of, eventually
from tests.kernel.test_tls import issue

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no `docker` client on PATH"),
]
FILE = """
services:
  web: {image: busybox, command: sleep 1000, volumes: ["own:/v"]}
volumes: {own: {}}
"""


class Node:
    """A node with doors, one stack `shop` and a container of nobody's."""

    def __init__(self, lab: Pystack, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.run = Path(lab.environment["PYSTACK_ROOT"]) / "run"

    def docker(self, door: str, *words: str, code: int = 0, **environment: str) -> str:
        """The command through a socket, or with *door* a whole DOCKER_HOST through that, in the node's network."""
        host = door if "://" in door else f"unix://{self.run}/{door}"
        given = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")} | {"DOCKER_HOST": host} | environment
        inside = ["nsenter", "-t", self.lab.pid("n1"), "-n"] if "://" in door else []
        done = subprocess.run(
            [*inside, "docker", "--config", str(self.folder), *words],
            capture_output=True,
            text=True,
            env=given,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("doors")
    ours, theirs = (issue(folder / name, name, None, "127.0.0.1") for name in ("ca", "stranger"))
    issue(folder / "server", "server", ours, "127.0.0.1")
    issue(folder / "client", "client", ours, "127.0.0.1")
    issue(folder / "other", "other", theirs, "127.0.0.1")
    shutil.copy(folder / "ca/cert.pem", folder / "other/ca.pem")
    loud = folder / "loud"
    loud.write_text(f'#!/bin/sh\necho "$1 $*" >> {folder}/called\nshift\nexec {shutil.which("runc")} "$@"\n')
    loud.chmod(0o755)
    with cluster_of(1) as lab:
        made = Node(lab, folder)
        server = folder / "server"
        (made.run.parent / "config.yml").write_text(f"""
runtimes: {{loud: [{loud}, first-word]}}
docker:
  group: adm
  doors:
  - {{path: {made.run}/read.sock, group: games, access: read}}
  - {{path: {made.run}/shop.sock, project: shop}}
  - {{listen: "tcp://127.0.0.1:2376", ca: {server}/ca.pem, cert: {server}/cert.pem, key: {server}/key.pem}}
""")
        lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")
        eventually(lambda: made.docker("docker.sock", "version") and None, 30)
        (folder / "shop.yml").write_text(FILE)
        lab("up", "-f", str(folder / "shop.yml"), "-p", "shop")
        made.docker("docker.sock", "run", "-d", "--name", "nobodys", "busybox", "sleep", "1000")
        yield made


def test_a_socket_is_its_groups(node: Node) -> None:
    for name, group in (("docker.sock", "adm"), ("read.sock", "games"), ("shop.sock", "root")):
        path = node.run / name
        assert path.group() == group
        assert path.stat().st_mode & 0o777 == 0o660


def test_who_may_read_changes_nothing(node: Node) -> None:
    assert "nobodys" in node.docker("read.sock", "ps")
    assert node.docker("read.sock", "inspect", "nobodys", "-f", "{{.State.Running}}") == "true"
    for words in (
        ("rm", "nobodys"),
        ("exec", "nobodys", "true"),
        ("volume", "create", "x"),
        ("system", "prune", "-f"),
        ("create", "busybox"),
        ("kill", "nobodys"),
        ("tag", "busybox", "other"),
    ):
        assert "this socket is for reading" in node.docker("read.sock", *words, code=1)
    # what of ours is beside Docker's paths is not there at all, and a GET that gives input is no reading
    for path, status in (("/pystack/status", b"404"), ("/v1.43/containers/nobodys/attach/ws", b"403")):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(node.run / "read.sock"))
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert raw.makefile("rb").readline().split()[1] == status
    assert "nobodys" in node.docker("docker.sock", "ps")


def test_a_projects_socket_shows_that_project(node: Node) -> None:
    assert node.docker("shop.sock", "ps", "-a", "--format", "{{.Names}}") == "shop-web-1"
    assert node.docker("shop.sock", "ps", "-f", "label=none", "-q") == ""
    assert node.docker("shop.sock", "volume", "ls", "-q") == "shop_own"
    assert node.docker("shop.sock", "network", "ls", "--format", "{{.Name}}") == "shop_default"
    assert node.docker("shop.sock", "exec", "shop-web-1", "echo", "in") == "in"
    assert node.docker("shop.sock", "inspect", "shop-web-1", "-f", "{{.Name}}") == "/shop-web-1"
    for words in (
        ("exec", "nobodys", "true"),
        ("logs", "nobodys"),
        ("rm", "nobodys"),
        ("volume", "inspect", "other"),
        ("network", "inspect", "bridge"),
    ):
        assert "o such" in (said := node.docker("shop.sock", *words, code=1)) or "not found" in said
    for words in (
        ("volume", "create", "x"),
        ("volume", "rm", "shop_own"),
        ("network", "create", "x"),
        ("create", "busybox"),
        ("system", "prune", "-f"),
    ):
        said = node.docker("shop.sock", *words, code=1)
        assert "this socket is for the containers of shop alone" in said, words


def test_events_of_a_project_are_its_own(node: Node) -> None:
    begin = node.docker("docker.sock", "info", "-f", "{{.SystemTime}}")
    node.docker("docker.sock", "exec", "nobodys", "true")
    node.docker("shop.sock", "exec", "shop-web-1", "true")
    end = node.docker("docker.sock", "info", "-f", "{{.SystemTime}}")
    said = node.docker(
        "shop.sock",
        "events",
        "--since",
        begin,
        "--until",
        end,
        "--format",
        '{{.Actor.Attributes.name}} {{index .Actor.Attributes "com.docker.compose.service"}}',
    )
    assert set(said.splitlines()) == {"shop-web-1 web"}


def test_tls_lets_in_whom_the_authority_knows(node: Node) -> None:
    def through(who: str, *words: str, code: int = 0) -> str:
        return node.docker(
            "tcp://127.0.0.1:2376",
            "--tlsverify",
            *(
                f"--tls{key}={node.folder}/{who}/{file}.pem"
                for key, file in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))
            ),
            *words,
            code=code,
        )

    assert "nobodys" in through("client", "ps")
    assert through("client", "exec", "nobodys", "echo", "over") == "over"
    assert through("client", "run", "--rm", "-i", "busybox", "echo", "tls") == "tls"
    assert "certificate" in through("other", "ps", code=1)


def test_ssh_needs_a_command_that_connects(node: Node) -> None:
    """What sshd runs for `docker -H ssh://…`: its input and output are the Docker socket."""
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "system", "dial-stdio", "--docker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=node.lab.environment,
    ) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        child.stdin.flush()
        said = child.stdout.read()
        child.stdin.close()
        child.wait(20)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert said.endswith(b"OK")


def test_a_runtime_of_the_settings_runs_what_asks_for_it(node: Node) -> None:
    called = node.folder / "called"
    assert node.docker("docker.sock", "run", "--rm", "busybox", "echo", "plain") == "plain"
    assert not called.exists()
    assert node.docker("docker.sock", "run", "--name", "louder", "--runtime", "loud", "-d", "busybox", "sleep", "1000")
    assert node.docker("docker.sock", "inspect", "louder", "-f", "{{.HostConfig.Runtime}}") == "loud"
    assert node.docker("docker.sock", "exec", "louder", "echo", "in") == "in"
    node.docker("docker.sock", "pause", "louder")
    node.docker("docker.sock", "unpause", "louder")
    node.docker("docker.sock", "rm", "-f", "louder")
    verbs = called.read_text()
    assert all(line.startswith("first-word ") for line in verbs.splitlines())
    assert all(f" {verb} " in verbs for verb in ("create", "start", "exec", "pause", "resume", "delete"))
    assert node.docker("docker.sock", "run", "--rm", "--runtime", "runc", "busybox", "echo", "runc") == "runc"
    assert "loud" in node.docker("docker.sock", "info", "-f", "{{json .Runtimes}}")
    assert "Unknown runtime specified nosuch" in node.docker("docker.sock", "run", "--runtime", "nosuch", "busybox", code=125)
