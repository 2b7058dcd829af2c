"""etcd's API: its calls, their requests, and the types of their answers.

The messages come from the descriptors in the etcd3 package. Its generated modules were made for protobuf 3 and cannot be
imported under 4 and later, but their serialized descriptors are still valid. So the package is read and never run: its client
has faults of its own (no deadlines, watches that end silently, busy loops while a server is away). Source: etcd API, rpc.proto.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from importlib.metadata import files
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

R = TypeVar("R")
_FILES = ("kv_pb2.py", "auth_pb2.py", "rpc_pb2.py")  # each after those that it imports
DELETED = 1
"""The type of an Event for a key that was deleted."""
PROGRESS = b"\x1a\x00"
"""A WatchRequest that asks how far the watch is; etcd 3.4 has it (field 3, an empty message), etcd3's descriptors do not."""


class Header(Protocol):
    """Part of every answer; *revision* is the store's."""

    revision: int


class KeyValue(Protocol):
    """One key as it is at *mod_revision*."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class Answer(Protocol):
    """The answer of a call that only succeeds or fails."""

    header: Header


class RangeAnswer(Answer, Protocol):
    """*more* is True if a limit cut the list."""

    kvs: Sequence[KeyValue]
    more: bool


class TxnPart(Protocol):
    """The answer of one operation of a transaction; only that of a range is used here."""

    response_range: RangeAnswer


class TxnAnswer(Answer, Protocol):
    """*responses* are those of the success or of the failure branch."""

    succeeded: bool
    responses: Sequence[TxnPart]


class LeaseAnswer(Answer, Protocol):
    """*TTL* is in seconds; 0 if the lease is gone. *grantedTTL* is what it is after a renewal, 0 if nobody asked for that."""

    ID: int
    TTL: int
    grantedTTL: int  # noqa: N815


class Event(Protocol):
    """*type* is DELETED, or 0 for a put."""

    type: int
    kv: KeyValue


class WatchAnswer(Answer, Protocol):
    """*compact_revision* is not 0 if the watch began at a revision that is compacted."""

    created: bool
    canceled: bool
    compact_revision: int
    events: Sequence[Event]


class TokenAnswer(Answer, Protocol):
    """*token* authenticates later calls."""

    token: str


class Rpc(msgspec.Struct, Generic[R], frozen=True):
    """A call of etcd's API that answers with messages of type R. *answer* is the name of that message in rpc.proto."""

    service: str
    name: str
    answer: str

    def unary(self, channel: Any) -> Any:
        """The call on *channel*, of grpc.aio: one request, one answer."""
        return channel.unary_unary(self._path, **self._codec())

    def stream(self, channel: Any) -> Any:
        """The call on *channel*, of grpc.aio: requests and answers are streams."""
        return channel.stream_stream(self._path, **self._codec())

    @property
    def _path(self) -> str:
        return f"/etcdserverpb.{self.service}/{self.name}"

    def _codec(self) -> dict[str, Any]:
        return {"request_serializer": _serialize, "response_deserializer": _MESSAGES[self.answer].FromString}


RANGE = Rpc[RangeAnswer]("KV", "Range", "RangeResponse")
PUT = Rpc[Answer]("KV", "Put", "PutResponse")
TXN = Rpc[TxnAnswer]("KV", "Txn", "TxnResponse")
COMPACT = Rpc[Answer]("KV", "Compact", "CompactionResponse")
WATCH = Rpc[WatchAnswer]("Watch", "Watch", "WatchResponse")
LEASE_GRANT = Rpc[LeaseAnswer]("Lease", "LeaseGrant", "LeaseGrantResponse")
LEASE_REVOKE = Rpc[Answer]("Lease", "LeaseRevoke", "LeaseRevokeResponse")
LEASE_TIME_TO_LIVE = Rpc[LeaseAnswer]("Lease", "LeaseTimeToLive", "LeaseTimeToLiveResponse")
LEASE_KEEP_ALIVE = Rpc[LeaseAnswer]("Lease", "LeaseKeepAlive", "LeaseKeepAliveResponse")
AUTHENTICATE = Rpc[TokenAnswer]("Auth", "Authenticate", "AuthenticateResponse")
USER_ADD = Rpc[Answer]("Auth", "UserAdd", "AuthUserAddResponse")
USER_DELETE = Rpc[Answer]("Auth", "UserDelete", "AuthUserDeleteResponse")
USER_CHANGE_PASSWORD = Rpc[Answer]("Auth", "UserChangePassword", "AuthUserChangePasswordResponse")
USER_GRANT_ROLE = Rpc[Answer]("Auth", "UserGrantRole", "AuthUserGrantRoleResponse")
ROLE_ADD = Rpc[Answer]("Auth", "RoleAdd", "AuthRoleAddResponse")
ROLE_DELETE = Rpc[Answer]("Auth", "RoleDelete", "AuthRoleDeleteResponse")
ROLE_GRANT_PERMISSION = Rpc[Answer]("Auth", "RoleGrantPermission", "AuthRoleGrantPermissionResponse")


def range_request(key: bytes, end: bytes = b"", *, revision: int = 0, limit: int = 0, keys_only: bool = False) -> Message:
    """*key*, or all keys from *key* up to *end*, as of *revision*, 0 for the newest; at most *limit*, 0 for all."""
    return _message("RangeRequest", key=key, range_end=end, revision=revision, limit=limit, keys_only=keys_only)


def put_request(key: bytes, value: bytes, *, lease: int = 0) -> Message:
    """*key* with *value*, deleted when *lease* ends; 0 for no lease."""
    return _message("PutRequest", key=key, value=value, lease=lease)


def delete_request(key: bytes) -> Message:
    """Without *key*."""
    return _message("DeleteRangeRequest", key=key)


def txn_request(compare: Iterable[tuple[bytes, int]], success: Iterable[Message], failure: Iterable[Message] = ()) -> Message:
    """A transaction that compares keys with their modification revisions, 0 for a key that does not exist. *success* and
    *failure* are range, put and delete requests."""
    request: Any = _message("TxnRequest")
    for key, modified in compare:
        request.compare.add(key=key, result=0, target=2, mod_revision=modified)  # EQUAL, MOD
    for branch, operations in ((request.success, success), (request.failure, failure)):
        for one in operations:
            getattr(branch.add(), _OPERATIONS[type(one)]).MergeFrom(one)
    return request  # type: ignore[no-any-return]


def watch_request(key: bytes, end: bytes, *, start_revision: int = 0) -> Message:
    """A watch of the keys from *key* up to *end*, from *start_revision* on, 0 for the next."""
    request: Any = _message("WatchRequest")
    create = _message("WatchCreateRequest", key=key, range_end=end, start_revision=start_revision, progress_notify=True)
    request.create_request.MergeFrom(create)
    return request  # type: ignore[no-any-return]


def compaction_request(revision: int) -> Message:
    """Compact all revisions before *revision*."""
    return _message("CompactionRequest", revision=revision)


def lease_grant_request(ttl_s: int) -> Message:
    """A new lease that ends after *ttl_s* seconds unless it is kept alive."""
    return _message("LeaseGrantRequest", TTL=ttl_s)


def lease_revoke_request(lease: int) -> Message:
    """End *lease* now."""
    return _message("LeaseRevokeRequest", ID=lease)


def lease_time_to_live_request(lease: int) -> Message:
    """How long *lease* has to live."""
    return _message("LeaseTimeToLiveRequest", ID=lease)


def lease_keep_alive_request(lease: int) -> Message:
    """Restart the time to live of *lease*."""
    return _message("LeaseKeepAliveRequest", ID=lease)


def authenticate_request(user: str, password: str) -> Message:
    """Log in."""
    return _message("AuthenticateRequest", name=user, password=password)


def user_add_request(user: str, password: str) -> Message:
    """Create *user*."""
    return _message("AuthUserAddRequest", name=user, password=password)


def user_delete_request(user: str) -> Message:
    """Delete *user*."""
    return _message("AuthUserDeleteRequest", name=user)


def user_change_password_request(user: str, password: str) -> Message:
    """Give *user* a new password."""
    return _message("AuthUserChangePasswordRequest", name=user, password=password)


def user_grant_role_request(user: str, role: str) -> Message:
    """Give *user* the permissions of *role*."""
    return _message("AuthUserGrantRoleRequest", user=user, role=role)


def role_add_request(role: str) -> Message:
    """Create *role*."""
    return _message("AuthRoleAddRequest", name=role)


def role_delete_request(role: str) -> Message:
    """Delete *role*."""
    return _message("AuthRoleDeleteRequest", role=role)


def role_grant_read_request(role: str, key: bytes, end: bytes) -> Message:
    """Let *role* read the keys from *key* up to *end*."""
    request: Any = _message("AuthRoleGrantPermissionRequest", name=role)
    request.perm.permType, request.perm.key, request.perm.range_end = 0, key, end  # READ
    return request  # type: ignore[no-any-return]


def _message(kind: str, /, **fields: Any) -> Message:
    return _MESSAGES[kind](**fields)


def _serialize(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def _load() -> dict[str, type[Message]]:
    """The messages of rpc.proto by name."""
    pool = descriptor_pool.DescriptorPool()
    found = {path.name: path for path in files("etcd3") or () if path.parent.name == "etcdrpc"}
    for name in _FILES:
        tree = ast.parse(found[name].read_text())
        text = next(
            node.value.args[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.keyword)
            and node.arg == "serialized_pb"
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.args[0], ast.Constant)
        )
        pool.AddSerializedFile(descriptor_pb2.FileDescriptorProto.FromString(str(text).encode("latin1")).SerializeToString())
    package = pool.FindFileByName("rpc.proto")
    return {name: message_factory.GetMessageClass(kind) for name, kind in package.message_types_by_name.items()}


_MESSAGES = _load()
_OPERATIONS = {
    _MESSAGES["RangeRequest"]: "request_range",
    _MESSAGES["PutRequest"]: "request_put",
    _MESSAGES["DeleteRangeRequest"]: "request_delete_range",
}
