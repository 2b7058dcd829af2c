"""Messages of BuildKit's services, with the fields that are spoken here.

Source: BuildKit, api/services/control/control.proto, frontend/gateway/pb/gateway.proto, session/*/*.proto,
api/types/worker.proto; fsutil, types/stat.proto, types/wire.proto; google/rpc/status.proto; grpc/health/v1/health.proto.
"""

from __future__ import annotations

from typing import Annotated

from agent.buildkit.wire import Message


class Empty(Message):
    """Nothing."""


class Timestamp(Message):
    """A moment, since 1970."""

    seconds: Annotated[int, 1] = 0
    nanos: Annotated[int, 2] = 0


class Bytes(Message):
    """A piece of a stream."""

    data: Annotated[bytes, 1] = b""


# --- files: fsutil ---------------------------------------------------------------------------------------------------

STAT, REQ, DATA, FIN, ERR = range(5)
"""Types of packets."""


class Stat(Message):
    """A file: *mode* is Go's os.FileMode, *mtime* in nanoseconds since 1970, *linkname* what a link says, or the path that a
    hard link shares its file with."""

    path: Annotated[str, 1] = ""
    mode: Annotated[int, 2] = 0
    uid: Annotated[int, 3] = 0
    gid: Annotated[int, 4] = 0
    size: Annotated[int, 5] = 0
    mtime: Annotated[int, 6] = 0
    linkname: Annotated[str, 7] = ""
    devmajor: Annotated[int, 8] = 0
    devminor: Annotated[int, 9] = 0
    xattrs: Annotated[dict[str, bytes], 10] = {}


class Packet(Message):
    """One step of a transfer. *id* is the place of a file among the STATs, from 0."""

    type: Annotated[int, 1] = STAT
    stat: Annotated[Stat | None, 2] = None
    id: Annotated[int, 3] = 0
    data: Annotated[bytes, 4] = b""


# --- what a client's session has -------------------------------------------------------------------------------------


class CredentialsRequest(Message):
    """Who logs in at a registry."""

    host: Annotated[str, 1] = ""


class CredentialsAnswer(Message):
    """A name and a password, or a token in place of both."""

    username: Annotated[str, 1] = ""
    secret: Annotated[str, 2] = ""


class SecretRequest(Message):
    """A secret by its ID."""

    id: Annotated[str, 1] = ""


class SecretAnswer(Message):
    """What it contains."""

    data: Annotated[bytes, 1] = b""


class SshRequest(Message):
    """Whether there is an SSH agent *id*."""

    id: Annotated[str, 1] = ""


class HealthAnswer(Message):
    """1: serving."""

    status: Annotated[int, 1] = 0


# --- Control ---------------------------------------------------------------------------------------------------------


class CacheEntry(Message):
    """A cache to read from or to write to."""

    type: Annotated[str, 1] = ""
    attributes: Annotated[dict[str, str], 2] = {}


class CacheOptions(Message):
    """Caches of a build."""

    old_imports: Annotated[tuple[str, ...], 2] = ()
    exports: Annotated[tuple[CacheEntry, ...], 4] = ()
    imports: Annotated[tuple[CacheEntry, ...], 5] = ()


class SolveRequest(Message):
    """A build. *definition* is a graph of BuildKit's own, where there is no frontend."""

    ref: Annotated[str, 1] = ""
    definition: Annotated[bytes, 2] = b""
    exporter: Annotated[str, 3] = ""
    exporter_attributes: Annotated[dict[str, str], 4] = {}
    session: Annotated[str, 5] = ""
    frontend: Annotated[str, 6] = ""
    attributes: Annotated[dict[str, str], 7] = {}
    cache: Annotated[CacheOptions | None, 8] = None
    entitlements: Annotated[tuple[str, ...], 9] = ()
    exporters: Annotated[tuple[CacheEntry, ...], 13] = ()


class SolveAnswer(Message):
    """What the exporter says of the result."""

    exporter: Annotated[dict[str, str], 1] = {}


class StatusRequest(Message):
    """The request for the status of the build *ref*."""

    ref: Annotated[str, 1] = ""


class Vertex(Message):
    """A step; *digest* is its identity."""

    digest: Annotated[str, 1] = ""
    inputs: Annotated[tuple[str, ...], 2] = ()
    name: Annotated[str, 3] = ""
    cached: Annotated[bool, 4] = False
    started: Annotated[Timestamp | None, 5] = None
    completed: Annotated[Timestamp | None, 6] = None
    error: Annotated[str, 7] = ""


class VertexStatus(Message):
    """How far something that belongs to a step is."""

    id: Annotated[str, 1] = ""
    vertex: Annotated[str, 2] = ""
    name: Annotated[str, 3] = ""
    current: Annotated[int, 4] = 0
    total: Annotated[int, 5] = 0
    timestamp: Annotated[Timestamp | None, 6] = None
    started: Annotated[Timestamp | None, 7] = None
    completed: Annotated[Timestamp | None, 8] = None


class VertexLog(Message):
    """What a step says; *stream* is 1 or 2."""

    vertex: Annotated[str, 1] = ""
    timestamp: Annotated[Timestamp | None, 2] = None
    stream: Annotated[int, 3] = 0
    msg: Annotated[bytes, 4] = b""


class VertexWarning(Message):
    """What a step warns of."""

    vertex: Annotated[str, 1] = ""
    level: Annotated[int, 2] = 0
    short: Annotated[bytes, 3] = b""


class Status(Message):
    """News of a build."""

    vertexes: Annotated[tuple[Vertex, ...], 1] = ()
    statuses: Annotated[tuple[VertexStatus, ...], 2] = ()
    logs: Annotated[tuple[VertexLog, ...], 3] = ()
    warnings: Annotated[tuple[VertexWarning, ...], 4] = ()


class Platform(Message):
    """What an image is for."""

    architecture: Annotated[str, 1] = ""
    os: Annotated[str, 2] = ""
    variant: Annotated[str, 3] = ""


class Version(Message):
    """Of a builder."""

    package: Annotated[str, 1] = ""
    version: Annotated[str, 2] = ""
    revision: Annotated[str, 3] = ""


class Worker(Message):
    """Where builds run."""

    id: Annotated[str, 1] = ""
    labels: Annotated[dict[str, str], 2] = {}
    platforms: Annotated[tuple[Platform, ...], 3] = ()
    version: Annotated[Version | None, 5] = None


class ListWorkersAnswer(Message):
    """All workers."""

    record: Annotated[tuple[Worker, ...], 1] = ()


class InfoAnswer(Message):
    """Who builds."""

    version: Annotated[Version | None, 1] = None


class UsageRecord(Message):
    """One entry of the cache; *size* in bytes."""

    id: Annotated[str, 1] = ""
    mutable: Annotated[bool, 2] = False
    in_use: Annotated[bool, 3] = False
    size: Annotated[int, 4] = 0
    created: Annotated[Timestamp | None, 6] = None
    used: Annotated[Timestamp | None, 7] = None
    count: Annotated[int, 8] = 0
    description: Annotated[str, 9] = ""
    kind: Annotated[str, 10] = ""
    shared: Annotated[bool, 11] = False


class UsageAnswer(Message):
    """The cache."""

    record: Annotated[tuple[UsageRecord, ...], 1] = ()


class PruneRequest(Message):
    """What is to go: unused for *keep_ns* nanoseconds, until *keep_bytes* are left."""

    filter: Annotated[tuple[str, ...], 1] = ()
    all: Annotated[bool, 2] = False
    keep_ns: Annotated[int, 3] = 0
    keep_bytes: Annotated[int, 4] = 0


# --- the gateway: a client that leads its build itself -----------------------------------------------------------------


class Cap(Message):
    """Something that the other side can do."""

    id: Annotated[str, 1] = ""
    enabled: Annotated[bool, 2] = False


class PongAnswer(Message):
    """What this side can do."""

    frontend: Annotated[tuple[Cap, ...], 1] = ()
    llb: Annotated[tuple[Cap, ...], 2] = ()
    workers: Annotated[tuple[Worker, ...], 3] = ()


class FrontendRequest(Message):
    """A build that a client's own program asks for."""

    definition: Annotated[bytes, 1] = b""
    frontend: Annotated[str, 2] = ""
    options: Annotated[dict[str, str], 3] = {}
    imports: Annotated[tuple[CacheEntry, ...], 13] = ()


class Ref(Message):
    """A result."""

    id: Annotated[str, 1] = ""


class Result(Message):
    """Results of a frontend."""

    old_ref: Annotated[str, 1] = ""
    ref: Annotated[Ref | None, 3] = None
    metadata: Annotated[dict[str, bytes], 10] = {}


class FrontendAnswer(Message):
    """What a frontend made."""

    ref: Annotated[str, 1] = ""
    result: Annotated[Result | None, 3] = None


class RpcStatus(Message):
    """An error of gRPC's."""

    code: Annotated[int, 1] = 0
    message: Annotated[str, 2] = ""


class ReturnRequest(Message):
    """The client's program has ended."""

    result: Annotated[Result | None, 1] = None
    error: Annotated[RpcStatus | None, 2] = None
