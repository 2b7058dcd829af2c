"""Credentials from Docker's own config.json, and the token dance of registries.

Source: Docker CLI documentation (config.json, credential helpers); Distribution "Token Authentication Specification".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from agent.errors import ImageError, UnauthorizedError

HUB_KEY = "https://index.docker.io/v1/"
TOKEN = "<token>"


class Credentials(msgspec.Struct, frozen=True):
    username: str
    password: str
    """The secret, or an identity token where *username* is TOKEN."""

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


async def find(host: str, folder: str = "") -> Credentials | None:
    """Credentials for registry *host*: a helper for it, the default helper, then what stands in *folder*'s config.json."""
    directory = Path(folder or os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: {error}: registry credentials cannot be read") from error
    key = HUB_KEY if host == "docker.io" else host
    helper = config.get("credHelpers", {}).get(host) or config.get("credsStore")
    if helper:
        found = await _ask_helper(str(helper), key)
        if found:
            return found
    for name in (key, f"https://{host}", f"http://{host}", f"https://{host}/v2/"):
        entry = config.get("auths", {}).get(name, {})
        if entry.get("identitytoken"):
            return Credentials(TOKEN, entry["identitytoken"])
        if entry.get("auth"):
            try:
                user, _, secret = base64.b64decode(entry["auth"]).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise ImageError(f"{path}: the entry for {name} is not base64 of user:password") from error
            return Credentials(user, secret.rstrip("\0"))
    return None


async def _ask_helper(helper: str, key: str) -> Credentials | None:
    if not re.fullmatch(r"[\w.-]+", helper):
        raise ImageError(f"credential helper {helper!r}: not a program name")
    try:
        child = await asyncio.create_subprocess_exec(
            f"docker-credential-{helper}", "get", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise ImageError(f"docker-credential-{helper} is named in config.json but is not installed") from None
    out, _ = await asyncio.wait_for(child.communicate(key.encode()), 30)
    if child.returncode:
        return None
    reply = json.loads(out)
    return Credentials(reply["Username"], reply["Secret"])


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """Scheme (lower case) and parameters of a WWW-Authenticate header."""
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), dict(re.findall(r'(\w+)="([^"]*)"', rest))


async def token(
    session: aiohttp.ClientSession, parameters: dict[str, str], scope: str, credentials: Credentials | None, base: str
) -> str:
    """An access token for *scope*. A realm may not fall back from https to http, which would show the password."""
    realm = parameters.get("realm", "")
    parts = urlsplit(realm)
    if parts.scheme not in ("http", "https") or (parts.scheme == "http" and base.startswith("https:")):
        raise ImageError(f"the registry sends clients to {realm!r} for a token: refused")
    query = {"service": parameters.get("service", "")} | ({"scope": scope} if scope else {})
    if credentials and credentials.username == TOKEN:
        form = {**query, "grant_type": "refresh_token", "refresh_token": credentials.password, "client_id": "pystack"}
        request = session.post(realm, data=form)
    else:
        headers = {"Authorization": credentials.basic} if credentials else {}
        request = session.get(realm, params=query, headers=headers)
    async with request as reply:
        if reply.status in (401, 403) and not scope:
            raise UnauthorizedError(f"{parts.netloc} does not take this name and password ({reply.status})")
        if reply.status != 200:
            raise ImageError(f"the token server {parts.netloc} refused ({reply.status}): check `docker login`")
        body = await reply.json(content_type=None)
    return str(body.get("token") or body.get("access_token") or "")
