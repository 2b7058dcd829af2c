"""The shapes of the Engine API's request bodies, and their check.

A shape is `str`, `int`, `bool` or `float`, `Range(low, high)`, `[shape]` for a list, `Map(shape)` for an object with free
keys, a dict for one with named fields, or WORDS. As in Docker's own decoder a field's name may be in any case, null counts as
missing, and unknown fields are ignored. Source: Docker Engine API v1.48, definitions; Go, encoding/json
(Unmarshal).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from agent.api import plain_options
from agent.api.shape_kinds import WHOLE, Map, Range
from agent.errors import BadRequestError

Shape: TypeAlias = Any
OR_MINUS_ONE, COUNT = Range(-1, (1 << 63) - 1), Range(-1, (1 << 31) - 1)
INT64, UINT16, UINT32 = Range(-(1 << 63), (1 << 63) - 1), Range(0, (1 << 16) - 1), Range(0, (1 << 32) - 1)
WORDS = "words"
"""A command: a list of words, or one string."""
NAMES = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a whole number", float: "a number"}
LABELS = Map(str)
EMPTY: dict[str, Shape] = {}
_HEALTH = {
    "Test": [str],
    "Interval": WHOLE,
    "Timeout": WHOLE,
    "StartPeriod": WHOLE,
    "StartInterval": WHOLE,
    "Retries": Range(0, COUNT.high),
}
_RATES = [{"Path": str, "Rate": Range(0, INT64.high)}]
_POLICY = {"Name": str, "MaximumRetryCount": COUNT}
RESOURCES: dict[str, Shape] = plain_options.host_shapes(limits=True) | {
    "CpuShares": WHOLE,
    "NanoCpus": WHOLE,
    "BlkioWeight": UINT16,
    "BlkioWeightDevice": [{"Path": str, "Weight": UINT16}],
    "BlkioDeviceReadBps": _RATES,
    "BlkioDeviceWriteBps": _RATES,
    "BlkioDeviceReadIOps": _RATES,
    "BlkioDeviceWriteIOps": _RATES,
    "CpuPeriod": WHOLE,
    "CpuQuota": OR_MINUS_ONE,
    "CpuRealtimePeriod": WHOLE,
    "CpuRealtimeRuntime": WHOLE,
    "CpusetMems": str,
    "Devices": [{"PathOnHost": str, "PathInContainer": str, "CgroupPermissions": str}],
    "DeviceRequests": [{"Driver": str, "Count": COUNT, "DeviceIDs": [str], "Capabilities": [[str]], "Options": Map(str)}],
    "KernelMemory": int,
    "KernelMemoryTCP": int,
    "MemoryReservation": WHOLE,
    "MemorySwap": OR_MINUS_ONE,
    "MemorySwappiness": int,
    "PidsLimit": INT64,
    "Ulimits": [{"Name": str, "Soft": OR_MINUS_ONE, "Hard": OR_MINUS_ONE}],
    "CpuCount": int,
    "CpuPercent": int,
    "IOMaximumIOps": int,
    "IOMaximumBandwidth": int,
}
MOUNT = {
    "Type": str,
    "Source": str,
    "Target": str,
    "ReadOnly": bool,
    "Consistency": str,
    "BindOptions": {
        "Propagation": str,
        "NonRecursive": bool,
        "CreateMountpoint": bool,
        "ReadOnlyNonRecursive": bool,
        "ReadOnlyForceRecursive": bool,
    },
    "VolumeOptions": {"NoCopy": bool, "Labels": LABELS, "Subpath": str, "DriverConfig": {"Name": str, "Options": Map(str)}},
    "ImageOptions": {"Subpath": str},
    "ClusterOptions": EMPTY,
    "TmpfsOptions": {"SizeBytes": WHOLE, "Mode": UINT32, "Options": [[str]]},
}
HOST_CONFIG: dict[str, Shape] = (
    RESOURCES
    | plain_options.host_shapes()
    | {
        "Binds": [str],
        "ContainerIDFile": str,
        "LogConfig": {"Type": str, "Config": Map(str)},
        "NetworkMode": str,
        "PortBindings": Map([{"HostIp": str, "HostPort": str}]),
        "RestartPolicy": _POLICY,
        "AutoRemove": bool,
        "VolumeDriver": str,
        "ConsoleSize": [UINT32],
        "CapAdd": WORDS,
        "CapDrop": WORDS,
        "CgroupnsMode": str,
        "DnsOptions": [str],
        "ExtraHosts": [str],
        "GroupAdd": [str],
        "IpcMode": str,
        "Cgroup": str,
        "Links": [str],
        "PidMode": str,
        "PublishAllPorts": bool,
        "SecurityOpt": [str],
        "StorageOpt": Map(str),
        "Tmpfs": Map(str),
        "UsernsMode": str,
        "ShmSize": WHOLE,
        "Runtime": str,
        "Isolation": str,
        "Mounts": [MOUNT],
        "MaskedPaths": [str],
        "ReadonlyPaths": [str],
    }
)
CONFIG: dict[str, Shape] = plain_options.config_shapes() | {
    "AttachStdin": bool,
    "AttachStdout": bool,
    "AttachStderr": bool,
    "ExposedPorts": Map(EMPTY),
    "StdinOnce": bool,
    "Env": [str],
    "Cmd": WORDS,
    "Healthcheck": _HEALTH,
    "ArgsEscaped": bool,
    "Image": str,
    "Volumes": Map(EMPTY),
    "Entrypoint": WORDS,
    "NetworkDisabled": bool,
    "MacAddress": str,
    "OnBuild": [str],
    "Labels": LABELS,
    "StopTimeout": COUNT,
    "Shell": WORDS,
}
ENDPOINT = {
    "IPAMConfig": {"IPv4Address": str, "IPv6Address": str, "LinkLocalIPs": [str]},
    "Links": [str],
    "Aliases": [str],
    "MacAddress": str,
    "DriverOpts": Map(str),
    "GwPriority": Range(-(1 << 31), COUNT.high),
    "NetworkID": str,
    "EndpointID": str,
    "Gateway": str,
    "IPAddress": str,
    "IPPrefixLen": int,
    "IPv6Gateway": str,
    "GlobalIPv6Address": str,
    "GlobalIPv6PrefixLen": int,
    "DNSNames": [str],
}
BANDWIDTH = {"Network": str, "Ingress": str, "Egress": str, "Burst": COUNT}
"""Our own: one entry of an update; without a network it is of all that the container is on."""
CREATE = CONFIG | {"HostConfig": HOST_CONFIG, "NetworkingConfig": {"EndpointsConfig": Map(ENDPOINT)}}
UPDATE = RESOURCES | {"RestartPolicy": _POLICY, "Bandwidth": [BANDWIDTH]}
EXEC = {
    "User": str,
    "Privileged": bool,
    "Tty": bool,
    "ConsoleSize": [UINT32],
    "AttachStdin": bool,
    "AttachStderr": bool,
    "AttachStdout": bool,
    "DetachKeys": str,
    "Env": [str],
    "WorkingDir": str,
    "Cmd": WORDS,
}
EXEC_START = {"Detach": bool, "Tty": bool, "ConsoleSize": [UINT32]}
NETWORK = {
    "Name": str,
    "Driver": str,
    "Scope": str,
    "Internal": bool,
    "Attachable": bool,
    "Ingress": bool,
    "ConfigOnly": bool,
    "ConfigFrom": {"Network": str},
    "EnableIPv4": bool,
    "EnableIPv6": bool,
    "Options": Map(str),
    "Labels": LABELS,
    "IPAM": {
        "Driver": str,
        "Options": Map(str),
        "Config": [{"Subnet": str, "IPRange": str, "Gateway": str, "AuxiliaryAddresses": Map(str)}],
    },
}
CONNECT = {"Container": str, "EndpointConfig": ENDPOINT}
DISCONNECT = {"Container": str, "Force": bool}
VOLUME = {"Name": str, "Driver": str, "DriverOpts": Map(str), "Labels": LABELS, "ClusterVolumeSpec": EMPTY}
LOGIN = {
    "username": str,
    "password": str,
    "auth": str,
    "email": str,
    "serveraddress": str,
    "identitytoken": str,
    "registrytoken": str,
}


def read(raw: bytes, shape: Shape) -> dict[str, Any]:
    """The body *raw* with the fields of *shape* that it has, spelled as there. Raises BadRequestError."""
    if not raw.strip():
        return {}
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise BadRequestError("malformed request: the body is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:  # the second: text that is not UTF-8
        raise BadRequestError(f"malformed request: the body is not JSON: {error}") from None
    document: dict[str, Any] = fitting(value, shape, "$") or {}
    return document


def fitting(value: Any, shape: Shape, where: str) -> Any:
    """*value* in the form of *shape*, None for null. Raises BadRequestError that names a field with another type."""
    if value is None:
        return None
    if shape == WORDS:
        if isinstance(value, str):
            return [value]
        shape = [str]
    if isinstance(shape, Map):
        _must(isinstance(value, dict), value, dict, where)
        return {_text(k, where): _or_zero(fitting(v, shape.of, f"{where}.{k}"), shape.of) for k, v in value.items()}
    if isinstance(shape, dict):
        _must(isinstance(value, dict), value, dict, where)
        return _fields(value, shape, where)
    if isinstance(shape, list):
        _must(isinstance(value, list), value, list, where)
        return [_or_zero(fitting(v, shape[0], f"{where}[{i}]"), shape[0]) for i, v in enumerate(value)]
    if shape is int:
        shape = INT64
    if isinstance(shape, Range):
        _must(type(value) is int, value, int, where)
        if not shape.low <= value <= shape.high:
            raise BadRequestError(f"{where}: {value} is out of range: from {shape.low} to {shape.high}")
        return value
    _must(type(value) is shape or (shape is float and type(value) is int), value, shape, where)
    return _text(value, where) if shape is str else value


def _fields(value: dict[str, Any], shape: dict[str, Shape], where: str) -> dict[str, Any]:
    by_lower = {name.lower(): name for name in shape}
    out: dict[str, Any] = {}
    for key, inner in value.items():
        name = key if key in shape else by_lower.get(key.lower(), "")
        if not name or (name != key and name in value):
            continue
        found = fitting(inner, shape[name], f"{where}.{name}")
        if found is not None:
            out[name] = found
    return out


def _text(value: str, where: str) -> str:
    """*value*. Raises BadRequestError for a zero byte, which no path, name or argument can have."""
    if "\0" in value:
        raise BadRequestError(f"{where}: it holds a zero byte")
    return value


def _or_zero(value: Any, shape: Shape) -> Any:
    if value is not None:
        return value
    if isinstance(shape, Map | dict):
        return {}
    if isinstance(shape, Range):
        return 0
    return [] if isinstance(shape, list) or shape == WORDS else shape()


def _must(holds: bool, value: Any, wanted: type, where: str) -> None:
    if not holds:
        found = NAMES.get(type(value), type(value).__name__)
        raise BadRequestError(f"{where}: {NAMES[wanted]} is wanted here, and this is {found}")
