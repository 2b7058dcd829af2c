"""Testcontainers for Python, with its reaper, as its documentation shows: containers with ports and waits, networks, builds,
and that what a program left behind is taken away after it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import docker
from cases import case, run_all, until
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

CLIENT = docker.from_env()
CHILD = """
import os, sys
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
network = Network()
network.create()
one = DockerContainer("busybox").with_command("sleep 1000").with_network(network)
one = one.with_volume_mapping("tc-left", "/data", "rw").start()
from testcontainers.core.labels import SESSION_ID
print(SESSION_ID, one.get_wrapped_container().id, flush=True)
sys.stdin.read()
"""


@case
def a_server():
    with DockerContainer("busybox").with_command("httpd -f -p 80 -h /srv").with_exposed_ports(80) as one:
        host, port = one.get_container_host_ip(), one.get_exposed_port(80)
        url = f"http://{host}:{port}/hello"
        assert until(lambda: urllib.request.urlopen(url, timeout=5).read()) == b"hello from the image\n"
        code, said = one.exec(["cat", "/srv/hello"])
        assert (code, said) == (0, b"hello from the image\n")
        labels = one.get_wrapped_container().labels
        assert labels["org.testcontainers"] == "true"
        assert labels["org.testcontainers.session-id"]
        reapers = CLIENT.containers.list(filters={"name": "testcontainers-ryuk-"})
        assert [c.name for c in reapers] == [f"testcontainers-ryuk-{labels['org.testcontainers.session-id']}"]


@case
def what_it_says():
    with DockerContainer("busybox").with_command("sh -c 'echo one; sleep 0.5; echo ready; echo bad >&2; sleep 1000'") as one:
        wait_for_logs(one, "ready", timeout=20)
        out, err = until(lambda: (found := one.get_logs())[1] and found)
        assert (out, err) == (b"one\nready\n", b"bad\n")


@case
def two_on_a_network():
    with (
        Network() as network,
        DockerContainer("busybox")
        .with_command("httpd -f -p 8080 -h /srv")
        .with_network(network)
        .with_network_aliases("server") as _server,
        DockerContainer("busybox").with_command("sleep 1000").with_network(network) as reader,
    ):
        until(lambda: reader.exec("wget -q -O- http://server:8080/hello") == (0, b"hello from the image\n"))


@case
def options():
    one = DockerContainer("busybox").with_env("A", "b").with_command("sh -c 'env; sleep 1000'").with_name("tc-named")
    one.with_bind_ports(81, 28081).with_kwargs(mem_limit="64m", hostname="inside")
    with one:
        wait_for_logs(one, "A=b", timeout=20)
        wrapped = one.get_wrapped_container()
        wrapped.reload()
        assert wrapped.name == "tc-named"
        assert wrapped.attrs["HostConfig"]["Memory"] == 64 << 20
        assert int(one.get_exposed_port(81)) == 28081
        client = one.get_docker_client()
        assert client.bridge_ip(wrapped.id).count(".") == 3
        assert client.gateway_ip(wrapped.id).count(".") == 3
        assert client.network_name(wrapped.id) == "bridge"


@case
def a_failed_start():
    try:
        DockerContainer("busybox").with_command("nosuchcommand").start()
    except docker.errors.APIError as error:
        assert "executable file not found" in str(error.explanation), error
    else:
        raise AssertionError("it started")


@case
def a_build():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text(
            'FROM busybox\nRUN echo built > /built\nCMD ["sh", "-c", "cat /built; sleep 1000"]\n'
        )
        with DockerImage(path=folder, tag="tc/built:1") as image, DockerContainer(str(image)) as one:
            wait_for_logs(one, "built", timeout=20)


@case
def what_is_left_behind():
    """A child is killed as by a CI job's end; the reaper of its session takes away what it made."""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        session, ident = child.stdout.readline().split()
        reaper = CLIENT.containers.get(f"testcontainers-ryuk-{session}")
        label = {"label": f"org.testcontainers.session-id={session}"}
        assert [c.id for c in CLIENT.containers.list(filters=label)] == [ident]
        assert len(CLIENT.networks.list(filters=label)) == 1
        os.kill(child.pid, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: not CLIENT.containers.list(all=True, filters=label), 40)
        assert time.monotonic() - began > 1  # the patience that was asked for, and not the daemon's own doing
        until(lambda: not CLIENT.networks.list(filters=label))

    def reaper_is_gone():
        try:
            reaper.reload()
        except docker.errors.NotFound:
            return True
        return False

    until(reaper_is_gone, 40)
    CLIENT.volumes.get("tc-left").remove()


if __name__ == "__main__":
    os.environ.setdefault("RYUK_RECONNECTION_TIMEOUT", "2s")
    run_all(lambda function: function())
