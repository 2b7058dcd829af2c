"""Configs and secrets, addressed by content: a new content is a changed task, so exactly its users are updated.

    contents/<digest>        a content; that of a secret is encrypted with the cluster's key
    named/<kind>/<name>      a config or secret that was created by hand, for stacks that call it external
    servers/<name>           the public key of a host that may lead
    seals/<name>             the cluster's key, sealed to that host

So neither the store, nor a copy of it, nor a node's disk has a secret in the clear, and any server can take over. The digest
of a secret is keyed (HMAC-SHA-256): the secret cannot be guessed from it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent.contract.container import File
from agent.contract.manifest import FileContent
from agent.contract.sealing import UnsealableError, make_key, seal, unseal
from agent.contract.times import timestamp
from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError, RefusedError
from orchestrator.stackfile.model import Stack, StackContent
from orchestrator.store.interface import Delete, Op, Put, Store

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
LARGEST = 700 << 10
"""Bytes of one config or secret: a value of the store has at most 1 MiB, and Base64 makes four bytes of three."""
PURPOSE = "pystack cluster key"
NONCE = 12


class StoredContent(WireStruct, frozen=True, kw_only=True):
    """The content of a digest. If it is *secret*, *data* is encrypted with the cluster's key: a nonce of 12 bytes, then
    ChaCha20-Poly1305 (RFC 8439) with the digest as associated data."""

    data: bytes
    secret: bool = False


class Seal(WireStruct, frozen=True, kw_only=True):
    """The cluster's key, sealed to the public key *public* of a server (HPKE, RFC 9180)."""

    public: str
    box: bytes


class ExternalContent(WireStruct, frozen=True, kw_only=True):
    """A config or secret that was created by hand."""

    kind: str
    name: str
    digest: str
    created: str
    updated: str


class Contents:
    """*folder* has this host's private key; *server* is its name among the servers that may lead."""

    def __init__(self, store: Store, folder: Path, server: str) -> None:
        self.named: dict[tuple[str, str], ExternalContent] = {}
        self._store = store
        self._folder = folder
        self._server = server
        self._kept: dict[str, StoredContent] = {}
        self._sealed: dict[tuple[str, str], FileContent] = {}
        self._key = b""
        self._locked = ""
        self._seals: dict[str, Seal] = {}
        self._naming = asyncio.Lock()

    async def start(self) -> None:
        """Read the store, open the cluster's key, and seal it to the servers that do not have it yet."""
        for entry in await self._store.scan("contents/"):
            self._kept[entry.key.removeprefix("contents/")] = msgspec.json.decode(entry.value, type=StoredContent)
        for entry in await self._store.scan("named/"):
            one = msgspec.json.decode(entry.value, type=ExternalContent)
            self.named[one.kind, one.name] = one
        for entry in await self._store.scan("seals/"):
            self._seals[entry.key.removeprefix("seals/")] = msgspec.json.decode(entry.value, type=Seal)
        if not self._seals:
            self._key = os.urandom(32)  # written with the first secret
            return
        try:
            if self._server not in self._seals:
                raise UnsealableError("the cluster's key was not sealed to it")
            self._key = unseal(self._folder, self._seals[self._server].box, PURPOSE)
        except UnsealableError as error:
            self._locked = (
                f"server {self._server} cannot open the cluster's secrets: {error}. Start a server that can "
                f"({', '.join(sorted(self._seals))}) once, or put this one's {self._folder} back"
            )
            return
        if operations := await self._seal_for_other_servers():
            await self._store.transact((), operations)

    async def _seal_for_other_servers(self) -> list[Op]:
        """The operations that seal the cluster's key to each server that does not have it yet."""
        keys = {e.key.removeprefix("servers/"): e.value.decode() for e in await self._store.scan("servers/")}
        keys[self._server] = await asyncio.to_thread(make_key, self._folder, "seal")
        there = {name: one.public for name, one in self._seals.items()}
        fresh = {n: Seal(public=k, box=seal(k, self._key, PURPOSE)) for n, k in sorted(keys.items()) if there.get(n) != k}
        self._seals |= fresh
        return [Put(f"seals/{name}", msgspec.json.encode(one)) for name, one in fresh.items()]

    @property
    def cluster_key(self) -> bytes:
        """The key that secrets are encrypted with, for a backup; b"" where there are no secrets. Raises RefusedError."""
        self._unlocked()
        return self._key if self._seals else b""

    async def replace_key(self, key: bytes) -> list[Op]:
        """The operations that make *key* the cluster's, sealed to the servers that there are. There must be no secrets yet."""
        self._key, self._locked, self._seals = key, "", {}
        return await self._seal_for_other_servers()

    # --- of stacks -------------------------------------------------------------------------------------

    def with_digests(self, stack: Stack) -> Stack:
        """*stack* with digests in place of contents. Raises PystackError that names each one that is missing."""
        missing, out = [], []
        for one in stack.contents:
            if one.external and not one.digest:
                found = self.named.get((one.kind, one.name))
                if found is None:
                    command = "secret" if one.kind == "secret" else "configs"
                    missing.append(
                        f"{one.where}: {one.kind}s.{one.key}: external {one.kind} {one.name} does not exist: "
                        f"`pystack {command} create {one.name} FILE`"
                    )
                    continue
                one = msgspec.structs.replace(one, digest=found.digest)
            elif one.problem:
                missing.append(one.problem)
            elif one.content is not None:
                one = msgspec.structs.replace(one, content=None, digest=self._digest(one.kind, one.content, one.where))
            out.append(one)
        if missing:
            raise PystackError("\n".join(missing))
        services = tuple(
            msgspec.structs.replace(
                s, container=msgspec.structs.replace(s.container, files=files_with_digests(s.container.files, out))
            )
            if s.container.files
            else s
            for s in stack.services
        )
        return msgspec.structs.replace(stack, contents=tuple(out), services=services)

    def _digest(self, kind: str, content: bytes, where: str) -> str:
        if len(content) > LARGEST:
            raise PystackError(
                f"{where}: a {kind} has at most {LARGEST >> 10} KiB, this one {len(content) >> 10}: "
                "use a volume or put it into the image"
            )
        if kind == "config":
            return hashlib.sha256(content).hexdigest()[:32]
        self._unlocked()
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()[:32]

    def _unlocked(self) -> None:
        if self._locked:
            raise RefusedError(self._locked, 409)

    async def keep(self, given: Iterable[StackContent]) -> None:
        """Write the contents of *given* to the store. Must be called before a task that uses one is written."""
        fresh: dict[str, StoredContent] = {}
        for one in given:
            if one.content is not None:
                digest = self._digest(one.kind, one.content, one.where)
                if digest not in self._kept:
                    data = self._box(one.content, digest) if one.kind == "secret" else one.content
                    fresh[digest] = StoredContent(data=data, secret=one.kind == "secret")
        operations: list[Op] = await self._seal_for_other_servers() if any(k.secret for k in fresh.values()) else []
        for op in (*operations, *(Put(f"contents/{d}", msgspec.json.encode(k)) for d, k in fresh.items())):
            await self._store.transact((), [op])
        self._kept |= fresh

    def _box(self, content: bytes, digest: str) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        nonce = os.urandom(NONCE)
        return nonce + ChaCha20Poly1305(self._key).encrypt(nonce, content, digest.encode())

    # --- for nodes --------------------------------------------------------------------------------------

    def content_for_node(self, file: File, public: str) -> FileContent | None:
        """The content of *file*, sealed to the node's key *public* if it is secret; None if it is missing or not sealable."""
        kept = self._kept.get(file.digest)
        if kept is None or (kept.secret and (self._locked or not public)):
            return None
        if not kept.secret:
            return FileContent(digest=file.digest, data=kept.data)
        known = self._sealed.get((file.digest, public))
        if known is None:
            known = FileContent(digest=file.digest, data=seal(public, self._plain(file.digest), file.digest), sealed=True)
            self._sealed[file.digest, public] = known  # sealing twice gives two values: the manifest would seem changed
        return known

    def read_digest(self, digest: str) -> bytes | None:
        """The content of *digest*, None if it is missing. Raises RefusedError."""
        return self._plain(digest) if digest in self._kept else None

    def _plain(self, digest: str) -> bytes:
        kept = self._kept[digest]
        if not kept.secret:
            return kept.data
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        self._unlocked()
        return ChaCha20Poly1305(self._key).decrypt(kept.data[:NONCE], kept.data[NONCE:], digest.encode())

    # --- created by hand ------------------------------------------------------------------------------------

    async def create(self, kind: str, name: str, content: bytes, *, replace: bool) -> ExternalContent:
        """Create a config or secret. Raises RefusedError (400, 409) for a bad name, or if there is one and not *replace*."""
        if not NAME.fullmatch(name):
            raise RefusedError(f"{name!r} is not a name of a {kind}: up to 64 letters, digits, _, . and -", 400)
        async with self._naming:  # of two that create it at once, one is the first
            old = self.named.get((kind, name))
            if old and not replace:
                raise RefusedError(
                    f"there is a {kind} {name} already: --replace gives it new content, and `pystack up` rolls its users", 409
                )
            given = StackContent(
                kind="secret" if kind == "secret" else "config", key=name, name=name, content=content, where=name
            )
            await self.keep([given])
            now = timestamp(digits="seconds")
            made = ExternalContent(
                kind=kind, name=name, digest=self._digest(kind, content, name), created=old.created if old else now, updated=now
            )
            await self._store.transact((), [Put(f"named/{kind}/{name}", msgspec.json.encode(made))])
            self.named[kind, name] = made
            return made

    def find(self, kind: str, name: str) -> ExternalContent:
        """Raises RefusedError (404) if there is none."""
        if (kind, name) not in self.named:
            there = ", ".join(n for k, n in sorted(self.named) if k == kind) or "none"
            raise RefusedError(f"there is no {kind} {name}; there is: {there}", 404)
        return self.named[kind, name]

    def read(self, kind: str, name: str) -> bytes:
        """The content of one. Raises RefusedError."""
        return self._plain(self.find(kind, name).digest)

    async def remove(self, kind: str, name: str, users: Iterable[str]) -> None:
        """Remove one. Raises RefusedError (409) if *users*, names of stacks, use it."""
        self.find(kind, name)
        if by := sorted(users):
            raise RefusedError(f"{kind} {name} is used by stack {', '.join(by)}: take it down, or out of its file, first", 409)
        await self._store.transact((), [Delete(f"named/{kind}/{name}")])
        del self.named[kind, name]

    async def sweep(self, used: set[str]) -> None:
        """Delete the contents that are neither in *used* (digests) nor created by hand."""
        used = used | {n.digest for n in self.named.values()}
        for digest in self._kept.keys() - used:
            await self._store.transact((), [Delete(f"contents/{digest}")])
            del self._kept[digest]

    @property
    def empty(self) -> bool:
        """Whether no content is stored."""
        return not self._kept


def files_with_digests(files: Iterable[File], contents: Iterable[StackContent]) -> tuple[File, ...]:
    """*files*, each with the digest of the one of *contents* that it names."""
    digests = {(c.kind, c.key): c.digest for c in contents}
    return tuple(
        msgspec.structs.replace(f, digest=digests.get(("secret" if f.secret else "config", f.source), "")) for f in files
    )
