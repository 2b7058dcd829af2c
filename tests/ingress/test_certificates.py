"""Certificates by a real ACME server on loopback, which is not always there; only the time is not real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.ingress import certificates as module
from orchestrator.ingress.certificates import Certificates
from orchestrator.ingress.model import IngressSettings
from orchestrator.server.contents import Contents
from orchestrator.store.sqlite import SqliteStore
from tests.conftest import eventually
from tests.ports import free_port

HOST, HOUR_S, DAY_S = "shop.example.org", 3600.0, 86400.0
pytestmark = pytest.mark.skipif(not shutil.which("pebble"), reason="needs Debian's pebble: `make setup`")


class Clock:
    """The time that certificates go by."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s


class Authority:
    """Pebble, which finds every challenge answered: it is asked here whether it is there, not what it looks at."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3"]
        names = ["-subj", "/CN=pebble", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(folder / "k.pem"), "-out", str(folder / "c.pem")]
        subprocess.run([*made, *names, *files], check=True, capture_output=True)
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{free_port()}",
            "certificate": str(folder / "c.pem"),
            "privateKey": str(folder / "k.pem"),
            "httpPort": 80,
            "tlsPort": 443,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        self.settings = IngressSettings(
            image="i", issuer="acme", directory=f"https://127.0.0.1:{self.port}/dir", trusted=(folder / "c.pem").read_text()
        )

    @contextlib.contextmanager
    def there(self, **environment: str) -> Iterator[None]:
        """Meanwhile it answers. What it knew before is lost, as accounts are."""
        words = ["pebble", "-config", str(self.folder / "pebble.json")]
        known = {**os.environ, "PEBBLE_VA_ALWAYS_VALID": "1", "PEBBLE_VA_NOSLEEP": "1", **environment}
        with subprocess.Popen(words, env=known, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            try:
                ask = ["curl", "-sSf", "--cacert", str(self.folder / "c.pem"), self.settings.directory]
                eventually(lambda: _answers(ask), 30)
                yield
            finally:
                child.terminate()


def _answers(words: list[str]) -> None:
    assert subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


class Cluster:
    """The store of a cluster, and the servers that lead it one after the other."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder, self.authority, self.settings = folder, authority, authority.settings

    async def lead(self) -> Certificates:
        """The certificates as the server knows them that leads from now on."""

        async def published() -> None:
            return

        self.store = await SqliteStore.open(self.folder / "store.db")
        contents = Contents(self.store, self.folder / "keys", "n1")
        await contents.start()
        made = Certificates(self.store, contents, published, lambda: None)
        await made.load()
        return made

    async def order(self, held: Certificates) -> None:
        """What a look at the cluster does, and wait for what it began."""
        await held.ensure({HOST: "acme"}, self.settings)
        await held.wait([HOST], 60)

    async def leave(self, held: Certificates) -> None:
        """That server ends."""
        await held.close()
        await self.store.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / "keys").mkdir()
    return Cluster(tmp_path, Authority(tmp_path))


async def test_two_that_need_the_authority_for_the_first_time_get_the_same(cluster: Cluster) -> None:
    held = await cluster.lead()
    first, second = await asyncio.gather(held.root(), held.root())
    assert first == second == await held.root()
    await cluster.leave(held)


async def test_a_host_that_is_wanted_twice_at_once_has_one_certificate(cluster: Cluster) -> None:
    held = await cluster.lead()

    async def chain() -> str:
        await held.ensure({HOST: "internal"}, cluster.settings)
        pair = held.pair(HOST)
        return pair.chain if pair else ""

    first, second = await asyncio.gather(chain(), chain())
    assert first == second != ""
    pair = held.pair(HOST)
    assert pair
    assert pair.chain == first
    await cluster.leave(held)


async def test_an_hour_without_the_authority(cluster: Cluster, clock: Clock) -> None:
    held = await cluster.lead()
    tries = 0
    while clock.ahead_s < HOUR_S:
        before = held.known.get(HOST)
        await cluster.order(held)
        tries += held.known[HOST] != before
        clock.ahead_s += 30
    one = held.known[HOST]
    assert (one.secret, tries) == ("", one.failures)
    assert 5 <= tries <= 12, "each pause is twice as long as the one before"
    assert cluster.settings.directory in one.problem
    with cluster.authority.there():
        clock.ahead_s = one.retry_at - time.time() + 1
        await cluster.order(held)
        assert held.known[HOST].problem == ""
        assert held.pair(HOST)
    await cluster.leave(held)


async def test_a_renewal_that_fails_leaves_the_one_that_is_there(cluster: Cluster, clock: Clock) -> None:
    held = await cluster.lead()
    with cluster.authority.there():
        await cluster.order(held)
    first, one = held.pair(HOST), held.known[HOST]
    assert first
    clock.ahead_s = DAY_S
    await cluster.order(held)
    assert held.known[HOST] == one, "a clock that is a day ahead renews nothing that has years"
    clock.ahead_s = (one.not_after - one.not_before) * 0.7
    await cluster.order(held)
    assert held.known[HOST].failures == 1
    assert held.pair(HOST) == first
    clock.ahead_s += DAY_S
    with cluster.authority.there():  # it knows no account any more
        await cluster.order(held)
        second = held.pair(HOST)
        assert second
        assert (second.chain != first.chain, held.known[HOST].problem) == (True, "")
    await cluster.leave(held)


async def test_a_leader_that_is_lost_amid_an_order(cluster: Cluster, clock: Clock) -> None:
    with cluster.authority.there(PEBBLE_WFE_NONCEREJECT="50"):
        held = await cluster.lead()
        for pause_s in (0.0, 0.05, 0.3):
            await held.ensure({HOST: "acme"}, cluster.settings)
            await asyncio.sleep(pause_s)
            await cluster.leave(held)
            held = await cluster.lead()
        for _ in range(5):
            await cluster.order(held)
            clock.ahead_s += HOUR_S
        pair = held.pair(HOST)
        assert pair
        await cluster.leave(held)
        after = await cluster.lead()
        assert after.pair(HOST) == pair, "from the store"
        await cluster.leave(after)
