"""The token dance of registries.

Source: Distribution "Token Authentication Specification"; RFC 6750.
"""

from __future__ import annotations

import re

import msgspec
from yarl import URL

from agent.contract.printable import quoted
from agent.errors import ImageError, UnauthorizedError
from agent.images import documents
from agent.images.credentials import TOKEN, Credentials
from agent.images.transport import HttpClient, UnavailableError, url_of


class Token(msgspec.Struct, frozen=True):
    """A token server's answer."""

    token: str | None = None
    access_token: str | None = None


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
