"""Engine API: credentials for registries, as clients send them and as a registry is asked whether they are good.

Source: Docker Engine API v1.48, "Authentication" (the header X-Registry-Auth), ImageBuild (X-Registry-Config), SystemAuth.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api import shapes
from agent.api.app_keys import ENGINE, answer, body
from agent.errors import BadRequestError
from agent.images.credentials import HUB_KEY, TOKEN, Credentials, host_of
from agent.images.reference import parse
from agent.images.registry import Registry


def sent(request: web.Request) -> Credentials | None:
    """The credentials in X-Registry-Auth; None if it is empty, or has none: clients send all kinds of words for that, which
    Docker's daemon passes over."""
    header = request.headers.get("X-Registry-Auth", "")
    if not header:
        return None
    try:
        return of(shapes.read(_decoded(header), shapes.LOGIN))
    except (binascii.Error, ValueError, BadRequestError):
        return None


def sent_for(request: web.Request, host: str) -> Credentials | None:
    """Those for the registry *host*: one login for what is asked, or one of several. Raises BadRequestError."""
    return sent(request) or for_host(all_sent(request), host)


def all_sent(request: web.Request) -> dict[str, Credentials]:
    """Those in X-Registry-Config, by the name of the registry. Raises BadRequestError."""
    header = request.headers.get("X-Registry-Config", "")
    if not header:
        return {}
    try:
        parsed = json.loads(_decoded(header))
    except (binascii.Error, ValueError, RecursionError):
        raise BadRequestError("X-Registry-Config is not base64 (RFC 4648) of a JSON object") from None
    found = {}
    for name, one in parsed.items() if isinstance(parsed, dict) else ():
        given = of(shapes.read(json.dumps(one).encode(), shapes.LOGIN))
        if given:
            found[name if name == HUB_KEY else host_of(name)] = given
    return found


def for_host(logins: Mapping[str, Credentials], host: str) -> Credentials | None:
    """The one of *logins* for the registry *host*, which Docker calls by a name of its own where it is the Hub."""
    return (logins.get(HUB_KEY) if host == "docker.io" else None) or logins.get(host)


def _decoded(header: str) -> bytes:
    """Base64 in either alphabet, padded or not (RFC 4648). Raises ValueError."""
    return base64.b64decode(header.translate(str.maketrans("-_", "+/")) + "=" * (-len(header) % 4), validate=True)


def of(fields: dict[str, Any]) -> Credentials | None:
    """Credentials of a document of the Engine API. Raises BadRequestError."""
    if token := fields.get("identitytoken"):
        return Credentials(TOKEN, token)
    if fields.get("auth") and not fields.get("username"):
        try:
            name, _, password = base64.b64decode(fields["auth"]).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise BadRequestError("auth: it is not base64 of name:password") from None
        return Credentials(name, password)
    return Credentials(fields["username"], fields.get("password", "")) if fields.get("username") else None


async def check(request: web.Request) -> web.Response:
    """`docker login`: the registry itself is asked. Raises UnauthorizedError, ImageError."""
    fields = body(request)
    host = host_of(fields.get("serveraddress", ""))
    host = "docker.io" if host in ("", "index.docker.io", "registry-1.docker.io") else host
    async with Registry(parse(f"{host}/login"), request.app[ENGINE].settings, of(fields)) as registry:
        await registry.greet()
    return answer({"Status": "Login Succeeded", "IdentityToken": ""})
