"""The configuration, in a real Caddy on loopback: each option of a rule is asked for by a client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import gzip
import hashlib
import json
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import pytest
from aiohttp import web
from cryptography import x509

from orchestrator import authority
from orchestrator.ingress import caddy
from orchestrator.ingress.model import Challenge, IngressSettings
from orchestrator.ingress.routes import Site, Upstream
from orchestrator.stackfile.certificate_text import read_pair
from orchestrator.stackfile.model import IngressRule
from tests.ports import free_port

HOST = "a.example.org"
pytestmark = pytest.mark.skipif(not shutil.which("caddy"), reason="needs Debian's caddy: `make setup`")


class Proxy:
    """A Caddy with two services behind it; `ask` is a client of it that trusts the authority."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession, backends: Sequence[int]) -> None:
        self.settings = IngressSettings(image="i", http_port=free_port(), https_port=free_port(), version="2.6.2-5")
        self.folder = folder
        self.socket = str(folder / "a.sock")
        self.backends = backends
        self.root = authority.make_root("test", datetime.datetime.now(datetime.UTC))
        self.session = session
        self.tls = ssl.create_default_context(cadata=authority.root_certificate(self.root))

    def site(self, *shares: int, users: Sequence[tuple[str, str]] = (), tls: str = "internal", **rule: Any) -> Site:
        upstreams = tuple(Upstream(f"127.0.0.1:{p}", s) for p, s in zip(self.backends, shares or (1,), strict=False) if s)
        return Site(IngressRule(**{"host": HOST, "port": 1, **rule}), tls, upstreams, tuple(users))

    def document(self, *sites: Site, challenges: Sequence[Challenge] = ()) -> bytes:
        hosts = {s.rule.host for s in sites if s.tls != "off"}
        pairs = [read_pair(authority.issue(self.root, h, datetime.datetime.now(datetime.UTC)), h) for h in sorted(hosts)]
        made = caddy.configuration(sites, [(p.chain, p.key) for p in pairs], challenges, self.settings)
        text = json.dumps(made).replace(caddy.ADMIN_SOCKET, self.socket)
        return text.replace(caddy.FOLDER, str(self.folder)).replace(caddy.HOLD_SOCKETS, f"{self.folder}/hold-").encode()

    async def load(self, *sites: Site, challenges: Sequence[Challenge] = ()) -> None:
        connector = aiohttp.UnixConnector(path=self.socket)
        async with aiohttp.ClientSession(connector=connector) as admin:
            body = self.document(*sites, challenges=challenges)
            reply = await admin.post("http://localhost/load", data=body, headers={"Content-Type": "application/json"})
            assert reply.status == 200, await reply.text()

    def url(self, path: str = "/", *, host: str = HOST, scheme: str = "https") -> str:
        return f"{scheme}://{host}:{self.settings.https_port if scheme == 'https' else self.settings.http_port}{path}"

    async def ask(self, path: str = "/", *, method: str = "GET", scheme: str = "https", host: str = HOST, **more: Any) -> Any:
        url = self.url(path, host=host, scheme=scheme)
        return await self.session.request(method, url, ssl=self.tls, allow_redirects=False, **more)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class Everywhere(aiohttp.abc.AbstractResolver):
    """Every name is this host."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


async def answer(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() == "websocket":
        sock = web.WebSocketResponse()
        await sock.prepare(request)
        async for message in sock:
            await sock.send_str(message.data)
        return sock
    body = await request.read()
    port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
    seen = {"path": request.path_qs, "headers": dict(request.headers), "port": port, "length": len(body), "filler": "x" * 2000}
    return web.json_response(seen, headers={"X-Inner": "told"})


async def answers(path: str) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


def _app() -> web.Application:
    app = web.Application(client_max_size=1 << 20)
    app.router.add_route("*", "/{path:.*}", answer)
    return app


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Proxy]:
    runner = web.AppRunner(_app(), shutdown_timeout=0.1)
    await runner.setup()
    backends = []
    for _ in range(2):
        sock = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, sock).start()
        backends.append(sock.getsockname()[1])
    connector = aiohttp.TCPConnector(resolver=Everywhere(), force_close=True)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        proxy = Proxy(folder, session, backends)
        (folder / "start.json").write_text(json.dumps(caddy.EMPTY).replace(caddy.ADMIN_SOCKET, proxy.socket))
        environment = {**os.environ, "HOME": str(folder), "SECRET_OF_PROXY": "leaked"}
        with (folder / "log").open("wb") as log:
            command = ["caddy", "run", "--config", str(folder / "start.json")]
            child = await asyncio.create_subprocess_exec(*command, env=environment, stderr=log, stdout=log)
        try:
            async with asyncio.timeout(60):
                while not await answers(proxy.socket):
                    assert child.returncode is None, (folder / "log").read_text()
                    await asyncio.sleep(0.02)
            yield proxy
        finally:
            child.terminate()
            await child.wait()
            await runner.cleanup()


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    async with running(tmp_path) as made:
        yield made


async def test_https_answers_and_http_goes_there(proxy: Proxy) -> None:
    await proxy.load(proxy.site())
    seen = await (await proxy.ask("/x?y=1")).json()
    assert (seen["path"], seen["port"]) == ("/x?y=1", proxy.backends[0])
    assert seen["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert seen["headers"]["X-Forwarded-Proto"] == "https"
    moved = await proxy.ask("/x?y=1", scheme="http")
    assert (moved.status, moved.headers["Location"]) == (308, proxy.url("/x?y=1"))


async def test_a_client_cannot_say_where_it_comes_from(proxy: Proxy) -> None:
    await proxy.load(proxy.site())
    seen = await (await proxy.ask(headers={"X-Forwarded-For": "10.9.9.9", "X-Forwarded-Proto": "gopher"})).json()
    assert seen["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert seen["headers"]["X-Forwarded-Proto"] == "https"


async def test_other_hosts_and_paths_are_nobodys(proxy: Proxy) -> None:
    await proxy.load(proxy.site(path="/app"), proxy.site(tls="off", host="plain.example.org"))
    assert (await proxy.ask("/other")).status == 404
    assert (await proxy.ask("/application")).status == 404
    assert (await proxy.ask("/app")).status == 200
    assert (await proxy.ask("/app/x")).status == 200
    assert (await proxy.ask("/", scheme="http", host="b.example.org")).status == 404
    assert (await proxy.ask("/", scheme="http", host="plain.example.org")).status == 200


@pytest.mark.parametrize("path", ["/app/../open", "/app/%2e%2e/open", "//app/x", "/open/../app/x", "/APP/x", "/%61pp/x"])
async def test_no_way_of_writing_a_path_gets_around_its_guard(proxy: Proxy, path: str) -> None:
    """What the guarded service may see is what the guard has seen: the others never get a path of its."""
    await proxy.load(proxy.site(path="/app", allow=("10.0.0.0/8",)), proxy.site(0, 1))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.settings.https_port, ssl=proxy.tls, server_hostname=HOST)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    raw = await reader.read()
    writer.close()
    if b" 200 " in raw.partition(b"\r\n")[0]:
        assert json.loads(raw.partition(b"\r\n\r\n")[2])["port"] == proxy.backends[1]


async def test_the_way_to_a_service_can_be_shortened(proxy: Proxy) -> None:
    await proxy.load(proxy.site(path="/api", strip_path=True))
    assert (await (await proxy.ask("/api/v1?x=/api")).json())["path"] == "/v1?x=/api"


async def test_headers_are_set_and_taken_away_and_never_filled_in(proxy: Proxy) -> None:
    rule: dict[str, Any] = {
        "request_headers": (("X-Told", "{env.SECRET_OF_PROXY}"), ("User-Agent", "")),
        "response_headers": (("X-Frame-Options", "DENY"), ("X-Inner", "")),
    }
    await proxy.load(proxy.site(**rule))
    reply = await proxy.ask()
    seen = (await reply.json())["headers"]
    assert seen["X-Told"] == "{env.SECRET_OF_PROXY}"
    assert "leaked" not in str(seen)
    assert "aiohttp" not in seen.get("User-Agent", "")
    assert (reply.headers["X-Frame-Options"], reply.headers.get("X-Inner")) == ("DENY", None)


async def test_users_need_their_passwords(proxy: Proxy) -> None:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    await proxy.load(
        proxy.site(users=[("ann", hashed)], basic_auth="users"), proxy.site(host="b.example.org", basic_auth="none")
    )
    assert (await proxy.ask()).status == 401
    assert (await proxy.ask(headers=basic("ann", "wrong"))).status == 401
    assert (await proxy.ask(headers=basic("ann", "right"))).status == 200
    assert (await proxy.ask(host="b.example.org", headers=basic("", ""))).status == 401, "no users: nobody"


async def test_clients_from_elsewhere_are_refused(proxy: Proxy) -> None:
    await proxy.load(proxy.site(allow=("10.0.0.0/8",)), proxy.site(host="b.example.org", allow=("127.0.0.0/8", "::1/128")))
    assert (await proxy.ask()).status == 403
    assert (await proxy.ask(headers={"X-Forwarded-For": "10.1.1.1"})).status == 403
    assert (await proxy.ask(host="b.example.org")).status == 200


async def test_bodies_have_a_limit_and_answers_are_compressed(proxy: Proxy) -> None:
    await proxy.load(proxy.site(body_limit=1000, compress=True))
    assert (await proxy.ask(method="POST", data=b"x" * 900)).status == 200
    assert (await proxy.ask(method="POST", data=b"x" * 2000)).status == 413
    reply = await proxy.ask(headers={"Accept-Encoding": "gzip"})
    assert reply.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(await reply.read()))["path"] == "/"
    assert (await proxy.ask(headers={"Accept-Encoding": "zstd, gzip"})).headers["Content-Encoding"] == "zstd"


async def test_a_client_stays_with_a_task(proxy: Proxy) -> None:
    await proxy.load(proxy.site(1, 1, sticky="cookie"))
    first = await proxy.ask()
    cookies = {k: v.value for k, v in first.cookies.items()}
    assert cookies
    ports = {(await (await proxy.ask(cookies=cookies)).json())["port"] for _ in range(20)}
    assert ports == {(await first.json())["port"]}


async def test_shares_are_kept(proxy: Proxy) -> None:
    await proxy.load(proxy.site(9, 1))
    ports = [(await (await proxy.ask()).json())["port"] for _ in range(200)]
    assert 1 <= ports.count(proxy.backends[1]) <= 60  # 20 ± 9 standard deviations


async def test_a_task_that_refuses_connections_costs_no_request(proxy: Proxy) -> None:
    site = proxy.site()
    await proxy.load(site._replace(upstreams=(*site.upstreams, Upstream(f"127.0.0.1:{free_port()}", 1))))
    assert {(await proxy.ask()).status for _ in range(30)} == {200}


@pytest.mark.parametrize("length", [1, 9_999, 59_999])
async def test_a_small_body_goes_to_the_next_task_too(proxy: Proxy, length: int) -> None:
    site = proxy.site()
    for _ in range(4):
        await proxy.load(site._replace(upstreams=(*site.upstreams, Upstream(f"127.0.0.1:{free_port()}", 5))))
        reply = await proxy.ask(method="POST", data=b"x" * length)
        assert (reply.status, (await reply.json())["length"]) == (200, length)


async def test_a_body_is_passed_on_as_it_is_written(proxy: Proxy) -> None:
    """The service answers what it has before the body has ended."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readuntil(b"begun")
        assert b"chunked" in head.lower()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nX-Saw: %d\r\n\r\n" % len(first))
        await writer.drain()
        writer.close()

    answered = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.wait_for(answered.wait(), 20)

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        site = proxy.site()
        await proxy.load(site._replace(upstreams=(Upstream(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", 1),)))
        reply = await proxy.ask(method="POST", data=body())
        answered.set()
        assert reply.status == 200


async def test_a_request_goes_on_to_look_for_a_task_when_the_configuration_changes(proxy: Proxy) -> None:
    """The first task that it is sent to takes no connection until Caddy gives up, after 2 s; then Caddy has another one."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        site = proxy.site()
        before = site._replace(upstreams=(Upstream(f"127.0.0.1:{deaf.getsockname()[1]}", 200), *site.upstreams))
        await proxy.load(before)
        asked = [asyncio.create_task(proxy.ask(method=method)) for method in ("GET", "POST") * 4]
        await asyncio.sleep(1)
        await proxy.load(site)
        replies = await asyncio.gather(*asked)
        assert [r.status for r in replies].count(200) >= 5, (
            "none, if a change ended its tries; by chance it tries the deaf one again"
        )


async def test_a_request_that_waits_for_the_only_task_outlives_a_change_of_the_configuration(proxy: Proxy) -> None:
    """It refused a connection and is left alone for 2 s; it is back before they are over, and then something changes."""
    port = free_port()
    site = proxy.site()._replace(upstreams=(Upstream(f"127.0.0.1:{port}", 1),))
    await proxy.load(site)
    asked = [asyncio.create_task(proxy.ask()) for _ in range(6)]
    await asyncio.sleep(0.5)
    runner = web.AppRunner(_app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        await proxy.load(site, proxy.site(host="b.example.org"))
        assert [r.status for r in await asyncio.gather(*asked)] == [200] * 6
    finally:
        await runner.cleanup()


async def test_an_error_that_is_not_about_the_connection_stays_what_it_was(proxy: Proxy) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        site = proxy.site()
        await proxy.load(site._replace(upstreams=(Upstream(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", 1),)))
        assert (await proxy.ask(method="POST", data=b"x")).status == 502


async def test_while_nobody_answers_clients_are_told_so(proxy: Proxy) -> None:
    await proxy.load(proxy.site(0), proxy.site(host="b.example.org", maintenance="back at {env.HOME}"))
    nobody = await proxy.ask()
    assert (nobody.status, nobody.headers["Retry-After"]) == (503, "1")
    resting = await proxy.ask(host="b.example.org")
    assert (resting.status, await resting.text()) == (503, "503: back at {env.HOME}\n")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_requests_wait_for_the_first_task_of_a_service_that_has_none(proxy: Proxy, scheme: str) -> None:
    tls = "internal" if scheme == "https" else "off"
    ready = proxy.site(tls=tls, request_headers=(("X-Own", "told"),))._replace(idle=("s/web",))
    for _ in range(2):  # and again, after the service went to none once more
        await proxy.load(ready._replace(upstreams=()))
        spoofed = {"X-Forwarded-For": "6.6.6.6", caddy.HELD_FOR: "6.6.6.6"}
        waiting = [
            asyncio.create_task(proxy.ask("/a?b", method=method, data=body, headers=spoofed, scheme=scheme))
            for method, body in (("GET", None), ("POST", b"x" * 100_000))
        ]
        done, _ = await asyncio.wait(waiting, timeout=1.0)
        assert not done, "there is nobody yet who could answer"
        await proxy.load(proxy.site(host="b.example.org"), ready._replace(upstreams=()))
        await proxy.load(ready)
        async with asyncio.timeout(20):
            found = [await one for one in waiting]
        assert [one.status for one in found] == [200, 200]
        seen = [await one.json() for one in found]
        assert [one["length"] for one in seen] == [0, 100_000]
        assert {one["path"] for one in seen} == {"/a?b"}
        for one in seen:
            headers = one["headers"]
            assert headers["X-Forwarded-For"] == "127.0.0.1"
            assert headers["X-Forwarded-Proto"] == scheme
            assert headers["X-Own"] == "told"
            assert not any("Pystack" in name for name in headers)
        assert (await proxy.ask(scheme=scheme)).status == 200


async def test_a_request_that_waited_in_vain_is_told_when_to_come_again(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caddy, "HOLD_FOR_S", 1)
    await proxy.load(proxy.site()._replace(idle=("s/web",), upstreams=()))
    reply = await proxy.ask()
    assert (reply.status, reply.headers["Retry-After"]) == (503, "10")
    assert await reply.text() == "503: no task came up within 1 s\n"


async def test_websockets_and_challenges_pass(proxy: Proxy) -> None:
    await proxy.load(proxy.site(), challenges=[Challenge("http-01", HOST, "tok-en_1", "tok-en_1.print")])
    async with proxy.session.ws_connect(proxy.url("/ws"), ssl=proxy.tls) as sock:
        await sock.send_str("hello")
        assert (await sock.receive()).data == "hello"
    reply = await proxy.ask("/.well-known/acme-challenge/tok-en_1", scheme="http")
    assert (reply.status, await reply.text()) == (200, "tok-en_1.print")
    assert (await proxy.ask("/.well-known/acme-challenge/other", scheme="http")).status == 308


def acme_certificate(proxy: Proxy, host: str) -> x509.Certificate:
    """What an ACME server that asks for *host* by TLS-ALPN-01 is shown. Raises ssl.SSLError."""
    asking = ssl.create_default_context()
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    asking.set_alpn_protocols(["acme-tls/1"])
    with (
        socket.create_connection(("127.0.0.1", proxy.settings.https_port), 5) as plain,
        asking.wrap_socket(plain, server_hostname=host) as sock,
    ):
        assert sock.selected_alpn_protocol() == "acme-tls/1"
        return x509.load_der_x509_certificate(sock.getpeercert(binary_form=True) or b"")


async def test_a_challenge_by_tls_is_answered_beside_clients(proxy: Proxy) -> None:
    challenge = Challenge("tls-alpn-01", "new.example.org", "tok-en_1", "tok-en_1.print")
    await proxy.load(proxy.site(), proxy.site(host=challenge.host), challenges=[challenge])
    for name, content in caddy.challenge_files([challenge]).items():
        file = proxy.folder / name
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    shown = await asyncio.to_thread(acme_certificate, proxy, challenge.host)
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [challenge.host]
    identifier = shown.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    digest = hashlib.sha256(challenge.answer.encode()).digest()
    assert (identifier.critical, identifier.value.public_bytes()) == (True, b"\x04\x20" + digest)
    assert (await proxy.ask(host=challenge.host)).status == 200, "clients get the certificate that they trust"
    shutil.rmtree(proxy.folder / caddy.STORAGE)
    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(acme_certificate, proxy, challenge.host)


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ],
)
async def test_a_request_that_two_servers_would_read_in_two_ways_is_refused(proxy: Proxy, framing: str) -> None:
    await proxy.load(proxy.site(tls="off"))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.settings.http_port)
    writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}Connection: close\r\n\r\n0\r\n\r\n".encode())
    assert (await reader.read()).split(b" ")[1] in (b"400", b"501")
    writer.close()
