"""What happens to the Store on etcd when members die, fall silent or are overtaken. All members are real."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import uuid
from pathlib import Path

import msgspec
import pytest

from orchestrator.store.etcd.address import Address
from orchestrator.store.etcd.leadership import LEASE_S
from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.interface import CompactedError, Delete, FencedError, KeyChange, Put, StoreError
from tests.store.members import Members

WRITES = int(os.environ.get("PYSTACK_WRITES", "400"))  # 10,000 by night


async def write(store: EtcdStore, count: int, pause_s: float = 0.0) -> list[int]:
    """Numbers that were acknowledged."""
    out = []
    for number in range(count):
        await store.transact([], [Put(f"n/{number:06d}", str(number).encode())])
        out.append(number)
        await asyncio.sleep(pause_s)
    return out


async def follow(store: EtcdStore, after: int, until: str, seen: list[KeyChange]) -> None:
    async for changes in store.watch("n/", after=after):
        seen += changes
        if changes[-1].key == until:
            return


@pytest.mark.parametrize("what", ["kill a follower", "kill the leader", "stop the leader"])
async def test_no_write_is_lost_and_no_event_missed(etcd: EtcdStore, members: Members, what: str) -> None:
    after = await etcd.revision()
    last = f"n/{WRITES - 1:06d}"
    seen: list[list[KeyChange]] = [[] for _ in range(10)]
    watchers = [asyncio.create_task(follow(etcd, after, last, one)) for one in seen]
    writer = asyncio.create_task(write(etcd, WRITES, 0.002))
    await asyncio.sleep(0.3)
    leader = await asyncio.to_thread(members.leader)
    victim = leader if "leader" in what else (leader + 1) % 3
    how = signal.SIGSTOP if what.startswith("stop") else signal.SIGKILL
    members.signal(victim, how)
    try:
        acknowledged = await asyncio.wait_for(writer, 60 + WRITES / 50)
        await asyncio.wait_for(asyncio.gather(*watchers), 30)
    finally:
        if how == signal.SIGSTOP:
            members.signal(victim, signal.SIGCONT)
        else:
            members.start(victim)
        await asyncio.to_thread(members.wait)
    there = [e.key for e in await etcd.scan("n/")]
    assert there == [f"n/{n:06d}" for n in acknowledged]
    for one in seen:
        assert [c.key for c in one] == there  # each once, in order
    if etcd.lost.is_set():
        # on a machine so busy that an election takes longer than a lease, it may lead no more: then it says so
        with pytest.raises(FencedError):
            await etcd.transact((), [Put("n/after", b"")])


async def test_no_quorum_is_said_and_ends(members: Members, etcd: EtcdStore) -> None:
    await etcd.transact([], [Put("a", b"1")])
    leader = await asyncio.to_thread(members.leader)
    others = [n for n in range(3) if n != leader]
    for number in others:
        members.signal(number, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="does not answer"):
            await asyncio.wait_for(etcd.transact([], [Put("a", b"2")]), 12)
        await asyncio.wait_for(etcd.lost.wait(), 15)  # nobody may believe that it leads still
        with pytest.raises(FencedError):
            await etcd.transact([], [Put("a", b"3")])
    finally:
        for number in others:
            members.signal(number, signal.SIGCONT)
        await asyncio.to_thread(members.wait)


async def test_one_leads_and_the_other_takes_over(members: Members) -> None:
    prefix = uuid.uuid4().hex[:8]
    first = await EtcdStore.open(members.address(prefix))
    second = await EtcdStore.open(members.address(prefix))
    await first.lead("one")
    waiting = asyncio.create_task(second.lead("two"))
    await first.transact([], [Put("a", b"1")])
    await asyncio.sleep(0.3)
    assert not waiting.done()
    first.leadership.stop_renewing()  # as if it hung: the lease runs out
    await asyncio.wait_for(waiting, 20)
    await second.transact([], [Put("a", b"2")])
    with pytest.raises(FencedError):  # it does not know yet, and yet writes nothing
        await first.transact([], [Put("a", b"3")])
    entry = await second.get("a")
    assert entry
    assert entry.value == b"2"
    await first.close()
    await second.close()


async def test_a_leader_that_is_silent_and_renews_nothing_is_succeeded_before_its_lease_ends(members: Members) -> None:
    prefix, silent_s = uuid.uuid4().hex[:8], math.inf  # the way to it is broken, and it leads on
    first = await EtcdStore.open(members.address(prefix))
    second = await EtcdStore.open(members.address(prefix))
    await first.lead("one")
    asked: set[str] = set()

    def silence(name: str) -> float:
        asked.add(name)
        return silent_s

    waiting = asyncio.create_task(second.lead("two", silence=silence))
    await asyncio.sleep(LEASE_S + 1)
    assert asked == {"one"}
    assert not waiting.done()
    assert not first.lost.is_set()
    first.leadership.stop_renewing()
    await asyncio.wait_for(waiting, 20)
    assert not first.lost.is_set()  # it would rely on that lease still: it was not waited for
    with pytest.raises(FencedError):
        await first.transact([], [Put("a", b"3")])
    await first.close()
    await second.close()


async def test_a_watch_over_a_compaction_is_told(etcd: EtcdStore) -> None:
    first = (await etcd.transact([], [Put("n/a", b"1")])).revision
    last = (await etcd.transact([], [Put("n/a", b"2")])).revision
    await etcd.compact(last)
    with pytest.raises(CompactedError) as told:
        async for _ in etcd.watch("n/", after=first - 1):
            pass
    assert told.value.oldest == last


async def test_keys_of_others_are_not_seen(etcd: EtcdStore, members: Members) -> None:
    other = await EtcdStore.open(members.address(f"{etcd.address.prefix}x"))
    await other.lead("other")
    await other.transact([], [Put("a", b"1")])
    await etcd.transact([], [Put("b", b"1"), Delete("c")])
    assert [e.key for e in await etcd.scan("")] == ["b"]
    await other.close()


@pytest.mark.parametrize("url", ["etcd://", "http://127.0.0.1:2379", "etcd:///prefix", "etcd://a:1?x=1"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(StoreError, match="is not the address of a store"):
        Address.parse(url)


async def test_wrong_certificates_and_nobody_there_are_said(members: Members, tmp_path: Path) -> None:
    good = members.address("x")
    await asyncio.to_thread(another_ca, tmp_path)
    with pytest.raises(StoreError, match="--ca"):
        await EtcdStore.open(msgspec.structs.replace(good, ca=str(tmp_path / "ca.pem")))
    with pytest.raises(StoreError, match="No such file"):
        await EtcdStore.open(msgspec.structs.replace(good, ca="/nowhere/ca.pem"))
    with pytest.raises(StoreError, match="does not answer"):
        await EtcdStore.open(msgspec.structs.replace(good, members=("127.0.0.1:1",)))


def another_ca(directory: Path) -> None:
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=another",
            "-keyout",
            "k",
            "-out",
            "ca.pem",
        ],
        cwd=directory,
        check=True,
        capture_output=True,
    )
