"""etcd users for nodes that read their own manifest, each with a role that can read only the keys of that node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from agent.contract.manifest import EtcdCredentials
from orchestrator.store.etcd import rpc
from orchestrator.store.etcd.client import Client, StatusError
from orchestrator.store.etcd.keyspace import Keyspace, end_of
from orchestrator.store.etcd.rpc import Rpc
from orchestrator.store.interface import StoreError

T = TypeVar("T")


class Users:
    """The users that this store has added."""

    def __init__(self, client: Client, keyspace: Keyspace) -> None:
        self._client = client
        self._keyspace = keyspace

    async def grant_read(self, reader: str, prefix: str) -> EtcdCredentials:
        """See `Store.grant_read`. A user that exists gets a new password."""
        address = self._client.address
        if not self._client.has_users:
            raise StoreError(
                "etcd has no users, so a node could read the keys of all: add users (`etcdctl user add root`, "
                "`etcdctl auth enable`), and start the server with --store etcd://root:PASSWORD@…"
            )
        name, password = self._name(reader), os.urandom(24).hex()
        begin, end = self._keyspace.encode(prefix), self._keyspace.encode(end_of(prefix))
        call = self._client.call
        await self._idempotent(rpc.ROLE_ADD, rpc.role_add_request(name))
        await call(rpc.ROLE_GRANT_PERMISSION, rpc.role_grant_read_request(name, begin, end))
        await self._idempotent(rpc.USER_ADD, rpc.user_add_request(name, password))
        await call(rpc.USER_CHANGE_PASSWORD, rpc.user_change_password_request(name, password))
        await call(rpc.USER_GRANT_ROLE, rpc.user_grant_role_request(name, name))
        ca = Path(address.ca).read_text() if address.ca else ""
        return EtcdCredentials(
            members=address.members, prefix=begin.decode(), user=name, password=password, ca=ca, tls=bool(ca)
        )

    async def revoke_read(self, reader: str) -> None:
        """See `Store.revoke_read`."""
        name = self._name(reader)
        await self._idempotent(rpc.USER_DELETE, rpc.user_delete_request(name))
        await self._idempotent(rpc.ROLE_DELETE, rpc.role_delete_request(name))

    def _name(self, reader: str) -> str:
        return f"{self._client.address.prefix}-{reader}"

    async def _idempotent(self, method: Rpc[T], request: Message) -> None:
        """Call *method*; that the user or role exists already, or no longer, is fine."""
        try:
            await self._client.call(method, request)
        except StatusError as error:
            if error.code != grpc.StatusCode.FAILED_PRECONDITION:
                raise
