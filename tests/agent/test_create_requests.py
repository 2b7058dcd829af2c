"""A create request of the Engine API, and the Container that it describes. Source: Docker Engine API v1.48, ContainerCreate."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from agent.api import checks, translate
from agent.contract.container import Attachment, Container, Device, DeviceRate, DeviceRequest, Mount, Port, Ulimit
from agent.errors import BadRequestError


def container(body: dict[str, Any] | None = None, **host: Any) -> Container:
    return translate.container(translate.named({"Image": "a", **(body or {}), "HostConfig": host}))


BODY: dict[str, tuple[dict[str, Any], str, Any]] = {
    "an entrypoint of one empty word is an empty one": ({"Entrypoint": [""]}, "entrypoint", ()),
    "an entrypoint that is left out is the image's": ({"Entrypoint": []}, "entrypoint", None),
    "a command": ({"Cmd": ["sh", "-c"]}, "command", ("sh", "-c")),
    "variables": ({"Env": ["A=b=c", "B="]}, "environment", (("A", "b=c"), ("B", ""))),
    "a variable without a value is dropped": ({"Env": ["A"]}, "environment_dropped", ("A",)),
    "ten seconds to end": ({}, "stop_grace_s", 10.0),
    "no time to end": ({"StopTimeout": 0}, "stop_grace_s", 0.0),
    "all the time to end": ({"StopTimeout": -1}, "stop_grace_s", translate.FOR_EVER_S),
    "labels": ({"Labels": {"b": "2", "a": "1"}}, "labels", (("a", "1"), ("b", "2"))),
    "ports that it listens on": ({"ExposedPorts": {"80/tcp": {}}}, "expose", ("80/tcp",)),
    "a volume without a name": ({"Volumes": {"/data": {}}}, "mounts", (Mount(kind="volume", target="/data"),)),
}


@pytest.mark.parametrize(("body", "field", "expected"), BODY.values(), ids=BODY)
def test_the_request(body: dict[str, Any], field: str, expected: Any) -> None:
    assert getattr(container(body), field) == expected


BIND = Mount(kind="bind", source="/a", target="/b", create_host_path=True)
HOST: dict[str, tuple[dict[str, Any], str, Any]] = {
    "a bind of a path": ({"Binds": ["/a:/b"]}, "mounts", (BIND,)),
    "a bind of a volume, read only": (
        {"Binds": ["v:/b:ro,nocopy"]},
        "mounts",
        (Mount(kind="volume", source="v", target="/b", read_only=True, nocopy=True),),
    ),
    "a bind that receives mounts": (
        {"Binds": ["/a:/b:rslave"]},
        "mounts",
        (Mount(kind="bind", source="/a", target="/b", create_host_path=True, propagation="rslave"),),
    ),
    "a mount in the long form": (
        {"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 9, "Options": [["noexec"], ["a", "b"]]}}]},
        "mounts",
        (Mount(kind="tmpfs", target="/t", size=9, mode=0o1777, options=("noexec", "a=b")),),
    ),
    "a part of a volume": (
        {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/b", "VolumeOptions": {"Subpath": "in"}}]},
        "mounts",
        (Mount(kind="volume", source="v", target="/b", subpath="in", mode=0o1777),),
    ),
    "a tmpfs": ({"Tmpfs": {"/t": "size=9,ro"}}, "mounts", (Mount(kind="tmpfs", target="/t", options=("size=9", "ro")),)),
    "a port": (
        {"PortBindings": {"80/tcp": [{"HostPort": "8080", "HostIp": "127.0.0.1"}]}},
        "ports",
        (Port(target=80, published=8080, protocol="tcp", host_ip="127.0.0.1"),),
    ),
    "a port anywhere": ({"PortBindings": {"80": None}}, "ports", (Port(target=80, published=0, protocol="tcp"),)),
    "the network of the host": ({"NetworkMode": "host"}, "network_mode", "host"),
    "the network of another": ({"NetworkMode": "container:x"}, "network_mode", "container:x"),
    "a network by name is an attachment": ({"NetworkMode": "n"}, "attachments", (Attachment(network="n"),)),
    "the bridge is none": ({"NetworkMode": "default"}, "attachments", ()),
    "CPUs": ({"NanoCpus": 1_500_000_000}, "cpus", 1.5),
    "processes without limit": ({"PidsLimit": -1}, "pids", 0),
    "swappiness of 0": ({"MemorySwappiness": 0}, "swappiness", 0),
    "no swappiness": ({"MemorySwappiness": -1}, "swappiness", None),
    "64 MiB of shared memory": ({}, "shm_size", 64 << 20),
    "limits of processes": (
        {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}]},
        "ulimits",
        (Ulimit(name="nofile", soft=1, hard=2),),
    ),
    "rates of devices": (
        {"BlkioDeviceReadBps": [{"Path": "/dev/x", "Rate": 7}], "BlkioWeightDevice": [{"Path": "/dev/y", "Weight": 9}]},
        "blkio",
        (DeviceRate(what="weight", path="/dev/y", rate=9), DeviceRate(what="read_bps", path="/dev/x", rate=7)),
    ),
    "a device": (
        {"Devices": [{"PathOnHost": "/dev/x"}]},
        "devices",
        (Device(source="/dev/x", target="/dev/x", permissions="rwm"),),
    ),
    "all GPUs": (
        {"DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]},
        "device_requests",
        (DeviceRequest(driver="nvidia", count=-1, ids=(), capabilities=("gpu",)),),
    ),
    "restarts": ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}, "restart_max", 3),
    "no path is hidden": ({"MaskedPaths": [], "ReadonlyPaths": []}, "security_opt", ("systempaths=unconfined",)),
    "a user namespace in Podman's word": ({"UsernsMode": "private"}, "userns_mode", "auto"),
    "the log's driver": ({"LogConfig": {"Type": "", "Config": {"max-size": "1m"}}}, "log_driver", "json-file"),
    "names of others": ({"Links": ["db:database", "cache"]}, "links", (("database", "db"), ("cache", "cache"))),
    "hosts": ({"ExtraHosts": ["a:1.2.3.4", "b:::1"]}, "extra_hosts", (("a", "1.2.3.4"), ("b", "::1"))),
}


@pytest.mark.parametrize(("host", "field", "expected"), HOST.values(), ids=HOST)
def test_its_host_config(host: dict[str, Any], field: str, expected: Any) -> None:
    assert getattr(container(**host), field) == expected


def test_endpoints_have_their_settings_and_the_first_is_that_of_the_mode() -> None:
    ipam = {"IPv4Address": "10.0.0.9", "LinkLocalIPs": ["169.254.1.1"]}
    endpoints = {"b": {"Aliases": ["x"], "GwPriority": 7}, "a": {"IPAMConfig": ipam, "MacAddress": "02:00:00:00:00:01"}}
    made = container({"NetworkingConfig": {"EndpointsConfig": endpoints}}, NetworkMode="a")
    first = Attachment(network="a", ipv4="10.0.0.9", link_local=("169.254.1.1",), mac="02:00:00:00:00:01")
    assert made.attachments == (first, Attachment(network="b", aliases=("x",), gw_priority=7))


def test_a_hardware_address_of_the_request_is_that_of_its_only_network() -> None:
    assert container({"MacAddress": "02:00:00:00:00:02"}).attachments == (
        Attachment(network="bridge", mac="02:00:00:00:00:02"),
    )


def test_a_network_that_is_disabled() -> None:
    made = container({"NetworkDisabled": True, "NetworkingConfig": {"EndpointsConfig": {"a": {}}}})
    assert (made.network_mode, made.attachments) == ("none", ())


@pytest.mark.parametrize(
    ("document", "interval_s", "retries"), [({"Test": ["NONE"]}, 30.0, 3), ({"Interval": 5_000_000_000, "Retries": 7}, 5.0, 7)]
)
def test_a_healthcheck_in_nanoseconds(document: dict[str, Any], interval_s: float, retries: int) -> None:
    made = container({"Healthcheck": document}).healthcheck
    assert made
    assert (made.interval_s, made.retries) == (interval_s, retries)


def test_of_a_range_of_ports_the_first_that_is_free() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        made = container(PortBindings={"80/tcp": [{"HostPort": f"{port}-{port + 20}"}]})
        assert port < made.ports[0].published <= port + 20


def test_all_that_is_exposed_is_published_once() -> None:
    made = translate.all_published(container(PortBindings={"80/tcp": [{"HostPort": "1"}]}), ["80/tcp", "53/udp", "53/udp"])
    assert [(p.target, p.protocol, p.published) for p in made.ports] == [(80, "tcp", 1), (53, "udp", 0)]


def test_binds_say_whose_label_their_source_gets() -> None:
    made = container(Binds=["/a:/a:z", "/b:/b:ro,Z", "v:/v:Z", "/c:/c"])
    assert [(m.kind, m.selinux, m.read_only) for m in made.mounts] == [
        ("bind", "z", False),
        ("bind", "Z", True),
        ("volume", "Z", False),
        ("bind", "", False),
    ]


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ({"Binds": ["/a:/a:z,Z"]}, "invalid mode: z,Z"),
        (
            {"SecurityOpt": ["label=kind:x"]},
            "bad label option \"kind\", valid options 'disable, user, role, type, level, filetype'",
        ),
        ({"SecurityOpt": ["label:disabled"]}, 'bad label option "disabled", valid options'),
        ({"SecurityOpt": ['label=level:s0",x="']}, "bad label option"),
        ({"SecurityOpt": ["label="]}, "invalid --security-opt"),
    ],
)
def test_labels_that_are_none_are_refused(host: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRequestError) as error:
        checks.create({"HostConfig": host})
    assert why in str(error.value)
    checks.create({"HostConfig": {"Binds": ["/a:/a:Z"], "SecurityOpt": ["label=type:a_t", "label:disable"]}})


def test_what_cannot_be_made() -> None:
    with pytest.raises(BadRequestError, match="Image is missing"):
        translate.container(translate.named({}))
    with pytest.raises(BadRequestError, match="UsernsMode 'x'"):
        container(UsernsMode="x")
