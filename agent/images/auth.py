"""Credentials from Docker's own config.json, and the token dance of registries.

Source: Docker CLI documentation (config.json, credential helpers); Distribution "Token Authentication Specification".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import re
from pathlib import Path

import msgspec
from yarl import URL

from agent.contract.printable import quoted
from agent.errors import ImageError, UnauthorizedError
from agent.images import documents
from agent.images.transport import HttpClient, UnavailableError, url_of

HELPER_S = 30
LARGEST = 1 << 20
"""Bytes of a config.json, and of a helper's answer."""
HUB_KEY = "https://index.docker.io/v1/"
TOKEN = "<token>"


class Credentials(msgspec.Struct, frozen=True):
    """A user name and password for a registry."""

    username: str
    password: str
    """The secret, or an identity token where *username* is TOKEN."""

    @property
    def basic(self) -> str:
        """The value of the Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class AuthEntry(msgspec.Struct, frozen=True):
    """One of `auths` in config.json."""

    auth: str = ""
    identitytoken: str = ""


class DockerConfigFile(msgspec.Struct, frozen=True, rename="camel"):
    """The keys of config.json that are used."""

    auths: dict[str, AuthEntry] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


class Helped(msgspec.Struct, frozen=True, rename="pascal"):
    """A credential helper's answer."""

    username: str
    secret: str


class Token(msgspec.Struct, frozen=True):
    """A token server's answer."""

    token: str | None = None
    access_token: str | None = None


async def find(host: str, folder: str = "") -> Credentials | None:
    """Credentials for registry *host*: a helper for it, the default helper, then those in *folder*'s config.json."""
    directory = Path(folder or os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    path = directory / "config.json"
    try:
        config = documents.read(path.read_bytes(), DockerConfigFile, str(path), LARGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}: registry credentials cannot be read") from error
    key = HUB_KEY if host == "docker.io" else host
    helper = config.cred_helpers.get(host) or config.creds_store
    if helper:
        found = await _ask_helper(helper, key)
        if found:
            return found
    for name in (key, f"https://{host}", f"http://{host}", f"https://{host}/v2/"):
        entry = config.auths.get(name, AuthEntry())
        if entry.identitytoken:
            return Credentials(TOKEN, entry.identitytoken)
        if entry.auth:
            try:
                user, _, secret = base64.b64decode(entry.auth, validate=True).decode().partition(":")
            except (binascii.Error, ValueError) as error:
                raise ImageError(f"{path}: the entry for {name} is not base64 of user:password") from error
            return Credentials(user, secret.rstrip("\0"))
    return None


async def _ask_helper(helper: str, key: str) -> Credentials | None:
    if not re.fullmatch(r"[\w.-]+", helper):
        raise ImageError(f"credential helper {helper!r}: not a program name")
    program = f"docker-credential-{helper}"
    try:
        child = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        raise ImageError(f"{program} is named in config.json but is not installed") from None
    try:
        async with asyncio.timeout(HELPER_S):
            out, _ = await child.communicate(key.encode())
    except TimeoutError:
        raise ImageError(f"{program} did not answer within {HELPER_S} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    if child.returncode:
        return None
    reply = documents.read(out, Helped, f"the answer of {program}", LARGEST)
    return Credentials(reply.username, reply.secret)


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """Scheme (lower case) and parameters of a WWW-Authenticate header."""
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), dict(re.findall(r'\b(\w+)="([^"]*)"', rest))


async def token(
    client: HttpClient, parameters: dict[str, str], scope: str, credentials: Credentials | None, base: URL, limit: int
) -> str:
    """An access token for *scope*, from the realm that the registry at *base* names. A realm may not fall back from https to
    http, which would reveal the password, nor redirect. Raises ImageError, UnavailableError."""
    realm = url_of(parameters.get("realm", ""), None, str(base.origin()))
    if realm.scheme == "http" and base.scheme == "https":
        raise ImageError(f"{base.origin()} sends clients to {quoted(str(realm))!r} for a token, without TLS: refused")
    query = {"service": parameters.get("service", "")} | ({"scope": scope} if scope else {})
    try:
        if credentials and credentials.username == TOKEN:
            form = {**query, "grant_type": "refresh_token", "refresh_token": credentials.password, "client_id": "pystack"}
            reply = await client.request("POST", realm, data=form)
        else:
            basic = credentials.basic if credentials else ""
            reply = await client.request("GET", realm.update_query(query), authorization=basic)
        async with reply:
            if reply.status in (401, 403) and not scope:
                raise UnauthorizedError(f"{realm.origin()} does not take this name and password ({reply.status})")
            if reply.status != 200:
                raise ImageError(f"the token server {realm.origin()} refused ({reply.status}): check `docker login`")
            data = await client.body(reply, limit, "the token")
    except UnavailableError as error:
        raise UnavailableError(f"{base.origin()}: the token server does not answer: {error}") from error
    found = documents.read(data, Token, f"the token from {realm.origin()}", limit)
    word = found.token or found.access_token or ""
    if not re.fullmatch(r"[\x21-\x7e]+", word):  # RFC 6750 §2.1; anything else could not be sent
        raise ImageError(f"the token server {realm.origin()} gives no token")
    return word
