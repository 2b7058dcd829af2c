"""Engine API: credentials for registries, as clients send them and as a registry is asked whether they are good.

Source: Docker Engine API v1.48, "Authentication" (the header X-Registry-Auth), SystemAuth.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from aiohttp import web

from agent.api import shapes
from agent.api.app_keys import ENGINE, answer, body
from agent.errors import BadRequestError
from agent.images import auth
from agent.images.auth import Credentials
from agent.images.reference import parse
from agent.images.registry import Registry


def sent(request: web.Request) -> Credentials | None:
    """The credentials in X-Registry-Auth; None if it is empty, or has none: clients send all kinds of words for that, which
    Docker's daemon passes over."""
    header = request.headers.get("X-Registry-Auth", "")
    if not header:
        return None
    try:
        raw = base64.b64decode(header.translate(str.maketrans("-_", "+/")) + "=" * (-len(header) % 4), validate=True)
        return of(shapes.read(raw, shapes.LOGIN))
    except (binascii.Error, ValueError, BadRequestError):
        return None


def of(fields: dict[str, Any]) -> Credentials | None:
    """Credentials of a document of the Engine API. Raises BadRequestError."""
    if token := fields.get("identitytoken"):
        return Credentials(auth.TOKEN, token)
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
    host = fields.get("serveraddress", "").removeprefix("https://").removeprefix("http://").partition("/")[0]
    host = "docker.io" if host in ("", "index.docker.io", "registry-1.docker.io") else host
    async with Registry(parse(f"{host}/login"), request.app[ENGINE].settings, of(fields)) as registry:
        await registry.greet()
    return answer({"Status": "Login Succeeded", "IdentityToken": ""})
