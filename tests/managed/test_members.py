"""The members of etcd that pystack manages: one real member on this host, and what is looked after."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import PystackError
from orchestrator.managed import joining, process, recovering
from orchestrator.managed import settings as managed_settings
from orchestrator.managed.cluster import ManagedMembers
from orchestrator.managed.gateway import Gateway
from orchestrator.managed.settings import MemberFolder, address_of
from orchestrator.managed.supervisor import MemberSupervisor
from orchestrator.server.plane import ControlPlane
from orchestrator.store.interface import Put
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.transfer import open_store
from tests.ports import free_port

HERE = "127.0.0.1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemberFolder]:
    """Ports of this test's own, and an address that no other host needs to reach."""
    if not shutil.which("etcd"):
        pytest.skip("etcd is not installed (etcd-server)")
    monkeypatch.setattr(managed_settings, "CLIENT_PORT", free_port())
    monkeypatch.setattr(managed_settings, "PEER_PORT", free_port())
    monkeypatch.setattr(joining, "address_of", lambda advertise: HERE)
    made = MemberFolder(tmp_path)
    yield made
    process.stop(made)


async def kept(folder: MemberFolder) -> dict[str, bytes]:
    settings = folder.settings()
    assert settings
    store = await open_store(settings.store, ca=str(folder.ca), cert=str(folder.cert), key=str(folder.key))
    try:
        return {e.key: e.value for e in await store.scan("")}
    finally:
        await store.close()


async def fill(file: Path) -> SqliteStore:
    store = await SqliteStore.open(file)
    await store.transact((), [Put("stacks/a", b"1"), Put("nodes/n1", b"2")])
    return store


async def test_what_a_server_kept_in_a_file_goes_to_its_own_etcd(folder: MemberFolder, tmp_path: Path) -> None:
    store = await fill(tmp_path / "store.db")
    with pytest.raises(PystackError, match="in use by another server: stop this host's server first"):
        await asyncio.to_thread(joining.begin, folder, "root@here")
    assert folder.settings() is None
    await store.close()
    assert await asyncio.to_thread(joining.begin, folder, "root@here") == 2
    assert await kept(folder) == {"stacks/a": b"1", "nodes/n1": b"2"}
    assert not (tmp_path / "store.db").exists()
    with pytest.raises(PystackError, match="has a member of etcd already"):
        await asyncio.to_thread(joining.begin, folder, "root@here")


async def test_a_host_with_stacks_of_its_own_does_not_join(folder: MemberFolder, tmp_path: Path) -> None:
    await (await fill(tmp_path / "store.db")).close()
    with pytest.raises(PystackError, match="a cluster of its own: 1 stacks and secrets, 1 nodes"):
        await asyncio.to_thread(joining.prepare, folder, "root@here", replace=False)


def test_a_beginning_that_was_cut_off_is_begun_again(folder: MemberFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(process, "wait", killed)
        patched.setattr(joining, "_wipe", lambda _: None)  # as if it were killed: nobody cleans up
        with pytest.raises(KeyboardInterrupt):
            joining.begin(folder, "root@here")
    left = process.running(folder)
    assert left
    assert joining.begin(folder, "root@here") == 0
    assert process.running(folder) not in (0, left)


async def test_a_member_that_is_killed_is_started_again(folder: MemberFolder) -> None:
    await asyncio.to_thread(joining.begin, folder, "root@here")
    settings = folder.settings()
    assert settings
    supervisor = MemberSupervisor(folder, settings)
    supervisor.start()
    try:
        first = process.running(folder)
        os.kill(first, signal.SIGKILL)
        for _ in range(200):
            if process.running(folder) not in (0, first):
                break
            await asyncio.sleep(0.1)
        assert process.running(folder) not in (0, first)
        await asyncio.to_thread(process.wait, folder, settings)
    finally:
        await supervisor.close()


async def test_a_full_etcd_is_given_room_and_a_backup_is_written(folder: MemberFolder, tmp_path: Path) -> None:
    await asyncio.to_thread(joining.begin, folder, "root@here")
    settings = folder.settings()
    assert settings
    store = await open_store(settings.store, ca=str(folder.ca), cert=str(folder.cert), key=str(folder.key))
    plane = ControlPlane(store, "n1", tmp_path / "docker.sock", tmp_path / "run", tmp_path / "keys")
    members = ManagedMembers(MemberSupervisor(folder, settings), plane)
    gateway = Gateway(folder, HERE)
    try:
        for number in range(300):
            await store.transact((), [Put("a", str(number).encode() * 1000)])
        before = gateway.status().size
        own = gateway.members()[0].id
        gateway.call("maintenance/alarm", {"action": "ACTIVATE", "memberID": own, "alarm": "NOSPACE"})
        with pytest.raises(PystackError, match="space alarm"):
            await store.transact((), [Put("a", b"full")])
        await members.look()
        assert gateway.alarms() == []
        assert gateway.status().size < before
        await members.snapshot()
        (backup,) = folder.snapshots.iterdir()
        assert '"key":"a"' in backup.read_text()
        await members.snapshot()
        assert list(folder.snapshots.iterdir()) == [backup]  # the last one is young
        row = (await members.rows())[0]
        assert (row.name, row.state, row.leads) == (joining.server_name(), "ready", True)
        with pytest.raises(PystackError, match="leads: stop it first"):
            await members.remove(joining.server_name())
    finally:
        await store.close()


def test_what_is_not_lost_is_not_recovered(folder: MemberFolder, tmp_path: Path) -> None:
    with pytest.raises(PystackError, match="no member of an etcd that pystack manages"):
        recovering.assess(folder, tmp_path / "none.sock")
    joining.begin(folder, "root@here")
    with pytest.raises(PystackError, match="etcd has a quorum"):
        recovering.assess(folder, tmp_path / "none.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with pytest.raises(PystackError, match="this host's server runs"):
            recovering.assess(folder, tmp_path / "s")


@pytest.mark.parametrize("advertise", ["root@127.0.0.1", "root@localhost", "root@no.such.host.invalid"])
def test_an_address_that_others_cannot_reach_is_refused(advertise: str) -> None:
    with pytest.raises(PystackError, match=f"--advertise {advertise}: "):
        address_of(advertise)
