"""The certificates that the control plane obtains: kept sealed in the store, so that any proxy and any server can be lost."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from orchestrator.errors import PystackError
from orchestrator.ingress.model import Certificate, Challenge, IngressSettings, Issuer
from orchestrator.server.contents import Contents
from orchestrator.stackfile.certificate_text import CertificateTextError, Pair, read_pair
from orchestrator.store.interface import Delete, Put, Store

if TYPE_CHECKING:
    from orchestrator.ingress.acme import Account, Publisher

ROOT = "ingress.root"
"""The secret with the cluster's own authority."""
ACCOUNT = "ingress.acme"
"""The secret with the account at the ACME server."""
PREFIX = "ingress/certificates/"
FIRST_RETRY_S = 10.0
LONGEST_RETRY_S = 6 * 3600.0
RATE_LIMITED_S = 3600.0
PUBLISH_S = 30.0
"""How long the proxies may take to have a challenge."""
log = logging.getLogger(__name__)


class Certificates:
    """Certificates by host. *publish* gives all proxies the present challenges, and returns once they have them; *changed* is
    called when there is a new certificate, or a new problem."""

    def __init__(
        self, store: Store, contents: Contents, publish: Callable[[], Awaitable[None]], changed: Callable[[], None]
    ) -> None:
        self.known: dict[str, Certificate] = {}
        self.challenges: dict[str, Challenge] = {}
        """What proxies answer ACME servers at this moment, by token."""
        self._store = store
        self._contents = contents
        self._publish = publish
        self._changed = changed
        self._orders: dict[str, asyncio.Task[None]] = {}
        self._registering = asyncio.Lock()
        self._ensuring, self._rooting = asyncio.Lock(), asyncio.Lock()
        self._pairs: dict[str, tuple[str, Pair]] = {}
        self._wanted: set[str] = set()

    async def load(self) -> None:
        """Read the store. Raises StoreError."""
        for entry in await self._store.scan(PREFIX):
            one = msgspec.json.decode(entry.value, type=Certificate)
            self.known[one.host] = one

    def pair(self, host: str) -> Pair | None:
        """The certificate for *host*, None if there is none yet."""
        one = self.known.get(host)
        if one is None or not one.secret:
            return None
        try:
            digest = self._contents.find("secret", one.secret).digest
            if host not in self._pairs or self._pairs[host][0] != digest:
                self._pairs[host] = digest, read_pair(self._contents.read("secret", one.secret))
            return self._pairs[host][1]
        except (PystackError, CertificateTextError) as error:
            log.warning("the certificate of %s: %s", host, error)
            return None

    async def ensure(self, wanted: Mapping[str, Issuer], settings: IngressSettings) -> None:
        """Have a certificate made for each host that is *wanted* and has none, or whose own is near its end. Those of the
        cluster's own authority are there when this returns; the others come later."""
        async with self._ensuring:  # a host that is wanted twice at once has one certificate
            await self._ensure(wanted, settings)

    async def _ensure(self, wanted: Mapping[str, Issuer], settings: IngressSettings) -> None:
        now = time.time()
        self._wanted = set(wanted)
        for host, issuer in wanted.items():
            known = self.known.get(host)
            if known is None or known.issuer != issuer:
                # the one by the other issuer is served until there is a new one
                known = Certificate(host=host, issuer=issuer, secret=known.secret if known else "")
            if host in self._orders or not known.due(now):
                continue
            if issuer == "internal":
                await self._issue(known)
            else:
                self._orders[host] = asyncio.create_task(self._order(known, settings), name=f"certificate of {host}")
        for host in self.known.keys() - wanted.keys():
            if not self.known[host].secret or now > self.known[host].not_after:  # who comes back finds it
                await self._forget(host)

    async def wait(self, hosts: Iterable[str], within_s: float) -> None:
        """Wait for the orders for *hosts* that are under way, *within_s* seconds at most."""
        if orders := [self._orders[h] for h in hosts if h in self._orders]:
            await asyncio.wait(orders, timeout=within_s)

    def next_due_s(self, now: float) -> float:
        """In how many seconds `ensure` has something to do again, at least a second."""
        known = [self.known[h] for h in self._wanted if h in self.known and h not in self._orders]
        times = [c.retry_at if c.retry_at > now else c.not_after - (c.not_after - c.not_before) / 3 for c in known]
        return max(1.0, min(times, default=now + 3600.0) - now)

    async def root(self) -> bytes:
        """The cluster's own authority, made at the first call. Of two first calls at once both get the same one."""
        async with self._rooting:
            with contextlib.suppress(PystackError):
                return self._contents.read("secret", ROOT)
            from orchestrator import authority  # not at the top: a server without ingress is spared 9 MB

            made = authority.make_root("pystack ingress", datetime.datetime.now(datetime.UTC))
            await self._contents.create("secret", ROOT, made, replace=False)
            return made

    async def _issue(self, one: Certificate) -> None:
        from orchestrator import authority

        now = datetime.datetime.now(datetime.UTC)
        await self._keep(one, authority.issue(await self.root(), one.host, now))

    async def _order(self, one: Certificate, settings: IngressSettings) -> None:
        from orchestrator.ingress import acme

        loop = asyncio.get_running_loop()

        def wait(work: Awaitable[None]) -> None:
            asyncio.run_coroutine_threadsafe(_awaited(work), loop).result(PUBLISH_S)

        publisher = acme.Publisher(lambda one: wait(self._show(one)), lambda one: wait(self._hide(one)))
        try:
            await self._keep(one, await self._obtained(one.host, settings, publisher))
        except (acme.AcmeError, CertificateTextError, PystackError) as error:
            limited = isinstance(error, acme.AcmeError) and error.rate_limited
            pause = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2**one.failures)
            pause = max(pause, RATE_LIMITED_S) if limited else pause
            log.warning("no certificate for %s yet, tried again in %.0f s: %s", one.host, pause, error)
            failed = msgspec.structs.replace(one, problem=str(error), failures=one.failures + 1, retry_at=time.time() + pause)
            await self._write(failed)
        except Exception as error:
            log.exception("certificate of %s", one.host)
            await self._write(msgspec.structs.replace(one, problem=str(error), retry_at=time.time() + LONGEST_RETRY_S))
        finally:
            self._orders.pop(one.host, None)
            self._changed()

    async def _obtained(self, host: str, settings: IngressSettings, publisher: Publisher) -> bytes:
        """The chain and the key for *host*; where the server has lost the account, by a new one. Raises AcmeError."""
        from orchestrator.ingress import acme

        account = await self._account(settings)
        try:
            return await asyncio.to_thread(acme.obtain, settings, account, host, publisher)
        except acme.AcmeError as error:
            if not error.no_account:
                raise
        return await asyncio.to_thread(acme.obtain, settings, await self._account(settings, lost=account), host, publisher)

    async def _account(self, settings: IngressSettings, lost: Account | None = None) -> Account:
        """The account at the server of *settings*, made at the first call, and again where the one that is kept is *lost*."""
        from orchestrator.ingress import acme

        async with self._registering:
            with contextlib.suppress(PystackError):
                known = msgspec.json.decode(self._contents.read("secret", ACCOUNT), type=acme.Account)
                if known.directory == settings.directory and known != lost:
                    return known
            eab = self._contents.read("secret", settings.eab_key).decode().strip() if settings.eab_key else ""
            made = await asyncio.to_thread(acme.register, settings, eab)
            await self._contents.create("secret", ACCOUNT, msgspec.json.encode(made), replace=True)
            return made

    async def _show(self, one: Challenge) -> None:
        self.challenges[one.token] = one
        await self._publish()

    async def _hide(self, one: Challenge) -> None:
        self.challenges.pop(one.token, None)
        await self._publish()

    async def _keep(self, one: Certificate, text: bytes) -> None:
        """Store *text*, a chain and its key, as the certificate *one*."""
        pair = read_pair(text, one.host)
        name = f"ingress.{secret_name(one.host)}"
        await self._contents.create("secret", name, text, replace=True)
        await self._write(
            Certificate(
                host=one.host,
                issuer=one.issuer,
                secret=name,
                not_before=pair.not_before.timestamp(),
                not_after=pair.not_after.timestamp(),
            )
        )

    async def _write(self, one: Certificate) -> None:
        await self._store.transact((), [Put(one.key, msgspec.json.encode(one))])
        self.known[one.host] = one

    async def _forget(self, host: str) -> None:
        one = self.known.pop(host)
        if task := self._orders.pop(host, None):
            task.cancel()
        self._pairs.pop(host, None)
        await self._store.transact((), [Delete(one.key)])
        if one.secret:
            with contextlib.suppress(PystackError):
                await self._contents.remove("secret", one.secret, ())

    async def close(self) -> None:
        """End the orders that are under way: the server that leads next begins them again."""
        orders = list(self._orders.values())
        for task in orders:
            task.cancel()
        await asyncio.gather(*orders, return_exceptions=True)


async def _awaited(work: Awaitable[None]) -> None:
    await work


def secret_name(host: str) -> str:
    """The part of a secret's name that stands for *host*: such a name has at most 64 characters, and no *."""
    import hashlib

    return hashlib.sha256(host.encode()).hexdigest()[:24]
