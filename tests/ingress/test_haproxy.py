"""The configuration of the HAProxy, in a real one on loopback: clients' TLS by name, and their rates by way of a real Caddy."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import authority
from orchestrator.ingress import caddy, haproxy
from orchestrator.ingress.model import IngressSettings
from orchestrator.ingress.routes import Site, Upstream
from orchestrator.stackfile.model import IngressRule
from tests.conftest import eventually
from tests.ports import free_port

pytestmark = pytest.mark.skipif(
    not (shutil.which("haproxy") and shutil.which("caddy")), reason="needs Debian's haproxy and caddy: `make setup`"
)


class Gate:
    """A HAProxy whose sockets are in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "run").mkdir()
        (folder / "start.cfg").write_text(self.here(haproxy.START))

    def here(self, text: str) -> str:
        return text.replace(haproxy.LIMITS_SOCKET, f"{self.folder}/limits.sock").replace(haproxy.FOLDER, f"{self.folder}/run")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        words = ["haproxy", "-W", "-db", "-f", str(self.folder / "start.cfg"), "-f", str(self.folder / "run")]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            eventually(lambda: self.answers("started.sock"))
            yield
        finally:
            self.process.terminate()
            self.process.wait()

    def answers(self, name: str) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            assert one.connect_ex(f"{self.folder}/run/{name}") == 0, (self.folder / "log").read_text()

    def load(self, *sites: Site) -> None:
        text, digest = haproxy.configuration(sites)
        (self.folder / "run" / haproxy.FILE).write_text(self.here(text))
        eventually(lambda: self.signalled(digest))

    def signalled(self, digest: str) -> None:
        """A master that has just begun loses the signal."""
        self.process.send_signal(signal.SIGUSR2)
        eventually(lambda: self.has(digest), 1)

    def has(self, digest: str) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            assert one.connect_ex(f"{self.folder}/run/version.sock") == 0, (self.folder / "log").read_text()
            one.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert json.dumps(digest).encode() in one.recv(4096)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    with made.running():
        yield made


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close it, and wait for that."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Named:
    """TLS servers that each answer a line with their name, and a client that trusts them."""

    def __init__(self, folder: Path, *names: str) -> None:
        now = datetime.datetime.now(datetime.UTC)
        root = authority.make_root("services", now)
        self.tls = ssl.create_default_context(cadata=authority.root_certificate(root))
        self.names = names
        self.ports: dict[str, int] = {}
        self._root, self._folder, self._now = root, folder, now

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        for name in self.names:
            file = self._folder / f"{name}.pem"
            file.write_bytes(authority.issue(self._root, f"{name}.example.org", self._now))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file)
            server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=context)
            await stack.enter_async_context(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(f"{writer.get_extra_info('sockname')[1]} {line.decode()}".encode())
        await closed(writer)

    async def open(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port, ssl=self.tls, server_hostname=host)

    async def who(self, host: str, port: int) -> str:
        """Which server answers for *host* at *port*, "" if the connection is closed."""
        try:
            reader, writer = await self.open(host, port)
        except (OSError, EOFError):
            return ""
        writer.write(b"?\n")
        said = (await reader.readline()).split()
        await closed(writer)
        return next((n for n, p in self.ports.items() if said and str(p) == said[0].decode()), "")

    def site(self, host: str, tcp: int, name: str, *allow: str) -> Site:
        rule = IngressRule(host=host, tcp=tcp, port=1, allow=allow)
        return Site(rule, "passthrough", (Upstream(f"127.0.0.1:{self.ports[name]}", 1),))


async def test_names_decide_wildcards_come_last_and_other_names_are_closed(gate: Gate, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        named = Named(tmp_path, "red", "blue", "x.y")
        await named.start(stack)
        one, two = free_port(), free_port()
        sites = [
            named.site("red.example.org", one, "red"),
            named.site("redxexample.org", one, "x.y"),
            named.site("*.example.org", one, "blue"),
            named.site("red.example.org", two, "red", "192.0.2.0/24", "2001:db8::/32"),
        ]
        await asyncio.to_thread(gate.load, *sites)
        assert await named.who("red.example.org", one) == "red"
        assert await named.who("blue.example.org", one) == "blue"
        assert await named.who("x.y.example.org", one) == "", "* is one label"
        assert await named.who("example.org", one) == ""
        assert await named.who("red.example.org", two) == "", "not from this address"
        reader, writer = await asyncio.open_connection("127.0.0.1", one)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 20) == b"", "without TLS there is no name"
        await closed(writer)


async def test_an_open_connection_outlives_a_change_and_new_ones_lose_nothing(gate: Gate, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        named = Named(tmp_path, "red", "blue")
        await named.start(stack)
        port = free_port()
        before, after = (named.site("red.example.org", port, n) for n in ("red", "blue"))
        after = after._replace(upstreams=(Upstream(f"127.0.0.1:{named.ports['red']}", 3), *before.upstreams))
        await asyncio.to_thread(gate.load, before)
        reader, writer = await named.open("red.example.org", port)
        for number in range(6):
            loading = asyncio.create_task(asyncio.to_thread(gate.load, before if number % 2 else after))
            while not loading.done():
                assert await named.who("red.example.org", port) == "red"
            await loading
        writer.write(b"still there\n")
        assert b"still there" in await reader.readline()
        await closed(writer)


async def test_text_that_haproxy_would_not_take_leaves_what_it_has(gate: Gate, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        named = Named(tmp_path, "red")
        await named.start(stack)
        port = free_port()
        await asyncio.to_thread(gate.load, named.site("red.example.org", port, "red"))
        (gate.folder / "run" / haproxy.FILE).write_text("nonsense\n")
        await asyncio.to_thread(eventually, lambda: _alert(gate))
        assert await named.who("red.example.org", port) == "red"
        await asyncio.to_thread(gate.load, named.site("red.example.org", port, "red"))


def _alert(gate: Gate) -> None:
    gate.process.send_signal(signal.SIGUSR2)  # one amid the change before is lost
    assert "ALERT" in (gate.folder / "log").read_text()


@contextlib.contextmanager
def proxy(gate: Gate, *sites: Site) -> Iterator[int]:
    """A Caddy that asks *gate*; its port."""
    settings = IngressSettings(image="i", http_port=free_port(), https_port=free_port())
    document = json.dumps(caddy.configuration(sites, (), {}, settings)).replace(caddy.ADMIN_SOCKET, f"{gate.folder}/a.sock")
    (gate.folder / "caddy.json").write_text(gate.here(document))
    words = ["caddy", "run", "--config", str(gate.folder / "caddy.json")]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(gate.folder)}) as child:
        try:
            eventually(lambda: _listens(settings.http_port))
            yield settings.http_port
        finally:
            child.terminate()


def _listens(port: int) -> None:
    with socket.socket() as one:
        assert one.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int, path: str, times: int, body: bytes = b"") -> Counter[int]:
    seen: Counter[int] = Counter()
    for number in range(times):
        one = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        headers = {"Host": "a.test", "X-Forwarded-For": f"203.0.113.{number}", haproxy.CLIENT_HEADER: f"203.0.113.{number}"}
        one.request("POST" if body else "GET", path, body or None, headers)
        reply = one.getresponse()
        content = reply.read()
        seen[reply.status] += 1
        assert reply.status != 429 or reply.headers["Retry-After"], "who waits so long has requests left"
        assert reply.status != 200 or content == body
        one.close()
    return seen


def test_beyond_its_rate_a_client_gets_429_by_path(gate: Gate) -> None:
    with contextlib.ExitStack() as stack:
        server = subprocess.Popen(
            ["caddy", "run", "--config", "-"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        stack.callback(server.wait)
        stack.callback(server.terminate)
        backend = free_port()
        echo = {"handle": [{"handler": "static_response", "body": "{http.request.body}"}]}
        document = {
            "admin": {"disabled": True},
            "apps": {"http": {"servers": {"s": {"listen": [f"127.0.0.1:{backend}"], "routes": [echo]}}}},
        }
        assert server.stdin
        server.stdin.write(json.dumps(document))
        server.stdin.close()
        eventually(lambda: _listens(backend))
        to = (Upstream(f"127.0.0.1:{backend}", 1),)

        def site(path: str, rate: int = 0, rate_s: int = 1) -> Site:
            return Site(IngressRule(host="a.test", path=path, port=1, rate=rate, rate_s=rate_s), "off", to)

        sites = [site("/few", 3, 3600), site("/many", 50, 60), site("/")]
        gate.load(*sites)
        port = stack.enter_context(proxy(gate, *sites))
        assert ask(port, "/few/x", 8, b"a body goes along") == {200: 3, 429: 5}
        assert ask(port, "/many", 20) == {200: 20}, "each path has a count of its own"
        assert ask(port, "/", 20) == {200: 20}
