"""Client of the OCI Distribution API: manifests and blobs, from mirrors first, with auth and bounded retries.

Source: OCI Distribution Specification 1.1. `transport` bounds what a server can do; URLs inside manifests are not followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from agent.contract.printable import quoted
from agent.errors import DeniedError, ImageError, ImageNotFoundError, UnauthorizedError
from agent.images import auth, documents, types
from agent.images.credentials import Credentials
from agent.images.credentials import find as credentials_of
from agent.images.reference import DIGEST, Reference
from agent.images.transport import HttpClient, UnavailableError, url_of
from agent.settings import Settings

ATTEMPTS = 4
PAUSE_S = 0.25
TAG_PAGES = 100
ACCEPT = ", ".join((*types.MANIFESTS, *types.INDEXES))


class _Tags(msgspec.Struct, frozen=True):
    tags: tuple[str, ...] | None = None


class Registry:
    """One registry during a pull or push: endpoints in order, and the tokens so far. *pause_s* is the longest first wait
    between tries; each later one is four times as long. *credentials* take precedence over the node's own, and are sent to the
    registry only, not to its mirrors."""

    def __init__(
        self,
        reference: Reference,
        settings: Settings,
        credentials: Credentials | None = None,
        *,
        pause_s: float = PAUSE_S,
    ) -> None:
        host = reference.host
        configured = settings.registries.get(host)
        self._docker_config = settings.docker_config
        own = "registry-1.docker.io" if host == "docker.io" else host
        local = host.split(":")[0] in ("localhost", "127.0.0.1") or host.startswith("[::1]")
        insecure = bool(configured and configured.insecure)
        mirrors = configured.mirrors if configured else ()
        self.endpoints = [m.rstrip("/") for m in mirrors]
        self._mirrors = frozenset(self.endpoints)
        self.endpoints += [f"http://{own}"] if local else [f"https://{own}"] + ([f"http://{own}"] if insecure else [])
        self.reference = reference
        self._credentials = credentials
        self.limits = settings.limits
        self._authorization: dict[tuple[str, str], str] = {}
        self._client = HttpClient(insecure=insecure, stall_s=settings.limits.stall_s)
        self._pause_s = pause_s

    async def __aenter__(self) -> Registry:
        await self._client.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def _request(
        self,
        method: str,
        endpoint: str,
        path: str = "",
        *,
        url: URL | None = None,
        headers: dict[str, str] | None = None,
        data: Any = None,
        scope: str | None = None,
    ) -> aiohttp.ClientResponse:
        """Send one request, with a login if the endpoint asks for one; *scope* is its scope, by default *method* on the
        repository. Raises UnavailableError, ImageNotFoundError, UnauthorizedError or ImageError."""
        action = "pull,push" if method in ("POST", "PUT", "PATCH") else "pull"
        try:
            home = URL(endpoint).origin()
            url = url or URL(f"{endpoint}/v2/{self.reference.repository}/{path}")
        except ValueError:
            raise ImageError(f"{endpoint!r} is not an address of a registry: http:// or https:// with a host") from None
        for attempt in (1, 2):
            known = self._authorization.get((endpoint, action), "") if url.origin() == home else ""
            reply = await self._client.request(method, url, headers=headers, authorization=known, data=data)
            again = data is None or isinstance(data, bytes)
            if reply.status == 401 and attempt == 1 and again and reply.url.origin() == home:
                challenge = reply.headers.get("WWW-Authenticate", "")
                reply.close()
                await self._login(endpoint, action, challenge, scope)
                continue
            break
        if reply.status < 300:
            return reply
        reply.close()
        name = self.reference.familiar
        if reply.status == 404:
            # "manifest unknown" is what scripts look for in the output of a pull
            raise ImageNotFoundError(f"manifest for {name} not found: manifest unknown: {endpoint} has no such name and tag")
        if reply.status in (401, 403):
            if scope is not None:
                raise UnauthorizedError(f"{endpoint} does not take this name and password ({reply.status})")
            word = "unauthorized: authentication required" if reply.status == 401 else "denied: access is denied"
            raise DeniedError(f"{word}: {endpoint} denies access to {name} ({reply.status}): log in with `docker login`")
        if reply.status in (416, 429) or reply.status >= 500:
            raise UnavailableError(f"{endpoint} answered {reply.status}")
        raise ImageError(f"{endpoint} answered {reply.status} for {name}")

    async def _login(self, endpoint: str, action: str, challenge: str, scope: str | None) -> None:
        scheme, parameters = auth.parse_challenge(challenge)
        # a mirror is another host than the registry that it mirrors, and has passwords of its own
        host = URL(endpoint).authority if endpoint in self._mirrors else self.reference.host
        own = self._credentials if endpoint not in self._mirrors else None
        credentials = own or await credentials_of(host, self._docker_config)
        if scheme == "basic" and credentials:
            self._authorization[endpoint, action] = credentials.basic
        elif scheme == "bearer":
            scope = f"repository:{self.reference.repository}:{action}" if scope is None else scope
            won = await auth.token(self._client, parameters, scope, credentials, URL(endpoint), self.limits.manifest_bytes)
            self._authorization[endpoint, action] = f"Bearer {won}"

    async def greet(self) -> None:
        """Check that the registry answers and accepts the credentials. Raises UnauthorizedError, ImageError."""
        failures: list[str] = []
        for endpoint in (e for e in self.endpoints if e not in self._mirrors):
            try:
                (await self._request("GET", endpoint, url=URL(f"{endpoint}/v2/"), scope="")).close()
                return
            except UnavailableError as error:
                failures.append(str(error))
        raise ImageError(f"registry {self.reference.host} does not answer: {_listed(failures)}")

    async def tags(self) -> list[str]:
        """All tags of the repository. Raises ImageNotFoundError, ImageError."""
        found: list[str] = []
        endpoint, what = self.endpoints[-1], f"the tags of {self.reference.familiar}"
        url: URL | None = None
        for _ in range(TAG_PAGES):
            try:
                async with await self._request("GET", endpoint, "tags/list", url=url) as reply:
                    data = await self._client.body(reply, self.limits.manifest_bytes, what)
                    more = reply.links.get("next")
            except UnavailableError as error:
                raise ImageError(f"no registry could be asked for {self.reference.familiar}: {error}") from error
            found += documents.read(data, _Tags, what, self.limits.manifest_bytes).tags or ()
            if not more:
                return found
            url = url_of(str(more["url"]), reply.url, endpoint)
        raise ImageError(f"{self.reference.familiar} has more tags than can be listed: name one")

    async def manifest(self, target: str) -> tuple[bytes, str, str]:
        """(document, digest, media type) of a tag or digest. Raises ImageNotFoundError, ImageError."""
        failures: list[str] = []
        for attempt in range(ATTEMPTS):
            for endpoint in self.endpoints:
                try:
                    return await self._manifest_at(endpoint, target)
                except ImageError as error:
                    if endpoint == self.endpoints[-1]:
                        raise
                    failures.append(str(error))  # a mirror need not have everything, nor be right
                except UnavailableError as error:
                    failures.append(str(error))
            await self._pause(attempt)
        raise ImageError(f"no registry could be asked for {self.reference.familiar}: {_listed(failures)}")

    async def _manifest_at(self, endpoint: str, target: str) -> tuple[bytes, str, str]:
        what = f"the manifest of image {self.reference.familiar}"
        async with await self._request("GET", endpoint, f"manifests/{target}", headers={"Accept": ACCEPT}) as reply:
            data = await self._client.body(reply, self.limits.manifest_bytes, what)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if DIGEST.match(target) and digest != target:
            raise ImageError(f"{endpoint} sent a manifest with digest {digest} where {target} was asked for")
        given = reply.headers.get("Content-Type", "")
        return data, digest, documents.kind_of(data, given, what, self.limits.manifest_bytes)

    async def referrers(self, digest: str) -> bytes | None:
        """The index of the manifests that refer to *digest*; None if the registry does not list them. Raises ImageError."""
        endpoint, what = self.endpoints[-1], f"what refers to {self.reference.familiar}"
        try:
            async with await self._request("GET", endpoint, f"referrers/{digest}") as reply:
                return await self._client.body(reply, self.limits.manifest_bytes, what)
        except ImageNotFoundError:
            return None
        except UnavailableError as error:
            raise ImageError(f"no registry could be asked for {what}: {error}") from error

    async def blob(self, digest: str, size: int) -> AsyncIterator[bytes]:
        """The bytes of a blob; a connection that breaks is resumed where it broke. Raises ImageError."""
        received = 0
        failures: list[str] = []
        for attempt in range(ATTEMPTS):
            for endpoint in self.endpoints:
                headers = {"Range": f"bytes={received}-"} if received else {}
                try:
                    async with await self._request("GET", endpoint, f"blobs/{digest}", headers=headers) as reply:
                        skip = _skipped(reply, received, endpoint)
                        async for chunk in self._client.chunks(reply):
                            data = chunk[skip:] if skip else chunk
                            skip -= len(chunk) - len(data)
                            received += len(data)
                            if received > size:
                                reply.close()
                                raise ImageError(f"{endpoint} sends more than the {size} bytes that {digest} has")
                            if data:
                                yield data
                    if received == size:
                        return
                    failures.append(f"{endpoint}: the connection ended after {received} of {size} bytes")
                except (ImageNotFoundError, UnavailableError) as error:
                    failures.append(str(error))
            await self._pause(attempt)
        raise ImageError(f"blob {digest[:19]}… of {self.reference.familiar} could not be fetched: {_listed(failures)}")

    async def has_blob(self, digest: str) -> bool:
        """Whether the registry has the blob. Raises ImageError if it cannot be reached."""
        try:
            (await self._request("HEAD", self.endpoints[-1], f"blobs/{digest}")).close()
        except ImageNotFoundError:
            return False
        except UnavailableError as error:
            raise ImageError(str(error)) from error
        return True

    async def upload(self, digest: str, data: AsyncIterator[bytes], size: int) -> None:
        """Push a blob in one request after the POST that opens it. Raises ImageError."""
        endpoint, stall_s = self.endpoints[-1], self._client.stall_s
        loop = asyncio.get_running_loop()
        try:
            reply = await self._request("POST", endpoint, "blobs/uploads/")
            reply.close()
            url = url_of(reply.headers.get("Location", ""), reply.url, endpoint)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            async with asyncio.timeout(stall_s) as patience:

                async def sent() -> AsyncIterator[bytes]:
                    async for chunk in data:
                        patience.reschedule(loop.time() + stall_s)
                        yield chunk

                url = url.update_query(digest=digest)
                (await self._request("PUT", endpoint, url=url, data=sent(), headers=headers)).close()
        except UnavailableError as error:
            raise ImageError(f"push of {self.reference.familiar}: {error}") from error
        except TimeoutError as error:
            raise ImageError(f"push of {self.reference.familiar}: {endpoint} takes nothing for {stall_s:g} s") from error

    async def put_manifest(self, target: str, data: bytes, media_type: str) -> None:
        """Store a manifest under *target*, a tag or digest. Raises ImageError."""
        headers = {"Content-Type": media_type}
        try:
            (await self._request("PUT", self.endpoints[-1], f"manifests/{target}", data=data, headers=headers)).close()
        except UnavailableError as error:
            raise ImageError(f"push of {self.reference.familiar}: {error}") from error

    async def _pause(self, attempt: int) -> None:
        """Back-off with jitter, so that many nodes do not return in step."""
        if attempt < ATTEMPTS - 1:
            await asyncio.sleep(min(8.0, self._pause_s * 4**attempt) * random.uniform(0.5, 1.0))


def _skipped(reply: aiohttp.ClientResponse, received: int, endpoint: str) -> int:
    """How many bytes of an answer were received before. Raises UnavailableError for a part that was not asked for."""
    if reply.status != 206:
        return received
    begin = re.match(r"bytes ([0-9]{1,19})-", reply.headers.get("Content-Range", ""))
    if not received or begin is None or int(begin[1]) != received:
        given = quoted(reply.headers.get("Content-Range", ""))
        raise UnavailableError(f"{endpoint} sends the part {given!r} where what follows byte {received} was asked for")
    return 0


def _listed(failures: list[str]) -> str:
    return "; ".join([*dict.fromkeys(failures)][:4])
