"""What the Engine API's reference says of its answers, reduced to a table, and what of an answer does not fit it.

A type is `str`, `int`, `float` (any number), `bool`, `None` (anything); a list of one type; a table of fields; `Table(type)`,
an object with any keys; or `Maybe(type)`, which may be null. A field whose name ends in `?` may be absent. Fields beside those
of the table are not looked at: clients pass over what they do not know. Source: Docker Engine API v1.43 and v1.48, definitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Maybe(NamedTuple):
    """*kind*, or null."""

    kind: Any


class Table(NamedTuple):
    """An object whose values are of one *kind*."""

    kind: Any


LABELS, WORDS = Table(str), [str]
VERSION = {"Index": int}
DATED = {"ID": str, "Version": VERSION, "CreatedAt": str, "UpdatedAt": str}
PORT = {"PrivatePort": int, "PublicPort?": int, "IP?": str, "Type": str}
ENDPOINT = {
    "IPAMConfig": Maybe({"IPv4Address?": str, "IPv6Address?": str, "LinkLocalIPs?": WORDS}),
    "Links": Maybe(WORDS),
    "Aliases": Maybe(WORDS),
    "NetworkID": str,
    "EndpointID": str,
    "Gateway": str,
    "IPAddress": str,
    "IPPrefixLen": int,
    "IPv6Gateway": str,
    "GlobalIPv6Address": str,
    "GlobalIPv6PrefixLen": int,
    "MacAddress": str,
    "DriverOpts": Maybe(LABELS),
}
MOUNT = {
    "Type": str,
    "Name?": str,
    "Source": str,
    "Destination": str,
    "Driver?": str,
    "Mode": str,
    "RW": bool,
    "Propagation": str,
}
CONFIG = {
    "Hostname": str,
    "Domainname": str,
    "User": str,
    "AttachStdin": bool,
    "AttachStdout": bool,
    "AttachStderr": bool,
    "ExposedPorts?": Maybe(Table({})),
    "Tty": bool,
    "OpenStdin": bool,
    "StdinOnce": bool,
    "Env": Maybe(WORDS),
    "Cmd": Maybe(WORDS),
    "Image": str,
    "Volumes": Maybe(Table({})),
    "WorkingDir": str,
    "Entrypoint": Maybe(WORDS),
    "Labels": Maybe(LABELS),
}
HOST_CONFIG = {
    "Binds": Maybe(WORDS),
    "NetworkMode": str,
    "PortBindings": Maybe(Table(Maybe([{"HostIp": str, "HostPort": str}]))),
    "RestartPolicy": {"Name": str, "MaximumRetryCount": int},
    "AutoRemove": bool,
    "CapAdd": Maybe(WORDS),
    "CapDrop": Maybe(WORDS),
    "Memory": int,
    "NanoCpus": int,
    "CpuShares": int,
    "Privileged": bool,
    "ReadonlyRootfs": bool,
    "ShmSize": int,
    "LogConfig": {"Type": str, "Config": Maybe(LABELS)},
}
CONTAINER_ROW = {
    "Id": str,
    "Names": WORDS,
    "Image": str,
    "ImageID": str,
    "Command": str,
    "Created": int,
    "Ports": [PORT],
    "Labels": LABELS,
    "State": str,
    "Status": str,
    "HostConfig": {"NetworkMode": str},
    "NetworkSettings": {"Networks": Table(ENDPOINT)},
    "Mounts": [MOUNT],
    "SizeRw?": int,
    "SizeRootFs?": int,
}
CONTAINER = {
    "Id": str,
    "Created": str,
    "Path": str,
    "Args": WORDS,
    "State": {
        "Status": str,
        "Running": bool,
        "Paused": bool,
        "Restarting": bool,
        "OOMKilled": bool,
        "Dead": bool,
        "Pid": int,
        "ExitCode": int,
        "Error": str,
        "StartedAt": str,
        "FinishedAt": str,
    },
    "Image": str,
    "ResolvConfPath": str,
    "HostnamePath": str,
    "HostsPath": str,
    "LogPath": str,
    "Name": str,
    "RestartCount": int,
    "Driver": str,
    "Platform": str,
    "MountLabel": str,
    "ProcessLabel": str,
    "AppArmorProfile": str,
    "ExecIDs": Maybe(WORDS),
    "HostConfig": HOST_CONFIG,
    "GraphDriver": {"Name": str, "Data": Maybe(LABELS)},
    "Mounts": [MOUNT],
    "Config": CONFIG,
    "NetworkSettings": {
        "SandboxID": str,
        "SandboxKey": str,
        "Ports": Maybe(Table(Maybe([{"HostIp": str, "HostPort": str}]))),
        "Networks": Table(ENDPOINT),
    },
}
IMAGE_ROW = {
    "Id": str,
    "ParentId": str,
    "RepoTags": Maybe(WORDS),
    "RepoDigests": Maybe(WORDS),
    "Created": int,
    "Size": int,
    "SharedSize": int,
    "Labels": Maybe(LABELS),
    "Containers": int,
}
IMAGE = {
    "Id": str,
    "RepoTags": WORDS,
    "RepoDigests": WORDS,
    "Created?": Maybe(str),
    "Architecture": str,
    "Os": str,
    "Size": int,
    "GraphDriver": {"Name": str, "Data": Maybe(LABELS)},
    "RootFS": {"Type": str, "Layers?": WORDS},
    "Metadata": {"LastTagTime?": Maybe(str)},
    "Config": CONFIG,
}
NETWORK = {
    "Name": str,
    "Id": str,
    "Created": str,
    "Scope": str,
    "Driver": str,
    "EnableIPv6": bool,
    "IPAM": {"Driver": str, "Options": Maybe(LABELS), "Config": Maybe([{"Subnet?": str, "Gateway?": str, "IPRange?": str}])},
    "Internal": bool,
    "Attachable": bool,
    "Ingress": bool,
    "ConfigFrom": {"Network": str},
    "ConfigOnly": bool,
    "Containers?": Maybe(Table({"Name": str, "EndpointID": str, "MacAddress": str, "IPv4Address": str, "IPv6Address": str})),
    "Options": Maybe(LABELS),
    "Labels": Maybe(LABELS),
}
VOLUME = {
    "Name": str,
    "Driver": str,
    "Mountpoint": str,
    "CreatedAt?": str,
    "Status?": Maybe(Table(None)),
    "Labels": Maybe(LABELS),
    "Scope": str,
    "Options": Maybe(LABELS),
}
INFO = {
    "ID": str,
    "Containers": int,
    "ContainersRunning": int,
    "ContainersPaused": int,
    "ContainersStopped": int,
    "Images": int,
    "Driver": str,
    "DriverStatus": Maybe([[str]]),
    "DockerRootDir": str,
    "Plugins": {"Volume": Maybe(WORDS), "Network": Maybe(WORDS), "Authorization": Maybe(WORDS), "Log": Maybe(WORDS)},
    "MemoryLimit": bool,
    "SwapLimit": bool,
    "CpuCfsPeriod": bool,
    "CpuCfsQuota": bool,
    "NFd": int,
    "NGoroutines": int,
    "SystemTime": str,
    "LoggingDriver": str,
    "CgroupDriver": str,
    "CgroupVersion": str,
    "KernelVersion": str,
    "OperatingSystem": str,
    "OSType": str,
    "Architecture": str,
    "NCPU": int,
    "MemTotal": int,
    "IndexServerAddress": str,
    "Name": str,
    "Labels": Maybe(WORDS),
    "ServerVersion": str,
    "Runtimes": Table({"path?": str}),
    "DefaultRuntime": str,
    "Swarm": {"NodeID": str, "NodeAddr": str, "LocalNodeState": str, "ControlAvailable": bool, "Error": str},
    "LiveRestoreEnabled": bool,
    "InitBinary": str,
    "SecurityOptions": Maybe(WORDS),
    "Warnings": Maybe(WORDS),
}
SPEC_OF_TASK = {
    "ContainerSpec": {
        "Image": str,
        "Labels?": LABELS,
        "Command?": WORDS,
        "Args?": WORDS,
        "Env?": WORDS,
        "Mounts?": [{"Type": str, "Source?": str, "Target": str, "ReadOnly?": bool}],
        "StopGracePeriod?": int,
        "Secrets?": [{"SecretID": str, "SecretName": str, "File": {"Name": str, "UID": str, "GID": str, "Mode": int}}],
        "Configs?": [{"ConfigID": str, "ConfigName": str, "File": {"Name": str, "UID": str, "GID": str, "Mode": int}}],
    },
    "Resources?": {
        "Limits?": {"NanoCPUs?": int, "MemoryBytes?": int, "Pids?": int},
        "Reservations?": {"NanoCPUs?": int, "MemoryBytes?": int},
    },
    "RestartPolicy?": {"Condition": str, "Delay?": int, "MaxAttempts?": int},
    "Placement?": {"Constraints?": WORDS, "MaxReplicas?": int},
    "Networks?": [{"Target": str, "Aliases?": WORDS}],
    "ForceUpdate?": int,
    "Runtime?": str,
}
PUBLISHED = {"Protocol": str, "TargetPort": int, "PublishedPort?": int, "PublishMode": str}
SERVICE = {
    **DATED,
    "Spec": {
        "Name": str,
        "Labels": LABELS,
        "TaskTemplate": SPEC_OF_TASK,
        "Mode": {
            "Replicated?": {"Replicas": int},
            "Global?": {},
            "ReplicatedJob?": {"MaxConcurrent": int, "TotalCompletions": int},
            "GlobalJob?": {},
        },
        "EndpointSpec?": {"Mode": str, "Ports?": [PUBLISHED]},
    },
    "Endpoint": {"Spec?": {"Mode?": str, "Ports?": [PUBLISHED]}, "Ports?": [PUBLISHED]},
    "ServiceStatus?": {"RunningTasks": int, "DesiredTasks": int, "CompletedTasks": int},
}
TASK = {
    **DATED,
    "Labels?": LABELS,
    "Spec": SPEC_OF_TASK,
    "ServiceID": str,
    "Slot?": int,
    "NodeID?": str,
    "Status": {
        "Timestamp": str,
        "State": str,
        "Message": str,
        "Err?": str,
        "ContainerStatus?": {"ContainerID": str, "PID": int, "ExitCode": int},
    },
    "DesiredState": str,
    "NetworksAttachments?": [{"Network": {"ID": str}, "Addresses": WORDS}],
}
NODE = {
    **DATED,
    "Spec": {"Name?": str, "Labels": LABELS, "Role": str, "Availability": str},
    "Description": {
        "Hostname": str,
        "Platform": {"Architecture": str, "OS": str},
        "Resources": {"NanoCPUs": int, "MemoryBytes": int},
        "Engine": {"EngineVersion": str, "Labels?": LABELS, "Plugins?": [{"Type": str, "Name": str}]},
    },
    "Status": {"State": str, "Addr": str, "Message?": str},
    "ManagerStatus?": {"Leader?": bool, "Reachability": str, "Addr": str},
}
CONTENT = {**DATED, "Spec": {"Name": str, "Labels": LABELS}}


def misfits(value: Any, kind: Any, path: str = "") -> Iterator[str]:
    """What of *value* is not as *kind* has it, each with its path."""
    if kind is None:
        return
    if isinstance(kind, Maybe):
        if value is not None:
            yield from misfits(value, kind.kind, path)
    elif isinstance(kind, Table):
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no object"
            return
        for key, one in value.items():
            yield from misfits(one, kind.kind, f"{path}.{key}")
    elif isinstance(kind, dict):
        yield from _fields(value, kind, path)
    elif isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is not a list"
            return
        for number, one in enumerate(value):
            yield from misfits(one, kind[0], f"{path}[{number}]")
    elif kind is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            yield f"{path}: {value!r} is not a number"
    elif type(value) is not kind:
        yield f"{path}: {value!r} is no {kind.__name__}"


def _fields(value: Any, kind: dict[str, Any], path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is no object"
        return
    for name, of in kind.items():
        key = name.removesuffix("?")
        if key in value:
            yield from misfits(value[key], of, f"{path}.{key}")
        elif not name.endswith("?"):
            yield f"{path}.{key} is missing"
