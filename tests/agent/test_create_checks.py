"""The rules by which create and update requests are refused, each broken by itself. Source: Docker Engine API v1.48."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api import checks
from agent.errors import BadRequestError

MIB = 1 << 20
CPUS = os.cpu_count() or 1
MOUNT = 'invalid mount config for type "{}": {}'.format


def host(**fields: Any) -> dict[str, Any]:
    return {"HostConfig": fields}


def mount(**fields: Any) -> dict[str, Any]:
    return host(Mounts=[{"Type": "bind", "Target": "/t", "Source": "/", **fields}])


def endpoint(**fields: Any) -> dict[str, Any]:
    return {"NetworkingConfig": {"EndpointsConfig": {"net": fields}}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    (host(RestartPolicy={"Name": "sometimes"}), "invalid restart policy 'sometimes'"),
    (
        host(RestartPolicy={"Name": "always", "MaximumRetryCount": 1}),
        "maximum retry count cannot be used with restart policy 'always'",
    ),
    (host(RestartPolicy={"Name": "on-failure", "MaximumRetryCount": -1}), "maximum retry count cannot be negative"),
    (host(AutoRemove=True, RestartPolicy={"Name": "always"}), "can't create 'AutoRemove' container with restart policy"),
    (host(Memory=6 * MIB - 1), "Minimum memory limit allowed is 6MB"),
    (host(MemoryReservation=1), "Minimum memory reservation allowed is 6MB"),
    (host(Memory=6 * MIB, MemoryReservation=7 * MIB), "Minimum memory limit can not be less than memory reservation limit"),
    (host(MemorySwap=9 * MIB), "You should always set the Memory limit when using Memoryswap limit"),
    (host(Memory=8 * MIB, MemorySwap=7 * MIB), "Minimum memoryswap limit should be larger than memory limit"),
    (host(MemorySwappiness=101), "Invalid value: 101, valid memory swappiness range is 0-100"),
    (host(MemorySwappiness=-2), "Invalid value: -2, valid memory swappiness range is 0-100"),
    (host(OomScoreAdj=1001), "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
    (host(ShmSize=-1), "SHM size can not be less than 0"),
    (host(NanoCpus=1, CpuQuota=1000), "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
    (host(NanoCpus=(CPUS + 1) * 10**9), f"Range of CPUs is from 0.01 to {CPUS}.00"),
    (host(NanoCpus=-1), f"Range of CPUs is from 0.01 to {CPUS}.00"),
    (host(CpuPeriod=999), "CPU cfs period can not be less than 1ms"),
    (host(CpuPeriod=10**6 + 1), "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s"),
    (host(CpuQuota=999), "CPU cfs quota can not be less than 1ms"),
    (host(CpuShares=-1), "invalid CPU shares (-1): value must be a positive integer"),
    (host(CpusetCpus="0-"), "Invalid value 0- for cpuset cpus"),
    (host(CpusetMems="a"), "Invalid value a for cpuset mems"),
    (host(CpusetCpus=f"0-{CPUS}"), "Requested CPUs are not available"),
    (host(HugepageLimits={"3m": "6m"}), "HugepageLimits: "),
    (host(BlkioWeight=9), "Range of blkio weight is from 10 to 1000"),
    (host(IpcMode="container:"), "invalid IPC mode: container:"),
    (host(UTSMode="container:a"), "invalid UTS mode: container:a"),
    (host(PidMode="mine"), "invalid PID mode: mine"),
    (host(CgroupnsMode="shared"), "invalid cgroup namespace mode: shared"),
    (host(Isolation="hyperv"), "linux only supports 'default'"),
    (host(CapAdd=["CAP_FLY"]), 'invalid CapAdd: unknown capability: "CAP_FLY"'),
    (host(CapDrop=["fly"]), 'invalid CapDrop: unknown capability: "CAP_FLY"'),
    (host(ExtraHosts=["a"]), 'bad format for add-host: "a"'),
    (host(ExtraHosts=[":10.0.0.1"]), 'bad format for add-host: ":10.0.0.1"'),
    (host(ExtraHosts=["a:b"]), 'invalid IP address in add-host: "b"'),
    (host(SecurityOpt=["seccomp"]), 'invalid --security-opt 2: "seccomp"'),
    (host(SecurityOpt=["no-new-privileges=maybe"]), 'invalid --security-opt 2: "no-new-privileges=maybe"'),
    (host(LogConfig={"Type": "pigeon"}), 'plugin "pigeon" not found'),
    (host(LogConfig={"Type": "none", "Config": {"max-size": "1m"}}), "unknown log opt 'max-size' for none log driver"),
    (host(LogConfig={"Config": {"mode": "fast"}}), "logging mode not supported: fast"),
    (host(LogConfig={"Config": {"max-buffer-size": "1m"}}), "max-buffer-size option is only supported with"),
    (host(LogConfig={"Config": {"compress": "perhaps"}}), "log opt compress: perhaps: true or false"),
    (host(LogConfig={"Type": "syslog", "Config": {"syslog-address": "smoke://hill"}}), "smoke"),
    (host(Binds=["/a:/b:fast"]), "invalid mode: fast"),
    (host(Binds=["/a:b"]), "invalid mount path: 'b' mount path must be absolute"),
    (host(Binds=["v:/"]), "invalid mount config for type \"volume\": invalid specification: destination can't be '/'"),
    (host(Binds=["vv:/b/", "b"]), "invalid mount path: 'b' mount path must be absolute"),
    (host(Binds=["a:/b"]), "volume name is too short"),
    (host(Binds=["..:/b"]), "includes invalid characters for a local volume name"),
    (host(Binds=["/a:/b:nocopy"]), "nocopy is for volumes"),
    (host(Binds=["/a:/b", "vv:/b/"]), "Duplicate mount point: /b"),
    (host(Binds=["/a:/b"], Tmpfs={"/b": ""}), "Duplicate mount point: /b"),
    (host(StorageOpt={"colour": "red"}), "Unknown option colour"),
    (host(StorageOpt={"size": "large"}), "invalid size: 'large'"),
    (mount(Type="npipe"), MOUNT("npipe", "mount type unknown")),
    (mount(Target=""), MOUNT("bind", "field Target must not be empty")),
    (mount(Target="t"), MOUNT("bind", "invalid mount path: 't' mount path must be absolute")),
    (mount(Source=""), MOUNT("bind", "field Source must not be empty")),
    (mount(Type="image", Source=""), MOUNT("image", "field Source must not be empty")),
    (mount(Source="a"), MOUNT("bind", "invalid mount path: 'a' mount path must be absolute")),
    (mount(Source="/no/such"), MOUNT("bind", "bind source path does not exist: /no/such")),
    (mount(Type="volume", Source="v"), "volume name is too short"),
    (mount(Type="tmpfs"), MOUNT("tmpfs", "field Source must not be specified")),
    (mount(VolumeOptions={"NoCopy": True}), MOUNT("bind", "field VolumeOptions must not be specified")),
    (
        mount(Type="volume", Source="vol", BindOptions={"Propagation": "private"}),
        MOUNT("volume", "field BindOptions must not be specified"),
    ),
    (mount(BindOptions={"Propagation": "wide"}), MOUNT("bind", "invalid propagation mode: wide")),
    (mount(Target="/"), "invalid mount: destination can't be '/'"),
    (
        host(NetworkMode="container:a") | {"Hostname": "b"},
        "conflicting options: hostname and the network mode",
    ),
    (host(NetworkMode="container:a", Links=["b"]), "conflicting options: link and the network mode"),
    (host(NetworkMode="container:a", Dns=["10.0.0.1"]), "conflicting options: dns and the network mode"),
    (
        host(NetworkMode="container:a", ExtraHosts=["b:10.0.0.1"]),
        "conflicting options: custom host-to-IP mapping and the network mode",
    ),
    (
        host(NetworkMode="container:a", PublishAllPorts=True),
        "conflicting options: port publishing and the container type network mode",
    ),
    (
        host(NetworkMode="container:a") | {"ExposedPorts": {"80/tcp": {}}},
        "conflicting options: port exposing and the container type network mode",
    ),
    (host(NetworkMode="host", Links=["b"]), "conflicting options: host type networking can't be used with links"),
    (host(UTSMode="host") | {"Hostname": "b"}, "conflicting options: hostname and the UTS mode"),
    ({"ExposedPorts": {"0/tcp": {}}}, 'invalid port specification: "0"'),
    ({"ExposedPorts": {"65536": {}}}, 'invalid port specification: "65536"'),
    ({"ExposedPorts": {"80/icmp": {}}}, "invalid proto: icmp"),
    (
        host(PortBindings={"80/tcp": [{"HostPort": "70000"}]}),
        "invalid port specification: port 70000 does not exist, for 80/tcp",
    ),
    (host(PortBindings={"80/tcp": [{"HostPort": "x"}]}), "invalid port specification: port x does not exist, for 80/tcp"),
    (host(PortBindings={"80/tcp": [{"HostIp": "here"}]}), "port 80/tcp: 'here' is not an IP address"),
    ({"Env": ["=b"]}, "invalid environment variable: =b"),
    ({"WorkingDir": "here"}, "the working directory 'here' is invalid, it needs to be an absolute path"),
    ({"MacAddress": "1"}, "invalid MAC address: 1"),
    ({"StopSignal": "SIGHAPPY"}, "SIGHAPPY"),
    ({"Healthcheck": {"Interval": 1}}, "Interval in Healthcheck cannot be less than 1ms"),
    ({"Healthcheck": {"StartPeriod": -1}}, "StartPeriod in Healthcheck cannot be less than 1ms"),
    ({"Healthcheck": {"Retries": -1}}, "Retries in Healthcheck cannot be negative"),
    ({"Healthcheck": {"Test": ["ASK", "x"]}}, "Unknown healthcheck type 'ASK'"),
    ({"StopTimeout": -2}, "StopTimeout -2: seconds, or -1 to wait for ever"),
    (endpoint(MacAddress="1"), "invalid endpoint settings for network net: invalid MAC address: 1"),
    (endpoint(IPAMConfig={"IPv4Address": "fd00::1"}), "'fd00::1' is not an IP address of version 4"),
    (endpoint(IPAMConfig={"IPv6Address": "x"}), "'x' is not an IP address of version 6"),
    (endpoint(IPAMConfig={"LinkLocalIPs": ["x"]}), "'x' is not an IP address"),
    ({"Volumes": {"data": {}}}, "invalid volume specification: 'data': invalid mount path: 'data' mount path must be absolute"),
    ({"Volumes": {"/": {}}}, "invalid volume specification: '/': destination can't be '/'"),
    (host(Tmpfs={"t": ""}), "invalid mount path: 't' mount path must be absolute"),
]


@pytest.mark.parametrize(("body", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_rule_that_is_broken_is_named(body: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequestError) as found:
        checks.create(body)
    assert said in str(found.value)


ACCEPTED: list[dict[str, Any]] = [
    {},
    host(RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 3}),
    host(AutoRemove=True, RestartPolicy={"Name": "no"}),
    host(Memory=6 * MIB, MemorySwap=-1, MemoryReservation=6 * MIB, MemorySwappiness=0, OomScoreAdj=-1000, ShmSize=0),
    host(NanoCpus=CPUS * 10**9, CpusetCpus="0", CpusetMems="0", BlkioWeight=10, HugepageLimits={"2MB": "4m"}),
    host(CpuPeriod=1000, CpuQuota=-1, CpuShares=2),
    host(IpcMode="container:a", PidMode="container:a", UTSMode="host", CgroupnsMode="private", Isolation="default"),
    host(CapAdd=["all", "NET_RAW", "cap_chown"], CapDrop=["ALL"]),
    host(ExtraHosts=["a:10.0.0.1", "b:host-gateway", "c:[fd00::1]", "d:fd00::1"]),
    host(SecurityOpt=["no-new-privileges", "no-new-privileges:true", "label=disable", "seccomp=unconfined"]),
    host(LogConfig={"Type": "local", "Config": {"mode": "non-blocking", "max-buffer-size": "1m", "compress": "T"}}),
    host(LogConfig={"Type": "syslog", "Config": {"syslog-address": "udp://10.0.0.1:514"}}),
    host(Binds=["/a:/b:ro,rslave", "vol:/c:nocopy", "/d"], Tmpfs={"/t": "size=1m"}, StorageOpt={"size": "10g"}),
    mount(Source="/no/such", BindOptions={"CreateMountpoint": True, "Propagation": "rshared"}),
    mount(Type="tmpfs", Source="", TmpfsOptions={"SizeBytes": 1}),
    mount(Type="volume", Source="", VolumeOptions={"NoCopy": True}),
    mount(Type="image", Source="busybox", ImageOptions={"Subpath": "bin"}),
    host(NetworkMode="container:a"),
    host(NetworkMode="host") | {"Hostname": "b"},
    {"ExposedPorts": {"80": {}, "65535/sctp": {}}},
    host(PortBindings={"80/tcp": [{"HostPort": "8000-8010", "HostIp": "::1"}, {"HostPort": "", "HostIp": ""}], "81/udp": []}),
    {"Env": ["A", "B="], "WorkingDir": "/", "MacAddress": "02-42-ac-11-00-02", "StopSignal": "TERM", "StopTimeout": -1},
    {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 10**6, "Retries": 0}},
    endpoint(MacAddress="02:42:ac:11:00:02", IPAMConfig={"IPv4Address": "10.0.0.1", "IPv6Address": "fd00::1"}),
    {"Volumes": {"/data": {}}},
]


@pytest.mark.parametrize("body", ACCEPTED, ids=str)
def test_what_breaks_none_passes(body: dict[str, Any]) -> None:
    checks.create(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"RestartPolicy": {"Name": "x"}}, "invalid restart policy 'x'"),
        ({"Memory": 1}, "Minimum memory limit allowed is 6MB"),
        ({"CpuShares": -1}, "invalid CPU shares (-1)"),
    ],
)
def test_an_update_is_held_to_the_same(body: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequestError) as found:
        checks.update(body)
    assert said in str(found.value)
    checks.update({})


@pytest.mark.parametrize(
    ("asked", "warned"),
    [
        ({}, 0),
        ({"NetworkMode": "host"}, 0),
        ({"NetworkMode": "host", "PublishAllPorts": True}, 1),
        ({"NetworkMode": "host", "PortBindings": {"80/tcp": []}, "OomKillDisable": True}, 2),
        ({"OomKillDisable": True, "Memory": 6 * MIB}, 0),
    ],
)
def test_what_is_fulfilled_all_the_same_has_a_warning(asked: dict[str, Any], warned: int) -> None:
    assert len(list(checks.warnings(asked))) == warned


@given(st.text(max_size=300))
def test_a_name_has_docker_s_characters(text: str) -> None:
    good = 2 <= len(text) <= 255 and text[0].isascii() and text[0].isalnum()
    good = good and all(c.isascii() and (c.isalnum() or c in "_.-") for c in text)
    if good:
        checks.name(text)
    else:
        with pytest.raises(BadRequestError, match="Invalid container name"):
            checks.name(text)
