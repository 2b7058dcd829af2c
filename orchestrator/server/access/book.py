"""The users and tokens of the cluster: the store's content in memory, and what changes both."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence

import msgspec

from agent.contract.times import timestamp
from orchestrator.errors import RefusedError
from orchestrator.server.access import passwords
from orchestrator.server.access.model import ALL, Role, Token, User, check_grant
from orchestrator.store.interface import Delete, Op, Put, Store

PREFIX = "pystack_"
"""The beginning of a token's secret, by which one that is found is recognized."""
AT_ONCE = 2
"""Passwords that are hashed at the same time: each takes 32 MiB and a core."""


class AccessBook:
    """A copy of `users/` and `tokens/` of *store*. Only the server that leads writes them, so the copy stays true."""

    def __init__(self, store: Store) -> None:
        self.users: dict[str, User] = {}
        self.tokens: dict[str, Token] = {}
        self._store = store
        self._by_digest: dict[str, Token] = {}
        self._hashing = asyncio.Semaphore(AT_ONCE)

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError."""
        for entry in await self._store.scan("users/"):
            user = msgspec.json.decode(entry.value, type=User)
            self.users[user.name] = user
        for entry in await self._store.scan("tokens/"):
            self._know(msgspec.json.decode(entry.value, type=Token))

    def _know(self, token: Token) -> None:
        self.tokens[token.name] = token
        self._by_digest[token.digest] = token

    async def _write(self, operation: Op) -> None:
        await self._store.transact((), [operation])

    async def put_user(self, name: str, role: Role, stacks: Sequence[str] = ALL, password: str = "", *, new: bool) -> User:
        """Create a user, or change one: "" keeps the password. Raises RefusedError (400, 404, 409), StoreError."""
        check_grant(name, role, stacks)
        known = self.users.get(name)
        if new and known:
            raise RefusedError(f"there is a user {name} already: `pystack user set` changes it", 409)
        if not new and not known:
            raise self._no_user(name)
        kept = known.password if known else ""
        if password:
            passwords.check(password, name)
            async with self._hashing:
                kept = await asyncio.to_thread(passwords.hashed, password)
        created = known.created if known else timestamp(digits="seconds")
        user = User(name=name, role=role, stacks=tuple(stacks), password=kept, created=created)
        await self._write(Put(f"users/{name}", msgspec.json.encode(user)))
        self.users[name] = user
        return user

    def _no_user(self, name: str) -> RefusedError:
        return RefusedError(f"there is no user {name[:80]}; there is: {', '.join(sorted(self.users)) or 'none'}", 404)

    async def remove_user(self, name: str) -> None:
        """Raises RefusedError (404), StoreError."""
        if name not in self.users:
            raise self._no_user(name)
        await self._write(Delete(f"users/{name}"))
        self.users.pop(name, None)

    async def verify(self, name: str, password: str) -> User | None:
        """The user with that name and password, None if there is none; either takes the same time."""
        user = self.users.get(name)
        async with self._hashing:
            right = await asyncio.to_thread(passwords.matches, password[: passwords.LONGEST], user.password if user else "")
        # another look: it may have been removed meanwhile
        return self.users.get(name) if right and self.users.get(name) == user else None

    async def create_token(self, name: str, role: Role, stacks: Sequence[str] = ALL, days: float = 0.0) -> tuple[Token, str]:
        """A new token and its secret, which is kept nowhere. *days* is how long it holds, 0 for ever.

        Raises RefusedError (400, 409), StoreError."""
        check_grant(name, role, stacks)
        if name in self.tokens:
            raise RefusedError(f"there is a token {name} already: remove it first, or give this one another name", 409)
        secret = PREFIX + secrets.token_urlsafe(32)
        token = Token(
            name=name,
            role=role,
            stacks=tuple(stacks),
            digest=_digest(secret),
            created=timestamp(digits="seconds"),
            expires=time.time() + days * 86_400 if days else 0.0,
        )
        await self._write(Put(f"tokens/{name}", msgspec.json.encode(token)))
        self._know(token)
        return token, secret

    async def remove_token(self, name: str) -> None:
        """Raises RefusedError (404), StoreError."""
        token = self.tokens.get(name)
        if token is None:
            raise RefusedError(f"there is no token {name[:80]}; there is: {', '.join(sorted(self.tokens)) or 'none'}", 404)
        await self._write(Delete(f"tokens/{name}"))
        self.tokens.pop(name, None)
        self._by_digest.pop(token.digest, None)

    def token_of(self, secret: str) -> Token | None:
        """The token with that secret, None if there is none, or it has expired."""
        token = self._by_digest.get(_digest(secret))
        return None if token is None or token.has_expired() else token


def _digest(secret: str) -> str:
    # 256 random bits need no slow hash: nobody can try them all
    return hashlib.sha256(secret.encode()).hexdigest()
