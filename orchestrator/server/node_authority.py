"""The authority that certifies nodes which joined by themselves, and the servers that they dial.

    uplinks/<server>        where nodes dial a server; each writes its own
    uplink-seals/<server>   the authority, certificate and key, sealed to that server's host

So no copy of the store can certify anybody, and whichever server leads can. It is another authority than the one for clients of
the server: a node's certificate opens the port for nodes, and nothing else.
"""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import msgspec

from agent.contract.sealing import UnsealableError, make_key, seal, unseal
from agent.contract.wire import WireStruct
from orchestrator.errors import RefusedError
from orchestrator.server import store_keys
from orchestrator.server.contents import Seal
from orchestrator.store.interface import Op, Put, Store

PURPOSE = "pystack node authority"


class UplinkServer(WireStruct, frozen=True, kw_only=True):
    """*address* is where nodes dial a server, HOST:PORT; "" if that is not known."""

    address: str = ""


async def known_servers(store: Store) -> tuple[str, ...]:
    """The addresses of all servers that nodes can dial. Raises StoreError."""
    found = [msgspec.json.decode(e.value, type=UplinkServer).address for e in await store.scan(store_keys.UPLINKS)]
    return tuple(sorted({one for one in found if one}))


async def sealed_authority(store: Store, folder: Path, server: str) -> bytes | None:
    """The authority as it was sealed to *server*, whose keys are in *folder*; None if it was not, or cannot be opened. Raises
    StoreError."""
    entry = await store.get(store_keys.of_uplink_seal(server))
    if entry is None:
        return None
    try:
        return unseal(folder, msgspec.json.decode(entry.value, type=Seal).box, PURPOSE)
    except UnsealableError:
        return None


class NodeAuthority:
    """*folder* has this host's private key; *server* is its name among the servers that may lead."""

    def __init__(self, store: Store, folder: Path, server: str) -> None:
        self.root = b""
        """Certificate and key in PEM, b"" while there is none."""
        self._store, self._folder, self._server = store, folder, server
        self._seals: dict[str, Seal] = {}
        self._making = asyncio.Lock()

    async def load(self) -> None:
        """Read the store. Raises StoreError."""
        for entry in await self._store.scan(store_keys.UPLINK_SEALS):
            server = entry.key.removeprefix(store_keys.UPLINK_SEALS)
            self._seals[server] = msgspec.json.decode(entry.value, type=Seal)
        self.root = await sealed_authority(self._store, self._folder, self._server) or b""

    async def ensure(self) -> bytes:
        """The authority, made at the first call. Raises RefusedError (409), StoreError."""
        async with self._making:
            if not self.root and self._seals:
                raise RefusedError(
                    f"server {self._server} cannot open the authority for nodes: start a server that can "
                    f"({', '.join(sorted(self._seals))}) once, or put this one's {self._folder} back",
                    409,
                )
            if not self.root:
                from orchestrator import authority

                made = authority.make_root("pystack nodes", datetime.datetime.now(datetime.UTC))
                await self._share(made)  # it certifies nobody before the store has it
                self.root = made
            return self.root

    async def share(self) -> None:
        """Seal the authority to each server that does not have it yet. Raises StoreError."""
        await self._share(self.root)

    async def _share(self, root: bytes) -> None:
        keys = {e.key.removeprefix("servers/"): e.value.decode() for e in await self._store.scan("servers/")}
        keys[self._server] = await asyncio.to_thread(make_key, self._folder, "seal")
        fresh = {
            name: Seal(public=key, box=seal(key, root, PURPOSE))
            for name, key in sorted(keys.items())
            if name not in self._seals or self._seals[name].public != key
        }
        operations: list[Op] = [Put(store_keys.of_uplink_seal(n), msgspec.json.encode(one)) for n, one in fresh.items()]
        if operations:
            await self._store.transact((), operations)
            self._seals |= fresh
