"""Sign-in by an OpenID provider: authorization code with PKCE, and an ID token that is verified.

Source: OpenID Connect Core 1.0 (3.1.2, 3.1.3.7), Discovery 1.0; RFC 7636 (PKCE, S256), RFC 9207 (issuer of the answer), RFC
9700 (state bound to the browser, exact redirect).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from agent.contract.sign_in import OidcSettings
from orchestrator.errors import RefusedError

CALLBACK = "/v1/session/oidc/callback"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those with a key that the provider alone has."""
PENDING_S = 600.0
MOST = 1000
"""Sign-ins that may be under way: the oldest give way."""
WITHIN_S = 15.0
LEEWAY_S = 60
LARGEST = 1 << 20
"""Bytes of an answer."""


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A browser at the provider: *browser* is a hash of what its cookie has."""

    verifier: str
    nonce: str
    browser: str
    begun: float


class Provider:
    """The provider of *settings*."""

    def __init__(self, settings: OidcSettings) -> None:
        self.settings = settings
        self._pending: OrderedDict[str, Pending] = OrderedDict()

    async def begin(self) -> tuple[str, str]:
        """The address at the provider to which a browser goes, and the secret that it keeps meanwhile. Raises RefusedError
        (502)."""
        found = await self._discover()
        state, browser = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        pending = Pending(
            verifier=secrets.token_urlsafe(48), nonce=secrets.token_urlsafe(24), browser=_hash(browser), begun=time.monotonic()
        )
        self._pending[state] = pending
        while len(self._pending) > MOST:
            self._pending.popitem(last=False)
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self._redirect,
            "scope": " ".join(self.settings.scopes),
            "state": state,
            "nonce": pending.nonce,
            "code_challenge": _hash(pending.verifier),
            "code_challenge_method": "S256",
        }
        return f"{found['authorization_endpoint']}?{urlencode(query)}", browser

    @property
    def _redirect(self) -> str:
        return self.settings.address.rstrip("/") + CALLBACK

    async def finish(self, query: dict[str, str], browser: str) -> str:
        """Who came back with *query*, from the browser that keeps *browser*. Raises RefusedError (401, 502)."""
        pending = self._pending.pop(query.get("state", ""), None)
        if (
            pending is None
            or time.monotonic() - pending.begun > PENDING_S
            or not hmac.compare_digest(pending.browser, _hash(browser))
        ):
            raise RefusedError("this sign-in was not begun here, or too long ago: begin again", 401)
        if query.get("iss", self.settings.issuer) != self.settings.issuer:
            raise RefusedError("the answer is of another provider", 401)
        if "code" not in query:
            raise RefusedError(
                f"the provider says: {query.get('error_description') or query.get('error') or 'nothing'}"[:300], 401
            )
        found = await self._discover()
        form = {
            "grant_type": "authorization_code",
            "code": query["code"],
            "redirect_uri": self._redirect,
            "client_id": self.settings.client_id,
            "code_verifier": pending.verifier,
        }
        answer = await self._ask("POST", found["token_endpoint"], form)
        claims = await self._verified(str(answer.get("id_token", "")), found)
        if not hmac.compare_digest(str(claims.get("nonce", "")), pending.nonce):
            raise RefusedError("the ID token is of another sign-in", 401)
        if self.settings.claim == "email" and claims.get("email_verified") is False:
            raise RefusedError("the provider has not verified this address", 401)
        name = claims.get(self.settings.claim)
        if not isinstance(name, str) or not name:
            raise RefusedError(f"the ID token has no {self.settings.claim}", 401)
        return name.lower()

    async def _verified(self, token: str, found: dict[str, Any]) -> dict[str, Any]:
        """The claims of *token*, whose signature, issuer, audience and times hold. Raises RefusedError (401, 502)."""
        import jwt  # who has no provider does not load it

        try:
            keys = jwt.PyJWKSet.from_dict(await self._ask("GET", found["jwks_uri"])).keys
            head = jwt.get_unverified_header(token)
            chosen = [k for k in keys if "kid" not in head or k.key_id == head["kid"]]
            if head.get("alg") not in ALGORITHMS or len(chosen) != 1:
                raise RefusedError("the ID token is signed by no key of the provider", 401)
            claims: dict[str, Any] = jwt.decode(
                token,
                chosen[0].key,
                algorithms=[str(head["alg"])],
                audience=self.settings.client_id,
                issuer=self.settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise RefusedError(f"the ID token does not hold: {error}", 401) from error
        if claims.get("azp", self.settings.client_id) != self.settings.client_id:
            raise RefusedError("the ID token is for somebody else", 401)
        return claims

    async def _discover(self) -> dict[str, Any]:
        found = await self._ask("GET", self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self.settings.issuer:
            raise RefusedError("the provider calls itself otherwise than oidc.issuer does", 502)
        secure = self.settings.issuer.startswith("https://")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not isinstance(found.get(name), str) or (secure and not found[name].startswith("https://")):
                raise RefusedError(f"the provider has no {name}", 502)
        return found

    async def _ask(self, method: str, url: str, form: dict[str, str] | None = None) -> dict[str, Any]:
        """Raises RefusedError (502)."""
        secret = self.settings.client_secret_file
        try:
            auth = None
            if form and secret:
                auth = aiohttp.BasicAuth(self.settings.client_id, _read(secret))
            timeout = aiohttp.ClientTimeout(total=WITHIN_S)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, url, data=form, auth=auth, allow_redirects=False) as reply,
            ):
                raw = await reply.content.read(LARGEST)
                if reply.status != 200:
                    raise RefusedError(f"the provider answers {reply.status}", 502)
            found = json.loads(raw)
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise RefusedError(f"the provider does not answer as it should: {error}", 502) from error
        if not isinstance(found, dict):
            raise RefusedError("the provider does not answer as it should", 502)
        return found


def _hash(secret: str) -> str:
    """Base64url of SHA-256 (RFC 7636, S256)."""
    return base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).decode().rstrip("=")


def _read(path: str) -> str:
    return Path(path).read_text().strip()
