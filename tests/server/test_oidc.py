"""Sign-in by a real OpenID provider: who it knows comes in if a user is called so, and nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import jwt
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import rsa

from agent.contract.sign_in import OidcSettings
from orchestrator.errors import RefusedError
from orchestrator.server.access.oidc import CALLBACK, Provider
from orchestrator.server.api.app import make_app
from orchestrator.server.api.oidc import extension
from orchestrator.server.plane import ControlPlane
from orchestrator.store.sqlite import SqliteStore

with warnings.catch_warnings():  # of the libraries of the provider
    warnings.simplefilter("ignore")
    oidc_provider_mock = pytest.importorskip("oidc_provider_mock")
pytestmark = [
    pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PAGE = "https://page.test:8443"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    users = [oidc_provider_mock.User(sub=name, claims={"email": f"{name}@example.org"}) for name in ("ada", "bob")]
    with oidc_provider_mock.run_server_in_thread(user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture
def provider(issuer: str, tmp_path: Path) -> Provider:
    secret = tmp_path / "secret"
    secret.write_text("any\n")
    return Provider(OidcSettings(issuer=issuer, client_id="pystack", client_secret_file=str(secret), address=PAGE))


async def allowed(address: str, who: str) -> dict[str, str]:
    """What the provider sends a browser back with, when *who* has signed in there."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(address, data={"sub": who}, allow_redirects=False) as reply,
    ):
        assert reply.status in (302, 303), await reply.text()
        back = urlsplit(reply.headers["Location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == PAGE + CALLBACK
    return {key: value[0] for key, value in parse_qs(back.query).items()}


async def test_who_the_provider_knows_is_known(provider: Provider) -> None:
    address, browser = await provider.begin()
    query = parse_qs(urlsplit(address).query)
    assert query["code_challenge_method"] == ["S256"]
    back = await allowed(address, "ada")
    assert await provider.finish(back, browser) == "ada@example.org"
    with pytest.raises(RefusedError, match="was not begun here"):
        await provider.finish(back, browser)  # each answer is good once


async def test_another_browser_or_another_sign_in_is_refused(provider: Provider) -> None:
    address, browser = await provider.begin()
    back = await allowed(address, "ada")
    with pytest.raises(RefusedError, match="was not begun here"):
        await provider.finish(back, browser + "x")
    first, mine = await provider.begin()
    second, _ = await provider.begin()
    stolen = await allowed(second, "bob")
    own = parse_qs(urlsplit(first).query)["state"][0]
    with pytest.raises(RefusedError):  # its code has another verifier
        await provider.finish({**stolen, "state": own}, mine)
    address, browser = await provider.begin()
    back = await allowed(address, "ada")
    with pytest.raises(RefusedError, match="of another provider"):
        await provider.finish({**back, "iss": "https://evil.test"}, browser)


async def test_a_token_for_somebody_else_is_refused(provider: Provider) -> None:
    address, browser = await provider.begin()
    back = await allowed(address, "ada")
    provider.settings = msgspec.structs.replace(provider.settings, client_id="other")
    with pytest.raises(RefusedError):
        await provider.finish(back, browser)


async def test_a_provider_that_calls_itself_otherwise_is_none(issuer: str) -> None:
    other = Provider(OidcSettings(issuer=f"{issuer}/", client_id="pystack", address=PAGE))
    with pytest.raises(RefusedError, match="calls itself otherwise"):
        await other.begin()
    with pytest.raises(ValueError, match="an https:// address"):
        OidcSettings(issuer="http://id.example.org", client_id="p", address=PAGE)


CLAIMS: dict[str, Any] = {"sub": "ada", "email": "ada@example.org", "aud": "pystack", "iat": 0, "exp": 300}


class Forger:
    """A provider whose ID tokens are as a test wants them."""

    def __init__(self) -> None:
        self.key, self.other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
        self.make: Callable[[dict[str, Any]], str] = lambda claims: self.signed(claims)
        self.nonce = ""

    def signed(self, claims: dict[str, Any], *, key: Any = None, algorithm: str = "RS256") -> str:
        return jwt.encode(claims, key or self.key, algorithm, headers={"kid": "k"})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app, issuer = web.Application(), ""

        async def discovery(request: web.Request) -> web.Response:
            places = {"authorization_endpoint": "/a", "token_endpoint": "/token", "jwks_uri": "/keys"}
            return web.json_response({"issuer": issuer, **{k: issuer + v for k, v in places.items()}})

        async def keys(request: web.Request) -> web.Response:
            one = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            return web.json_response({"keys": [{**one, "kid": "k", "alg": "RS256"}]})

        async def token(request: web.Request) -> web.Response:
            now = int(time.time())
            made = {**CLAIMS, "iss": issuer, "iat": now, "exp": now + 300, "nonce": self.nonce}
            return web.json_response({"id_token": self.make(made)})

        app.router.add_get("/.well-known/openid-configuration", discovery)
        app.router.add_get("/keys", keys)
        app.router.add_post("/token", token)
        async with TestServer(app, host="localhost") as server:
            issuer = f"http://localhost:{server.port}"
            yield issuer


FORGED: dict[str, Callable[[Forger, dict[str, Any]], str]] = {
    "another key": lambda f, c: f.signed(c, key=f.other),
    "no signature": lambda f, c: jwt.encode(c, None, "none", headers={"kid": "k"}),  # type: ignore[arg-type]
    "a secret that all know": lambda f, c: f.signed(c, key="x" * 32, algorithm="HS256"),
    "another audience": lambda f, c: f.signed({**c, "aud": "other"}),
    "several audiences, for another": lambda f, c: f.signed({**c, "aud": ["pystack", "other"], "azp": "other"}),
    "another issuer": lambda f, c: f.signed({**c, "iss": "https://evil.test"}),
    "expired": lambda f, c: f.signed({**c, "exp": c["exp"] - 3600}),
    "without an end": lambda f, c: f.signed({k: v for k, v in c.items() if k != "exp"}),
    "another nonce": lambda f, c: f.signed({**c, "nonce": "replayed"}),
    "an address that nobody verified": lambda f, c: f.signed({**c, "email_verified": False}),
    "no token": lambda f, c: "",
}


@pytest.mark.parametrize("name", ["right", *FORGED])
async def test_a_forged_token_is_refused(name: str) -> None:
    forger = Forger()
    if name in FORGED:
        forger.make = lambda claims: FORGED[name](forger, claims)
    async with forger.running() as issuer:
        one = Provider(OidcSettings(issuer=issuer, client_id="pystack", address=PAGE))
        address, browser = await one.begin()
        query = {key: value[0] for key, value in parse_qs(urlsplit(address).query).items()}
        forger.nonce = query["nonce"]
        coming = one.finish({"code": "c", "state": query["state"]}, browser)
        if name == "right":
            assert await coming == "ada@example.org"
        else:
            with pytest.raises(RefusedError) as refused:
                await coming
            assert refused.value.status == 401


@pytest.fixture
async def socket(tmp_path: Path, provider: Provider) -> AsyncIterator[tuple[ControlPlane, Path]]:
    store = await SqliteStore.open(tmp_path / "store.db")
    plane = ControlPlane(store, "n1", tmp_path / "docker.sock", tmp_path / "run", tmp_path / "keys")
    runner = web.AppRunner(make_app(plane, asyncio.Event(), [extension(provider)], tmp_path / "pystack.sock"))
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "web.sock")).start()
    yield plane, tmp_path / "web.sock"
    await runner.cleanup()
    await store.close()


async def test_a_session_begins_for_a_user_alone(socket: tuple[ControlPlane, Path]) -> None:
    plane, path = socket
    await plane.access.put_user("ada@example.org", "operator", ("shop",), new=True)
    for who, wanted in (("ada", 303), ("bob", 403)):
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(path)), cookie_jar=jar) as browser:

            async def get(to: str, browser: aiohttp.ClientSession = browser, **more: Any) -> aiohttp.ClientResponse:
                return await browser.get(f"http://page.test{to}", allow_redirects=False, **more)

            begun = await get("/v1/session/oidc")
            back = await allowed(begun.headers["Location"], who)
            ended = await get(f"{CALLBACK}?{urlencode(back)}", headers={"Sec-Fetch-Site": "cross-site"})
            assert ended.status == wanted
            session = await get("/v1/session")
            assert session.status == (200 if who == "ada" else 401)
            if who == "ada":
                assert ended.headers["Location"] == "/ui/"
                assert (await session.json())["stacks"] == ["shop"]
