"""How this host comes to have a member of etcd: the first one, or a further one."""

from __future__ import annotations

import asyncio
import platform
import shutil
from pathlib import Path

import msgspec

from orchestrator.errors import PystackError
from orchestrator.managed import process
from orchestrator.managed.certificates import issue, make_authority
from orchestrator.managed.cluster import Admission, JoinRequest
from orchestrator.managed.settings import MemberFolder, MemberSettings, address_of
from orchestrator.store.interface import Entry, StoreError
from orchestrator.store.sqlite import SqliteStore

KEPT = ".before-etcd"
"""The end of the name that a store in a file has once it is not the server's any more."""


def server_name() -> str:
    """The name of this host's server, and of its node."""
    return platform.node().split(".")[0] or "local"


def begin(folder: MemberFolder, advertise: str) -> int:
    """Make the first member, and fill it with what the server's store in a file has. Returns how many entries that were. Raises
    PystackError; the store in the file is then still the server's."""
    if folder.settings():
        raise PystackError("this host has a member of etcd already: `pystack server ls` shows the others")
    name, address = server_name(), address_of(advertise)
    entries = asyncio.run(_entries(folder.path.parent / "store.db"))
    _wipe(folder)
    certificate, authority = make_authority("pystack etcd")
    folder.write_certificates(certificate, authority, *issue(authority, name, address))
    settings = MemberSettings(name=name, address=address, advertise=advertise, members={name: address})
    try:
        process.start(folder, settings)
        process.wait(folder, settings)
        asyncio.run(_fill(folder, settings, entries))
    except BaseException:
        _wipe(folder)
        raise
    folder.write(settings)
    _set_aside(folder)
    return len(entries)


def prepare(folder: MemberFolder, advertise: str, *, replace: bool) -> JoinRequest:
    """What to ask for. Raises PystackError where this host has something that would be lost."""
    if folder.settings() and not replace:
        raise PystackError(
            "this host has a member of etcd already: `pystack server ls`; one that was removed, or whose cluster was made new, "
            "joins again with --replace"
        )
    entries = asyncio.run(_entries(folder.path.parent / "store.db"))
    own = [e.key for e in entries if e.key.startswith(("stacks/", "contents/"))]
    nodes = sum(e.key.startswith("nodes/") for e in entries)
    if own or nodes > 1:
        raise PystackError(
            f"this host's server has a cluster of its own: {len(own)} stacks and secrets, {nodes} nodes: take them down, or "
            "keep them with `pystack cluster backup`, and move its store.db away"
        )
    return JoinRequest(name=server_name(), address=address_of(advertise))


def decode(raw: bytes) -> Admission:
    """The answer of the server that leads."""
    return msgspec.json.decode(raw, type=Admission)


def start(folder: MemberFolder, advertise: str, request: JoinRequest, admission: Admission) -> None:
    """Start the member that was admitted. Raises PystackError."""
    _wipe(folder)
    folder.write_certificates(admission.ca, admission.authority, admission.cert, admission.key)
    settings = MemberSettings(
        name=request.name, address=request.address, advertise=advertise, members=admission.members, joining=True
    )
    process.start(folder, settings)
    process.wait(folder, settings, quorum=False)
    folder.write(settings)


def finish(folder: MemberFolder) -> None:
    """The member votes: the store in a file is this server's no more."""
    _set_aside(folder)


def give_up(folder: MemberFolder) -> None:
    """Leave nothing of a member that could not join."""
    _wipe(folder)


def _wipe(folder: MemberFolder) -> None:
    process.stop(folder)
    shutil.rmtree(folder.path, ignore_errors=True)


def _set_aside(folder: MemberFolder) -> None:
    for file in folder.path.parent.glob("store.db*"):
        if not file.name.endswith(KEPT):
            file.rename(f"{file}{KEPT}")


async def _entries(file: Path) -> list[Entry]:
    """Raises PystackError while a server runs on *file*."""
    if not await asyncio.to_thread(file.exists):
        return []
    try:
        store = await SqliteStore.open(file)
    except StoreError as error:
        raise PystackError(f"{error}: stop this host's server first") from None
    try:
        return list(await store.scan(""))
    finally:
        await store.close()


async def _fill(folder: MemberFolder, settings: MemberSettings, entries: list[Entry]) -> None:
    from orchestrator.store.transfer import as_puts, fill, open_store

    store = await open_store(settings.store, ca=str(folder.ca), cert=str(folder.cert), key=str(folder.key))
    try:
        if entries:
            await fill(store, as_puts(entries))
    finally:
        await store.close()
