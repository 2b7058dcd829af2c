"""Registries that lie, one lie each. A real server on loopback; what the fuzzer found stands here by name."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from agent.errors import ImageError
from agent.images import credentials, types
from agent.images.reference import Reference, parse
from agent.images.registry import Registry
from agent.images.transport import HttpClient
from agent.settings import ImageLimits, Settings
from agent.settings import RegistrySettings as Configured

DATA = b"0123456789" * 100
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
MANIFEST = json.dumps({"mediaType": types.OCI_MANIFEST, "config": {}, "layers": []}).encode()
PASSWORD = base64.b64encode(b"user:secret").decode()
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Host:
    """A server of one answer, and the requests that it had."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.answer: Answer = _nothing
        self.name = ""

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.name = f"127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return await self.answer(request)


async def _nothing(request: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    """The registry, and a host that is not it."""
    made = Host(), Host()
    runners = [await h.start() for h in made]
    yield made
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(docker_config=str(tmp_path), limits=ImageLimits(manifest_bytes=4096, stall_s=0.3))


def registry(host: Host, settings: Settings) -> Registry:
    return Registry(parse(f"{host.name}/a:1"), settings, pause_s=0.001)


def log_in(settings: Settings, host: Host) -> None:
    Path(settings.docker_config, "config.json").write_text(json.dumps({"auths": {host.name: {"auth": PASSWORD}}}))


def moved(status: int, location: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": location})

    return answer


def locked(challenge: str, then: Answer) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers:
            return await then(request)
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    return answer


def says(data: bytes, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, headers=headers)

    return answer


async def fetched(one: Registry) -> bytes:
    async with one:
        return b"".join([c async for c in one.blob(DIGEST, len(DATA))])


async def test_a_redirect_is_followed_without_the_password(hosts: tuple[Host, Host], settings: Settings) -> None:
    mine, other = hosts
    log_in(settings, mine)
    mine.answer = locked('Basic realm="x"', moved(307, f"http://{other.name}/elsewhere"))
    other.answer = says(DATA)
    assert await fetched(registry(mine, settings)) == DATA
    assert mine.asked[-1].headers["Authorization"] == f"Basic {PASSWORD}"
    assert [r.headers.get("Authorization") for r in other.asked] == [None]


async def test_a_challenge_of_another_host_gets_no_password(hosts: tuple[Host, Host], settings: Settings) -> None:
    mine, other = hosts
    log_in(settings, mine)
    mine.answer = moved(302, f"http://{other.name}/elsewhere")
    other.answer = locked('Basic realm="x"', says(DATA))
    with pytest.raises(ImageError, match="denies"):
        await fetched(registry(mine, settings))
    assert all("Authorization" not in r.headers for r in other.asked)


async def test_an_upload_elsewhere_gets_no_password(hosts: tuple[Host, Host], settings: Settings) -> None:
    """Where a registry sends an upload to was sent its password too."""
    mine, other = hosts
    log_in(settings, mine)
    mine.answer = locked('Basic realm="x"', moved(202, f"http://{other.name}/put?state=a"))
    other.answer = says(b"")

    async def data() -> AsyncIterator[bytes]:
        yield DATA

    async with registry(mine, settings) as one:
        await one.upload(DIGEST, data(), len(DATA))
    assert other.asked[0].query["digest"] == DIGEST
    assert "Authorization" not in other.asked[0].headers


async def test_a_mirror_is_not_given_the_password_of_what_it_mirrors(hosts: tuple[Host, Host], settings: Settings) -> None:
    mirror, origin = hosts
    log_in(settings, origin)
    mirror.answer = locked('Basic realm="x"', says(MANIFEST))
    origin.answer = locked('Basic realm="x"', says(MANIFEST))
    mirrored = Settings(
        docker_config=settings.docker_config,
        limits=settings.limits,
        registries={origin.name: Configured(mirrors=(f"http://{mirror.name}",))},
    )
    async with registry(origin, mirrored) as one:
        assert (await one.manifest("1"))[0] == MANIFEST
    assert all("Authorization" not in r.headers for r in mirror.asked)


async def test_a_mirror_that_sends_rubbish_is_passed_over(hosts: tuple[Host, Host], settings: Settings) -> None:
    mirror, origin = hosts
    mirror.answer, origin.answer = says(b"<html>"), says(MANIFEST)
    mirrored = Settings(limits=settings.limits, registries={origin.name: Configured(mirrors=(f"http://{mirror.name}",))})
    async with registry(origin, mirrored) as one:
        assert (await one.manifest("1"))[0] == MANIFEST


PLACES = ("file:///etc/passwd", "ftp://127.0.0.1/", "http://[::1", "http://u:p@127.0.0.1/", "data:,x", "http://")


@pytest.mark.parametrize("place", PLACES)
async def test_places_where_nobody_goes(hosts: tuple[Host, Host], settings: Settings, place: str) -> None:
    hosts[0].answer = moved(302, place)
    with pytest.raises(ImageError, match="sends us"):
        await fetched(registry(hosts[0], settings))


async def test_a_circle_of_redirects_ends(hosts: tuple[Host, Host], settings: Settings) -> None:
    hosts[0].answer = moved(301, "/again")
    with pytest.raises(ImageError, match="more than 5 times"):
        await fetched(registry(hosts[0], settings))


async def test_a_redirect_from_tls_to_plain_http_is_refused() -> None:
    from yarl import URL

    from agent.images.transport import url_of

    with pytest.raises(ImageError, match="from https to"):
        url_of("http://h/x", URL("https://h/x"), "https://h")


@pytest.mark.parametrize("status", [302, 307])
async def test_an_upload_is_sent_on_nowhere(hosts: tuple[Host, Host], settings: Settings, status: int) -> None:
    hosts[0].answer = moved(status, f"http://{hosts[1].name}/x")
    async with registry(hosts[0], settings) as one:
        with pytest.raises(ImageError, match="sends a POST to"):
            await one.upload(DIGEST, _never(), 1)
    assert not hosts[1].asked


async def _never() -> AsyncIterator[bytes]:
    yield b"x"


def endless(piece: bytes, pause_s: float = 0.0) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(piece)
            await asyncio.sleep(pause_s)

    return answer


async def test_a_manifest_without_end_is_refused_at_its_limit(hosts: tuple[Host, Host], settings: Settings) -> None:
    hosts[0].answer = endless(b"[" * 1000)
    async with registry(hosts[0], settings) as one:
        with pytest.raises(ImageError, match="has more than the 4096 bytes"):
            await one.manifest("1")


async def test_a_blob_that_is_longer_than_it_claims_is_refused(hosts: tuple[Host, Host], settings: Settings) -> None:
    hosts[0].answer = endless(b"x" * 1000)
    with pytest.raises(ImageError, match="sends more than the 1000 bytes"):
        await fetched(registry(hosts[0], settings))


async def test_a_byte_now_and_then_is_no_progress(hosts: tuple[Host, Host], settings: Settings) -> None:
    """Each byte came before the time was over, so that it never was."""
    hosts[0].answer = endless(b"x", 0.1)
    with pytest.raises(ImageError, match=r"less than 16 KiB in 0.3 s \(limits.stall_s\)"):
        await fetched(registry(hosts[0], settings))


async def test_headers_now_and_then_are_no_answer(settings: Settings) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while not reader.at_eof():
                writer.write(b"A: b\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    name = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    one = Registry(Reference(name, "a", "1"), settings, pause_s=0.001)
    try:
        with pytest.raises(ImageError, match=r"does not answer within 0\.3 s"):
            await fetched(one)
    finally:
        server.close()


async def test_a_part_that_was_not_asked_for_is_no_answer(hosts: tuple[Host, Host], settings: Settings) -> None:
    async def part(request: web.Request) -> web.StreamResponse:
        return web.Response(status=206, body=DATA[5:], headers={"Content-Range": "bytes 5-999/1000"})

    hosts[0].answer = part
    with pytest.raises(ImageError, match=r"sends the part 'bytes 5-999/1000'"):
        await fetched(registry(hosts[0], settings))


async def test_the_body_of_a_refusal_is_no_layer(hosts: tuple[Host, Host], settings: Settings) -> None:
    """What came with 416 was taken for the rest of the blob."""

    async def cut(request: web.Request) -> web.StreamResponse:
        if "Range" in request.headers:
            return web.Response(status=416, body=b"x" * 500)
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(DATA[:500])
        assert request.transport
        request.transport.abort()
        return response

    hosts[0].answer = cut
    with pytest.raises(ImageError, match="answered 416"):
        await fetched(registry(hosts[0], settings))


TOKENS = {
    "a list": b"[]",
    "nothing": b"",
    "no token": b"{}",
    "a number": b'{"token": 5}',
    "two lines": b'{"token": "a\\r\\nX: b"}',
    "brackets": b"[" * 4000,
    "more than is allowed": b'{"token": "' + b"a" * 5000 + b'"}',
}


@pytest.mark.parametrize("answer", TOKENS.values(), ids=TOKENS)
async def test_what_is_no_token(hosts: tuple[Host, Host], settings: Settings, answer: bytes) -> None:
    mine, other = hosts
    mine.answer = locked(f'Bearer realm="http://{other.name}/token",service="s"', says(DATA))
    other.answer = says(answer)
    with pytest.raises(ImageError, match="token"):
        await fetched(registry(mine, settings))


@pytest.mark.parametrize("realm", ["http://[", "file:///etc/passwd", "", "/token", "http://u:p@127.0.0.1/"])
async def test_realms_where_nobody_goes(hosts: tuple[Host, Host], settings: Settings, realm: str) -> None:
    hosts[0].answer = locked(f'Bearer realm="{realm}"', says(DATA))
    with pytest.raises(ImageError, match="sends us to"):
        await fetched(registry(hosts[0], settings))


async def test_a_token_server_that_sends_us_on_gets_the_password_alone(hosts: tuple[Host, Host], settings: Settings) -> None:
    mine, other = hosts
    log_in(settings, mine)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.Response(status=302, headers={"Location": f"http://{other.name}/token"})
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{mine.name}/token"'})

    mine.answer, other.answer = answer, says(b'{"token": "t"}')
    with pytest.raises(ImageError, match="denies"):
        await fetched(registry(mine, settings))
    assert "Authorization" not in other.asked[0].headers


async def test_the_answer_of_a_credential_helper_may_be_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-x"
    helper.write_text("#!/bin/sh\necho '[]'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "config.json").write_text('{"credsStore": "x"}')
    with pytest.raises(ImageError, match="the answer of docker-credential-x is malformed"):
        await credentials.find("h", str(tmp_path))


RUBBISH = ("[]", "{", '{"auths": []}', '{"auths": {"h": {"auth": "!"}}}', '{"auths": {"h": {"auth": 5}}}')


@pytest.mark.parametrize("text", RUBBISH)
async def test_a_config_of_docker_may_be_rubbish(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ImageError, match=r"config\.json"):
        await credentials.find("h", str(tmp_path))


def test_a_client_waits_for_who_is_slow_to_take_too(settings: Settings) -> None:
    """An upload that nobody reads ends."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            writer.write(b"HTTP/1.1 202 OK\r\nLocation: /put\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        await gone.wait()
        writer.close()

    async def many() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b"x" * (1 << 16)

    async def main() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        name = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            async with Registry(Reference(name, "a", "1"), settings) as one:
                with pytest.raises(ImageError, match=r"takes nothing for 0\.3 s"):
                    await one.upload(DIGEST, many(), 10_000 << 16)
        finally:
            gone.set()
            server.close()

    gone = asyncio.Event()
    asyncio.run(main())


def test_a_client_has_a_session_of_its_own() -> None:
    """Neither a netrc(5) nor cookies of other hosts."""

    async def main() -> None:
        client = HttpClient(insecure=False, stall_s=1)
        await client.open()
        assert client._session
        assert not client._session.trust_env
        await client.close()

    asyncio.run(main())
