"""HTTP with untrusted servers: redirects by our own rules, answers of bounded size, senders that must make progress.

A password is sent to its host only, not to redirect targets, and never without TLS if the first request had it.
Source: RFC 9110 §15.4 (redirects); CVE-2020-15157 (credentials for a host that a server named).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from agent.contract.printable import quoted
from agent.errors import ImageError

REDIRECTS = 5
PROGRESS = 16 << 10
"""Bytes that a sender must bring within the time without progress: a byte now and then is not progress."""
CONNECT_S = 10.0
FAILURES = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
"""The errors of aiohttp for broken answers; ValueError for those that its parser does not expect."""


class UnavailableError(Exception):
    """This endpoint failed in a way that another try, or another endpoint, may mend."""


def url_of(text: str, base: URL | None, server: str) -> URL:
    """The URL *text*, given by *server*, relative to *base*. Raises ImageError for one that is not followed."""
    try:
        found = base.join(URL(text)) if base else URL(text)
        host, _ = found.host, found.port
    except ValueError:
        raise ImageError(f"{server} sends us to {quoted(text)!r}, which is not an address") from None
    if found.scheme not in ("http", "https") or not host:
        raise ImageError(f"{server} sends us to {quoted(text)!r}: only http and https are followed")
    if base and base.scheme == "https" and found.scheme == "http":
        raise ImageError(f"{server} sends us from https to {quoted(text)!r}, which anybody on the way can read: refused")
    if found.user is not None or found.password is not None:
        raise ImageError(f"{server} sends us to an address with a password in it: refused")
    return found


def _proxy(url: URL) -> str | None:
    """The proxy for a URL by HTTP_PROXY, HTTPS_PROXY and NO_PROXY; netrc(5) is not read."""
    return None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)


class HttpClient:
    """One session. *insecure* takes any certificate; *stall_s* are the seconds without progress after which a server is given
    up."""

    def __init__(self, *, insecure: bool, stall_s: float) -> None:
        self.stall_s = stall_s
        self._insecure = insecure
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the session."""
        connector = aiohttp.TCPConnector(limit_per_host=6, ssl=not self._insecure)
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            headers={"User-Agent": "pystack"},
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=1 << 18,
        )

    async def close(self) -> None:
        """Close the session."""
        if self._session:
            await self._session.close()

    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str = "",
        data: Any = None,
        redirects: int = REDIRECTS,
    ) -> aiohttp.ClientResponse:
        """The answer, of any status, after redirects from *url*. *authorization* is sent to the host of *url* only.

        The caller bounds the time of *data* that is a stream. Raises UnavailableError, ImageError."""
        assert self._session
        start = url
        for _ in range(redirects + 1):
            sent = dict(headers or {})
            if authorization and url.origin() == start.origin():
                sent["Authorization"] = authorization
            streams = data is not None and not isinstance(data, bytes | dict)
            try:
                async with asyncio.timeout(None if streams else self.stall_s):
                    reply = await self._session.request(
                        method, url, headers=sent, data=data, allow_redirects=False, proxy=_proxy(url)
                    )
            except TimeoutError as error:
                raise UnavailableError(f"{url.origin()} does not answer within {self.stall_s:g} s") from error
            except FAILURES as error:
                raise UnavailableError(f"{url.origin()}: {quoted(str(error)) or type(error).__name__}") from error
            if reply.status not in (301, 302, 303, 307, 308):
                return reply
            reply.close()
            if method not in ("GET", "HEAD"):
                raise ImageError(f"{url.origin()} sends a {method} to {quoted(reply.headers.get('Location', ''))!r}: refused")
            url = url_of(reply.headers.get("Location", ""), url, str(url.origin()))
        raise ImageError(f"{start.origin()} sends us on more than {redirects} times")

    async def chunks(self, reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body, chunk by chunk. Only waiting for the sender counts as time without progress.

        Raises UnavailableError."""
        loop = asyncio.get_running_loop()
        waited, count = 0.0, 0
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout_at(began + self.stall_s - waited):
                    data = await reply.content.readany()
            except TimeoutError as error:
                raise UnavailableError(
                    f"{reply.url.origin()} sends less than {PROGRESS >> 10} KiB in {self.stall_s:g} s (limits.stall_s)"
                ) from error
            except FAILURES as error:
                raise UnavailableError(f"{reply.url.origin()}: {quoted(str(error)) or type(error).__name__}") from error
            if not data:
                return
            yield data
            waited += loop.time() - began if not reply.content.at_eof() else 0.0
            count += len(data)
            if count >= PROGRESS:
                waited, count = 0.0, 0

    async def body(self, reply: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
        """All of an answer. Raises ImageError if it has more than *limit* bytes, UnavailableError."""
        out = bytearray()
        async for data in self.chunks(reply):
            out += data
            if len(out) > limit:
                reply.close()
                raise ImageError(f"{what} from {reply.url.origin()} has more than the {limit} bytes that are allowed")
        return bytes(out)
