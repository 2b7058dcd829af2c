"""What the bodies of requests look like, as far as they are read. A body of another shape is refused, with the place in it.

All may be left out, and null is as good: Docker's clients send both. Source: Docker Engine API v1.43.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required, TypedDict

from msgspec import Meta

Text = Annotated[str, Meta(pattern=r"\A[^\x00]*\Z")]
"""No zero byte: neither a path, a name nor an argument can hold one."""
Texts = list[Text] | None
Pairs = dict[Text, Text] | None
Whole = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
OrMinusOne = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
Count = Annotated[int, Meta(ge=-1, le=(1 << 31) - 1)]
Keys = dict[Text, Any] | None


class Health(TypedDict, total=False):
    Test: Texts
    Interval: Whole | None
    Timeout: Whole | None
    Retries: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)] | None
    StartPeriod: Whole | None


class Binding(TypedDict, total=False):
    HostIp: Text | None
    HostPort: Text | None


class Tmpfs(TypedDict, total=False):
    SizeBytes: Whole | None


class Mounted(TypedDict, total=False):
    Type: Required[Literal["bind", "volume", "tmpfs", "image"]]
    Source: Text
    Target: Required[Text]
    ReadOnly: bool | None
    TmpfsOptions: Tmpfs | None


class Named(TypedDict, total=False):
    Name: Text | None
    MaximumRetryCount: Count | None


class Logging(TypedDict, total=False):
    Type: Text | None
    Config: Pairs


class Rate(TypedDict):
    Path: Text
    Rate: Whole


class Weight(TypedDict):
    Path: Text
    Weight: Whole


class Ulimit(TypedDict):
    Name: Text
    Soft: OrMinusOne
    Hard: OrMinusOne


class DeviceOf(TypedDict, total=False):
    PathOnHost: Required[Text]
    PathInContainer: Required[Text]
    CgroupPermissions: Text


class Request(TypedDict, total=False):
    Driver: Text | None
    Count: Count | None
    DeviceIDs: Texts
    Capabilities: list[list[Text]] | None


class Host(TypedDict, total=False):
    Annotations: Pairs
    AutoRemove: bool | None
    Binds: Texts
    BlkioDeviceReadBps: list[Rate] | None
    BlkioDeviceReadIOps: list[Rate] | None
    BlkioDeviceWriteBps: list[Rate] | None
    BlkioDeviceWriteIOps: list[Rate] | None
    BlkioWeight: Annotated[int, Meta(ge=0, le=1000)] | None
    BlkioWeightDevice: list[Weight] | None
    CapAdd: Texts
    CapDrop: Texts
    CgroupParent: Text | None
    CgroupnsMode: Text | None
    CpuPeriod: Whole | None
    CpuQuota: OrMinusOne | None
    CpuRealtimePeriod: Whole | None
    CpuRealtimeRuntime: Whole | None
    CpuShares: Whole | None
    CpusetCpus: Text | None
    DeviceCgroupRules: Texts
    DeviceRequests: list[Request] | None
    Devices: list[DeviceOf] | None
    Dns: Texts
    DnsOptions: Texts
    DnsSearch: Texts
    ExtraHosts: Texts
    GroupAdd: Texts
    Init: bool | None
    IpcMode: Text | None
    Links: Texts
    LogConfig: Logging | None
    Memory: Whole | None
    MemoryReservation: Whole | None
    MemorySwap: OrMinusOne | None
    MemorySwappiness: Annotated[int, Meta(ge=-1, le=200)] | None
    Mounts: list[Mounted] | None
    NanoCpus: Whole | None
    NetworkMode: Text | None
    OomKillDisable: bool | None
    OomScoreAdj: Annotated[int, Meta(ge=-1000, le=1000)] | None
    PidMode: Text | None
    PidsLimit: OrMinusOne | None
    PortBindings: dict[Text, list[Binding] | None] | None
    Privileged: bool | None
    PublishAllPorts: bool | None
    ReadonlyRootfs: bool | None
    RestartPolicy: Named | None
    SecurityOpt: Texts
    ShmSize: Whole | None
    Sysctls: Pairs
    Tmpfs: Pairs
    UTSMode: Text | None
    Ulimits: list[Ulimit] | None
    UsernsMode: Text | None
    VolumesFrom: Texts


class Ipam(TypedDict, total=False):
    IPv4Address: Text | None
    IPv6Address: Text | None
    LinkLocalIPs: Texts


class Endpoint(TypedDict, total=False):
    Aliases: Texts
    GwPriority: Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)] | None
    IPAMConfig: Ipam | None
    MacAddress: Text | None


class Networking(TypedDict, total=False):
    EndpointsConfig: dict[Text, Endpoint | None] | None


class Configuration(TypedDict, total=False):
    """What a container's process is; `commit` takes it too."""

    Cmd: Text | Texts
    Domainname: Text | None
    Entrypoint: Text | Texts
    Env: Texts
    ExposedPorts: Keys
    Healthcheck: Health | None
    Hostname: Text | None
    Image: Text | None
    Labels: Pairs
    MacAddress: Text | None
    OpenStdin: bool | None
    StdinOnce: bool | None
    StopSignal: Text | None
    StopTimeout: Annotated[int, Meta(ge=-1, le=(1 << 31) - 1)] | None
    Tty: bool | None
    User: Text | None
    Volumes: Keys
    WorkingDir: Text | None


class Create(Configuration, total=False):
    HostConfig: Host | None
    NetworkingConfig: Networking | None


class Update(TypedDict, total=False):
    CpuPeriod: Whole | None
    CpuQuota: OrMinusOne | None
    CpuShares: Whole | None
    CpusetCpus: Text | None
    Memory: Whole | None
    MemoryReservation: Whole | None
    MemorySwap: OrMinusOne | None
    NanoCpus: Whole | None
    PidsLimit: OrMinusOne | None
    RestartPolicy: Named | None


class Exec(TypedDict, total=False):
    AttachStdin: bool | None
    Cmd: Texts
    Env: Texts
    Privileged: bool | None
    Tty: bool | None
    User: Text | None
    WorkingDir: Text | None


class ExecStart(TypedDict, total=False):
    ConsoleSize: Annotated[list[Annotated[int, Meta(ge=0, le=65535)]], Meta(min_length=2, max_length=2)] | None
    Detach: bool | None


class Pool(TypedDict, total=False):
    AuxiliaryAddresses: Pairs
    Gateway: Text | None
    IPRange: Text | None
    Subnet: Text | None


class Pools(TypedDict, total=False):
    Config: list[Pool] | None


class Network(TypedDict, total=False):
    Attachable: bool | None
    Driver: Text | None
    EnableIPv6: bool | None
    IPAM: Pools | None
    Internal: bool | None
    Labels: Pairs
    Name: Text | None
    Options: Pairs


class Connect(TypedDict, total=False):
    Container: Text | None
    EndpointConfig: Endpoint | None


class Volume(TypedDict, total=False):
    Driver: Text | None
    DriverOpts: Pairs
    Labels: Pairs
    Name: Text | None
