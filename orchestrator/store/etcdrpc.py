"""etcd's messages, from the descriptors that the etcd3 package carries.

The package's generated modules were made for protobuf 3 and refuse to be imported under 4 and later; their serialized
descriptors are as good as ever. So the package is read and never run: its client's threads, watchers and locks have faults
of their own (no deadlines, watches that end in silence, busy loops while a server is away). Source: etcd API, rpc.proto.
"""

from __future__ import annotations

import ast
from importlib.metadata import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FILES = ("kv_pb2.py", "auth_pb2.py", "rpc_pb2.py")  # each after those that it imports
_SERVICES = {
    "Range": "KV",
    "Put": "KV",
    "Txn": "KV",
    "Compact": "KV",
    "Watch": "Watch",
    "LeaseGrant": "Lease",
    "LeaseRevoke": "Lease",
    "LeaseKeepAlive": "Lease",
    "Status": "Maintenance",
    "Authenticate": "Auth",
    "UserAdd": "Auth",
    "UserDelete": "Auth",
    "UserChangePassword": "Auth",
    "UserGrantRole": "Auth",
    "RoleAdd": "Auth",
    "RoleDelete": "Auth",
    "RoleGrantPermission": "Auth",
}


def _load() -> dict[str, Any]:
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
    return {name: message_factory.GetMessageClass(kind) for name, kind in package.message_types_by_name.items()} | {
        "KeyValue": message_factory.GetMessageClass(pool.FindFileByName("kv.proto").message_types_by_name["KeyValue"])
    }


MESSAGES = _load()
PROGRESS = b"\x1a\x00"
"""A WatchRequest that asks how far the watch is; etcd 3.4 has it (field 3, an empty message), etcd3's descriptors do not."""


def method(channel: Any, name: str, *, stream: bool = False) -> Any:
    """The call *name* of etcd's API on a grpc.aio channel."""
    make = channel.stream_stream if stream else channel.unary_unary
    about_users = _SERVICES[name] == "Auth" and name != "Authenticate"
    kind = "Compaction" if name == "Compact" else f"Auth{name}" if about_users else name
    return make(
        f"/etcdserverpb.{_SERVICES[name]}/{name}",
        request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
        response_deserializer=MESSAGES[f"{kind}Response"].FromString,
    )
