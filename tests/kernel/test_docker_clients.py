"""What other programs do with a node's Docker socket: many at once, and a proxy that follows what comes and goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest

from bench.clients import Clients
from tests.conftest import Pystack, Stack, eventually

# the client library leaves sockets and files to the garbage collector
pytestmark = [
    pytest.mark.long,
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def socket(lab: Pystack) -> str:
    return f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"


@pytest.fixture(scope="module")
def client(socket: str) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=f"unix://{socket}", timeout=60)
    yield made
    made.close()


def test_commands_on_terminals_that_end_at_once_lose_nothing(client: docker.DockerClient) -> None:
    """crun takes what such a command wrote for a complaint of its own, where it has not looked at the terminal yet."""
    one = client.containers.run("busybox", ["sleep", "1000"], detach=True, name="terminals")
    try:

        def run(number: int) -> tuple[int, bytes, int]:
            ident = client.api.exec_create(one.id, ["sh", "-c", f"echo one; echo {number}; exit 3"], tty=True)["Id"]
            output = client.api.exec_start(ident, tty=True)
            return number, output, client.api.exec_inspect(ident)["ExitCode"]

        with ThreadPoolExecutor(8) as pool:
            for number, output, code in pool.map(run, range(120)):
                assert (output, code) == (f"one\r\n{number}\r\n".encode(), 3)
        said = client.api.exec_start(client.api.exec_create(one.id, ["nosuch"], tty=True)["Id"], tty=True)
        assert said.count(b"executable file not found in $PATH") == 1
        assert said.startswith(b"OCI runtime exec failed")
    finally:
        one.remove(force=True)


def test_200_clients_at_once(socket: str) -> None:
    result = asyncio.run(Clients(socket, 200, 6).run())
    assert [e for e in result.errors if "nothing was to be heard" not in e] == []  # that, a loaded machine has no time for
    assert result.asked > 200


class Proxy:
    """What a reverse proxy's provider for Docker does: it looks once, and then at what events name, alone.

    Source: Traefik, "Docker provider": labels `traefik.enable` and `traefik.http.routers.NAME.rule`."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client, self.routes, self.looks = client, dict[str, tuple[str, str]](), 0
        filters = {"type": "container", "event": ["start", "die", "health_status"], "label": "traefik.enable=true"}
        self._stream = client.events(decode=True, filters=filters)
        for row in client.api.containers(filters={"label": ["traefik.enable=true"]}):
            self._look(row["Id"])
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _look(self, ident: str) -> None:
        self.looks += 1
        try:
            found = self.client.api.inspect_container(ident)
        except docker.errors.NotFound:
            self.routes.pop(ident, None)
            return
        labels, networks = found["Config"]["Labels"], found["NetworkSettings"]["Networks"]
        rules = [v for k, v in labels.items() if k.startswith("traefik.http.routers.") and k.endswith(".rule")]
        addresses = [n["IPAddress"] for n in networks.values() if n["IPAddress"]]
        port = next(iter(found["Config"]["ExposedPorts"] or ["/"])).partition("/")[0]
        if found["State"]["Running"] and rules and addresses:
            self.routes[ident] = (rules[0], f"{addresses[0]}:{port}")
        else:
            self.routes.pop(ident, None)

    def _follow(self) -> None:
        for event in self._stream:
            self._look(event["Actor"]["ID"])

    def close(self) -> None:
        self._stream.close()


FILE = """
services:
  shop:
    image: busybox
    command: httpd -f -p 8000
    expose: ["8000"]
    labels: {{traefik.enable: "true", traefik.http.routers.shop.rule: "Host(`shop`)"}}
    deploy: {{replicas: {replicas}}}
  quiet: {{image: busybox, command: sleep 1000}}
"""


def test_a_proxy_follows_what_comes_and_goes(client: docker.DockerClient, stack: Stack) -> None:
    proxy = Proxy(client)
    try:
        labels = {"traefik.enable": "true", "traefik.http.routers.own.rule": "Host(`own`)"}
        own = client.containers.run(
            "busybox", ["sleep", "1000"], detach=True, name="own-routed", ports={"9000/tcp": None}, labels=labels
        )
        for replicas in (2, 3, 1):
            stack.up(FILE.format(replicas=replicas))

            def follows(replicas: int = replicas) -> None:
                rules = sorted(rule for rule, _ in proxy.routes.values())
                assert rules == ["Host(`own`)", *["Host(`shop`)"] * replicas]

            eventually(follows, 20)
        (place,) = (where for rule, where in proxy.routes.values() if rule == "Host(`shop`)")
        assert place.partition(":")[0] in str(stack.ps()["shop-1"]["addresses"])
        assert place.endswith(":8000")
        own.stop(timeout=0)
        eventually(lambda: _only(proxy, "Host(`shop`)"), 20)
        own.start()
        own.remove(force=True)
        stack.down()
        eventually(lambda: _only(proxy), 20)
        assert proxy.looks < 40
    finally:
        proxy.close()
        with_name = client.containers.list(all=True, filters={"name": "own-routed"})
        for one in with_name:
            one.remove(force=True)


def _only(proxy: Proxy, *rules: str) -> None:
    assert sorted(rule for rule, _ in proxy.routes.values()) == list(rules)
