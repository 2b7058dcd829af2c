"""Client of the OCI Distribution API: manifests and blobs, from mirrors first, with auth and bounded retries.

Source: OCI Distribution Specification 1.1. Redirects to other hosts lose the Authorization header (aiohttp does that),
and no URL inside a manifest is ever followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from agent.errors import ImageError, ImageNotFoundError, UnauthorizedError
from agent.images import auth, types
from agent.images.reference import Reference
from agent.settings import Settings

ATTEMPTS = 4
STALL_S = 30.0
MANIFEST_LIMIT = 4 << 20
TAG_PAGES = 100
ACCEPT = ", ".join((*types.MANIFESTS, *types.INDEXES))


class _Tags(msgspec.Struct):
    tags: tuple[str, ...] | None = None


class UnavailableError(Exception):
    """This endpoint failed in a way that another try, or another endpoint, may mend."""


class Registry:
    """One registry as one pull or push sees it: endpoints in order, and the tokens won so far."""

    def __init__(self, reference: Reference, settings: Settings, credentials: auth.Credentials | None = None) -> None:
        """*credentials* go before those that the node itself has, and to the registry alone, not to its mirrors."""
        host = reference.host
        configured = settings.registries.get(host)
        self._docker_config = settings.docker_config
        own = "registry-1.docker.io" if host == "docker.io" else host
        local = host.split(":")[0] in ("localhost", "127.0.0.1") or host.startswith("[::1]")
        insecure = bool(configured and configured.insecure)
        mirrors = configured.mirrors if configured else ()
        self._own = [f"http://{own}"] if local else [f"https://{own}"] + ([f"http://{own}"] if insecure else [])
        self.endpoints = [*(m.rstrip("/") for m in mirrors), *self._own]
        self.reference = reference
        self._credentials = credentials
        self._insecure = insecure
        self._authorization: dict[tuple[str, str], str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Registry:
        connector = aiohttp.TCPConnector(limit_per_host=6, ssl=not self._insecure)
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=STALL_S)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, headers={"User-Agent": "pystack"},
            trust_env=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session
        await self._session.close()

    async def _request(self, method: str, endpoint: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        """One request, logged in where the endpoint asks for it. Raises UnavailableError, ImageNotFoundError or ImageError."""
        assert self._session
        action = "pull,push" if method in ("POST", "PUT", "PATCH") else "pull"
        url = path if path.startswith("http") else f"{endpoint}/v2/{self.reference.repository}/{path}"
        headers = dict(options.pop("headers", {}))
        for attempt in (1, 2):
            if known := self._authorization.get((endpoint, action)):
                headers["Authorization"] = known
            try:
                reply = await self._session.request(method, url, headers=headers, **options)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise UnavailableError(f"{endpoint}: {error or type(error).__name__}") from error
            if reply.status == 401 and attempt == 1:
                challenge = reply.headers.get("WWW-Authenticate", "")
                reply.release()
                await self._login(endpoint, action, challenge, path)
                continue
            break
        if reply.status < 300 or reply.status == 416:
            return reply
        reply.release()
        name = self.reference.familiar
        if reply.status == 404:
            raise ImageNotFoundError(f"image {name} does not exist at {endpoint}: check its name and tag")
        if reply.status in (401, 403):
            if path == f"{endpoint}/v2/":
                raise UnauthorizedError(f"{endpoint} does not take this name and password ({reply.status})")
            raise ImageError(f"{endpoint} denies {action} of {name} ({reply.status}): log in with `docker login`")
        if reply.status == 429 or reply.status >= 500:
            raise UnavailableError(f"{endpoint} answered {reply.status}")
        raise ImageError(f"{endpoint} answered {reply.status} for {name}")

    async def _login(self, endpoint: str, action: str, challenge: str, path: str) -> None:
        scheme, parameters = auth.parse_challenge(challenge)
        own = self._credentials if endpoint in self._own else None
        credentials = own or await auth.find(self.reference.host, self._docker_config)
        if scheme == "basic" and credentials:
            self._authorization[endpoint, action] = credentials.basic
        elif scheme == "bearer":
            assert self._session
            # a login asks for nothing but to be known
            scope = "" if path == f"{endpoint}/v2/" else f"repository:{self.reference.repository}:{action}"
            try:
                won = await auth.token(self._session, parameters, scope, credentials, endpoint)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise UnavailableError(f"{endpoint}: the token server does not answer: {error}") from error
            self._authorization[endpoint, action] = f"Bearer {won}"

    async def greet(self) -> None:
        """The registry answers, and knows who asks. Raises UnauthorizedError, ImageError."""
        failures: list[str] = []
        for endpoint in self._own:
            try:
                (await self._request("GET", endpoint, f"{endpoint}/v2/")).release()
                return
            except UnavailableError as error:
                failures.append(str(error))
        raise ImageError(f"registry {self.reference.host} does not answer: {'; '.join(failures)}")

    async def tags(self) -> list[str]:
        """All tags of the repository. Raises ImageNotFoundError, ImageError."""
        found: list[str] = []
        path = "tags/list"
        for _ in range(TAG_PAGES):
            try:
                async with await self._request("GET", self._own[0], path) as reply:
                    found += msgspec.json.decode(await reply.read(), type=_Tags).tags or ()
                    more = reply.links.get("next")
            except (UnavailableError, aiohttp.ClientError, msgspec.MsgspecError) as error:
                raise ImageError(f"no registry could be asked for {self.reference.familiar}: {error}") from error
            if not more:
                return found
            path = str(more["url"])
        raise ImageError(f"{self.reference.familiar} has more tags than can be listed: name one")

    async def manifest(self, target: str) -> tuple[bytes, str, str]:
        """(document, digest, media type) of a tag or digest. Raises ImageNotFoundError, ImageError."""
        failures: list[str] = []
        for attempt in range(ATTEMPTS):
            for endpoint in self.endpoints:
                try:
                    reply = await self._request("GET", endpoint, f"manifests/{target}", headers={"Accept": ACCEPT})
                    async with reply:
                        data = await reply.content.read(MANIFEST_LIMIT)
                        while not reply.content.at_eof() and len(data) < MANIFEST_LIMIT:
                            data += await reply.content.read(MANIFEST_LIMIT - len(data))
                except ImageNotFoundError as error:
                    if endpoint == self.endpoints[-1]:
                        raise
                    failures.append(str(error))  # a mirror need not have everything
                    continue
                except (UnavailableError, aiohttp.ClientError, TimeoutError) as error:
                    failures.append(str(error))
                    continue
                digest = "sha256:" + hashlib.sha256(data).hexdigest()
                if target.startswith("sha256:") and digest != target:
                    raise ImageError(f"{endpoint} sent a manifest with digest {digest} where {target} was asked for")
                return data, digest, _media_type(data, reply.headers.get("Content-Type", ""))
            await _pause(attempt)
        unique = "; ".join(dict.fromkeys(failures))
        raise ImageError(f"no registry could be asked for {self.reference.familiar}: {unique}")

    async def blob(self, digest: str, size: int) -> AsyncIterator[bytes]:
        """The bytes of a blob; a connection that breaks is resumed where it broke. Raises ImageError."""
        received = 0
        failures: list[str] = []
        for attempt in range(ATTEMPTS):
            for endpoint in self.endpoints:
                headers = {"Range": f"bytes={received}-"} if received else {}
                try:
                    async with await self._request("GET", endpoint, f"blobs/{digest}", headers=headers) as reply:
                        skip = received if reply.status == 200 else 0
                        async for chunk in reply.content.iter_any():
                            data = chunk[skip:] if skip else chunk
                            skip -= len(chunk) - len(data)
                            received += len(data)
                            if received > size:
                                raise ImageError(f"{endpoint} sends more than the {size} bytes of {digest}")
                            if data:
                                yield data
                    if received == size:
                        return
                    failures.append(f"{endpoint}: the connection ended after {received} of {size} bytes")
                except ImageNotFoundError as error:
                    failures.append(str(error))
                except (UnavailableError, aiohttp.ClientError, TimeoutError) as error:
                    failures.append(str(error) or f"{endpoint}: silent for {STALL_S:.0f} s")
            await _pause(attempt)
        unique = "; ".join(dict.fromkeys(failures))
        raise ImageError(f"layer {digest[:19]}… of {self.reference.familiar} could not be fetched: {unique}")

    async def has_blob(self, digest: str) -> bool:
        try:
            (await self._request("HEAD", self.endpoints[-1], f"blobs/{digest}")).release()
        except ImageNotFoundError:
            return False
        except UnavailableError as error:
            raise ImageError(str(error)) from error
        return True

    async def upload(self, digest: str, data: AsyncIterator[bytes], size: int) -> None:
        """Push a blob in one request after the POST that opens it."""
        try:
            reply = await self._request("POST", self.endpoints[-1], "blobs/uploads/")
            location = reply.headers["Location"]
            reply.release()
            if not location.startswith("http"):
                location = self.endpoints[-1] + location
            joint = "&" if "?" in location else "?"
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            url = f"{location}{joint}digest={digest}"
            (await self._request("PUT", self.endpoints[-1], url, data=data, headers=headers)).release()
        except UnavailableError as error:
            raise ImageError(f"push of {self.reference.familiar}: {error}") from error

    async def put_manifest(self, target: str, data: bytes, media_type: str) -> None:
        headers = {"Content-Type": media_type}
        try:
            path = f"manifests/{target}"
            (await self._request("PUT", self.endpoints[-1], path, data=data, headers=headers)).release()
        except UnavailableError as error:
            raise ImageError(f"push of {self.reference.familiar}: {error}") from error


def _media_type(data: bytes, header: str) -> str:
    """What the document says of itself, checked against what it is: one with both layers and manifests is refused
    (CVE-2021-41190)."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ImageError(f"the registry sent a manifest that is no JSON: {error}") from error
    if not isinstance(document, dict) or ("layers" in document and "manifests" in document):
        raise ImageError("the registry sent a document that is neither a manifest nor an index")
    kind = str(document.get("mediaType") or header.split(";")[0].strip())
    if "manifests" in document and kind not in types.INDEXES:
        kind = types.OCI_INDEX
    if kind not in types.INDEXES + types.MANIFESTS:
        raise ImageError(f"the registry sent a manifest of type {kind or 'unknown'}, which pystack cannot read")
    return kind


async def _pause(attempt: int) -> None:
    """Back-off with jitter, so that many nodes do not return in step."""
    if attempt < ATTEMPTS - 1:
        await asyncio.sleep(min(8.0, 0.25 * 4**attempt) * random.uniform(0.5, 1.0))
