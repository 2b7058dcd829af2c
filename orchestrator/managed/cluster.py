"""The members of the cluster, as the server that leads changes and looks after them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Sequence
from typing import Any

from agent.contract.atomic import write_atomically
from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError, RefusedError
from orchestrator.managed.gateway import Gateway, GatewayError, Member, MemberStatus
from orchestrator.managed.settings import MemberFolder, peer_url
from orchestrator.managed.supervisor import MemberSupervisor
from orchestrator.server.doctor import Check
from orchestrator.server.plane import ControlPlane
from orchestrator.store.interface import Delete
from orchestrator.store.transfer import dump

LOOK_S = 10.0
SNAPSHOT_S, SNAPSHOTS = 3600.0, 24
"""How often a backup of the store is written beside it, and how many are kept."""
WASTE, WASTE_BYTES = 2, 64 << 20
"""A member's file that is so many times as large as what is in it, and larger than so many bytes, is written again."""
PAIR = 2
HEALTHY_S = 20.0
"""How long etcd may refuse to change its members because of a member that has answered for less than 5 s."""
log = logging.getLogger(__name__)


class JoinRequest(WireStruct, frozen=True, kw_only=True):
    """The server *name*, whose member will be at the IP address *address*."""

    name: str
    address: str


class Admission(WireStruct, frozen=True, kw_only=True):
    """What a host that joins needs: PEM texts, and the *members* by name, itself among them. *id* is its member's."""

    id: str
    ca: str
    authority: str
    cert: str
    key: str
    members: dict[str, str]


class ServerRow(WireStruct, frozen=True, kw_only=True):
    """A row of `pystack server ls`. *state* is ready, joining, or down; *size* and *used* are bytes of the member's file."""

    name: str
    address: str
    state: str
    leads: bool = False
    version: str = ""
    size: int = 0
    used: int = 0
    alarm: str = ""


class ManagedMembers:
    """The members, by way of this host's; *plane* leads."""

    def __init__(self, supervisor: MemberSupervisor, plane: ControlPlane) -> None:
        self._supervisor, self._plane = supervisor, plane
        self._folder: MemberFolder = supervisor.folder
        self._changing = asyncio.Lock()
        self._found: Sequence[Check] = ()
        self._task: asyncio.Task[None] | None = None

    @property
    def _gateway(self) -> Gateway:
        return Gateway(self._folder, self._supervisor.settings.address)

    # --- who is a member ----------------------------------------------------------------------------------------

    async def admit(self, request: JoinRequest) -> Admission:
        """Make the server *request* names a member that does not vote yet. One of the same name that is gone makes room for it.
        Raises RefusedError, GatewayError."""
        from orchestrator.managed.certificates import issue  # a server alone needs none

        async with self._changing:
            members = await asyncio.to_thread(self._gateway.members)
            for old in members:
                if request.address == old.address or (old.name and request.name == old.name):
                    await self._make_room(old, request)
            added = await self._add(request.address)
            authority = self._folder.authority.read_text()
            cert, key = issue(authority, request.name, request.address)
            known = {m.name: m.address for m in await asyncio.to_thread(self._gateway.members) if m.name}
            return Admission(
                id=str(added["member"]["ID"]),
                ca=self._folder.ca.read_text(),
                authority=authority,
                cert=cert,
                key=key,
                members={**known, request.name: request.address},
            )

    async def _add(self, address: str) -> dict[str, Any]:
        """Add a learner. etcd refuses that for some seconds after another member began to vote. Raises GatewayError."""
        until = time.monotonic() + HEALTHY_S
        body = {"peerURLs": [peer_url(address)], "isLearner": True}
        while True:
            try:
                return await asyncio.to_thread(self._gateway.call, "cluster/member/add", body)
            except GatewayError as error:
                if "unhealthy" not in str(error) or time.monotonic() > until:
                    raise
            await asyncio.sleep(1.0)

    async def _make_room(self, old: Member, request: JoinRequest) -> None:
        if old.address == self._supervisor.settings.address:
            raise RefusedError(f"{old.name} at {old.address} is the server that leads: a host that joins has its own name", 409)
        if not old.learner and old.name and await self._answers(old):
            raise RefusedError(
                f"{old.name} at {old.address} is a member that answers: `pystack server rm {old.name}` lets it go", 409
            )
        await asyncio.to_thread(self._gateway.call, "cluster/member/remove", {"ID": old.id})

    async def promote(self, ident: str) -> None:
        """Let the member *ident* vote. Raises GatewayError while it is not in step yet."""
        await asyncio.to_thread(self._gateway.call, "cluster/member/promote", {"ID": ident})

    async def remove(self, name: str) -> None:
        """Let the server *name* go: its member is one no more, and secrets are sealed to it no more. Raises RefusedError,
        GatewayError."""
        async with self._changing:
            members = await asyncio.to_thread(self._gateway.members)
            found = next((m for m in members if m.name == name), None)
            if found is None:
                raise RefusedError(f"there is no server {name}; there is: {', '.join(sorted(m.name for m in members))}", 404)
            if found.address == self._supervisor.settings.address:
                raise RefusedError(f"server {name} leads: stop it first (`systemctl stop pystack` there), then ask again", 409)
            await asyncio.to_thread(self._gateway.call, "cluster/member/remove", {"ID": found.id})
            await self._plane.store.transact((), [Delete(f"servers/{name}"), Delete(f"seals/{name}")])

    async def _answers(self, member: Member) -> bool:
        try:
            await asyncio.to_thread(Gateway(self._folder, member.address).status)
        except GatewayError:
            return False
        return True

    async def rows(self) -> list[ServerRow]:
        """All servers. Raises GatewayError if this host's member does not answer."""
        members = await asyncio.to_thread(self._gateway.members)
        alarms = dict(await asyncio.to_thread(self._gateway.alarms))
        states = await asyncio.gather(*map(self._status, members))
        return [
            ServerRow(
                name=m.name or "?",
                address=m.address,
                state="joining" if m.learner else "ready" if status else "down",
                leads=m.address == self._supervisor.settings.address,
                version=status.version if status else "",
                size=status.size if status else 0,
                used=status.used if status else 0,
                alarm=alarms.get(m.id, ""),
            )
            for m, status in sorted(zip(members, states, strict=True), key=lambda pair: pair[0].name)
        ]

    async def _status(self, member: Member) -> MemberStatus | None:
        with contextlib.suppress(GatewayError):
            return await asyncio.to_thread(Gateway(self._folder, member.address).status)
        return None

    # --- what is looked after -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look after the members."""
        self._task = asyncio.create_task(self._keep(), name="keep etcd")

    async def _keep(self) -> None:
        while True:
            try:
                await self.look()
                self._found = await self._check()
                await self.snapshot()
            except (PystackError, OSError) as error:
                log.warning("the members of etcd are not looked after: %s", error)
                self._found = await self._check()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Make room where a member is full, and write again a file that is mostly empty. Raises GatewayError, StoreError."""
        alarms = await asyncio.to_thread(self._gateway.alarms)
        full = [member for member, alarm in alarms if alarm == "NOSPACE"]
        members = await asyncio.to_thread(self._gateway.members)
        if full:
            log.warning("etcd is full (NOSPACE): its history is deleted, and each member's file is written again")
            await self._plane.store.compact(await self._plane.store.revision())
            for member in members:
                await self._defragment(member)
            for ident in full:
                await asyncio.to_thread(self._gateway.disarm, ident, "NOSPACE")
            return
        for member in members:
            status = await self._status(member)
            if status and status.size > max(WASTE_BYTES, WASTE * status.used):
                await self._defragment(member)
                return  # one at a time: it answers nobody meanwhile

    async def _defragment(self, member: Member) -> None:
        try:
            await asyncio.to_thread(Gateway(self._folder, member.address).defragment)
        except GatewayError as error:
            log.warning("%s", error)

    async def snapshot(self) -> None:
        """Write a backup, if the last one is old enough. Raises StoreError, OSError."""
        folder = self._folder.snapshots
        folder.mkdir(mode=0o700, exist_ok=True)
        there = sorted(folder.glob("*.json"))
        if there and time.time() - there[-1].stat().st_mtime < SNAPSHOT_S:
            return
        name = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ.json")
        lines = b"".join(await dump(self._plane.store))
        await asyncio.to_thread(write_atomically, folder / name, lines, 0o600, sync=True)
        for old in there[: -SNAPSHOTS + 1]:
            old.unlink(missing_ok=True)

    def checks(self) -> Sequence[Check]:
        """The part of `pystack doctor`, as of the last look."""
        return self._found

    async def _check(self) -> Sequence[Check]:
        try:
            rows = await self.rows()
        except GatewayError as error:
            return [Check(check="etcd", target="this server", ok=False, detail=str(error), fix=f"see {self._folder.log}")]
        out = []
        for row in rows:
            problem = f"alarm {row.alarm}" if row.alarm else "" if row.state == "ready" else f"it is {row.state}"
            fix = f"start its server; if the host is gone: `pystack server rm {row.name}`, then join another" if problem else ""
            if row.alarm:
                fix = "it is mended by itself where room is made: see the log of the server that leads"
            out.append(Check(check="etcd", target=row.name, ok=not problem, detail=problem or "it answers", fix=fix))
        if len(rows) == PAIR:
            out.append(
                Check(
                    check="etcd",
                    target="members",
                    ok=False,
                    detail="of two members none may be lost: with either gone nothing can be changed",
                    fix="join a third server",
                )
            )
        return out

    async def close(self) -> None:
        """Stop looking after them."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
