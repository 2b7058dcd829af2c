"""Containers: every parameter of create, and every verb."""

from __future__ import annotations

import threading
import time
from typing import Any

from docker.types import DeviceRequest, EndpointConfig, Healthcheck, LogConfig, Mount, Ulimit

from tests.beside.look import IMAGE, SLEEP, Look, members, plain, skeleton, stat, tar

HOST: dict[str, dict[str, Any]] = {
    "binds": {"binds": {"/usr/share": {"bind": "/b", "mode": "ro"}}},
    "bind list": {"binds": ["/usr/share:/b:rw", "/usr/lib:/u"]},
    "bind propagation": {"binds": {"/usr/share": {"bind": "/b", "propagation": "rslave"}}},
    "port": {"port_bindings": {80: None}},
    "port fixed": {"port_bindings": {"81/udp": 18081}},
    "ports of a host": {"port_bindings": {82: ("127.0.0.1", 18082)}},
    "ports twice": {"port_bindings": {83: [18083, 18084]}},
    "lxc": {"publish_all_ports": True},
    "links": {},
    "privileged": {"privileged": True},
    "dns": {"dns": ["8.8.8.8"]},
    "dns search": {"dns_search": ["example.org"]},
    "dns options": {"dns_opt": ["ndots:2"]},
    "volumes from": {},
    "host network": {"network_mode": "host"},
    "no network": {"network_mode": "none"},
    "bridge": {"network_mode": "bridge"},
    "default network": {"network_mode": "default"},
    "restart": {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 5}},
    "restart always": {"restart_policy": {"Name": "always"}},
    "restart unless": {"restart_policy": {"Name": "unless-stopped"}},
    "restart on failure": {"restart_policy": {"Name": "on-failure"}},
    "cap": {"cap_add": ["SYS_ADMIN", "NET_ADMIN"], "cap_drop": ["MKNOD"]},
    "caps": {"cap_add": ["ALL"], "cap_drop": ["all"]},
    "devices": {"devices": ["/dev/null:/dev/xnull:rwm", "/dev/zero"]},
    "extra hosts": {"extra_hosts": {"a": "1.2.3.4", "b": "::1"}},
    "extra host list": {"extra_hosts": ["a:1.2.3.4"]},
    "read only": {"read_only": True},
    "pid": {"pid_mode": "host"},
    "ipc host": {"ipc_mode": "host"},
    "ipc": {"ipc_mode": "shareable"},
    "ipc none": {"ipc_mode": "none"},
    "ipc private": {"ipc_mode": "private"},
    "security": {"security_opt": ["no-new-privileges"]},
    "unconfined": {"security_opt": ["seccomp=unconfined"]},
    "label": {"security_opt": ["label=disable"]},
    "ulimits": {"ulimits": [Ulimit(name="nofile", soft=100, hard=200), {"name": "core", "soft": 0, "hard": -1}]},
    "log": {"log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m", "max-file": "2", "labels": "a"})},
    "log none": {"log_config": LogConfig(type="none")},
    "log local": {"log_config": LogConfig(type="local")},
    "memory": {"mem_limit": "64m"},
    "memory swap": {"mem_limit": "64m", "memswap_limit": "128m"},
    "memory unlimited swap": {"mem_limit": "64m", "memswap_limit": -1},
    "reservation": {"mem_limit": "64m", "mem_reservation": "32m"},
    "swappiness": {"mem_swappiness": 40},
    "shm": {"shm_size": "32m"},
    "shm number": {"shm_size": 1 << 25},
    "cpu group": {"cpu_period": 100_000, "cpu_quota": 50_000},
    "cpu shares": {"cpu_shares": 512},
    "cpuset": {"cpuset_cpus": "0"},
    "cpuset mems": {"cpuset_mems": "0"},
    "nano": {"nano_cpus": 10**9},
    "blkio": {"blkio_weight": 300},
    "blkio read": {"device_read_bps": [{"Path": "/dev/vda", "Rate": 1 << 20}]},
    "blkio write": {"device_write_iops": [{"Path": "/dev/vda", "Rate": 1000}]},
    "oom": {"oom_score_adj": 100},
    "oom kill": {"oom_kill_disable": True, "mem_limit": "64m"},
    "pids": {"pids_limit": 100},
    "sysctls": {"sysctls": {"net.core.somaxconn": 1024, "net.ipv4.tcp_syncookies": "0"}},
    "group": {"group_add": ["audio", 999]},
    "tmpfs": {"tmpfs": {"/t": "size=1m,mode=1770"}},
    "tmpfs list": {"tmpfs": ["/t:size=1m", "/u"]},
    "init": {"init": True},
    "auto remove": {"auto_remove": True},
    "uts": {"uts_mode": "host"},
    "userns": {"userns_mode": "host"},
    "cgroup parent": {"cgroup_parent": "/beside"},
    "cgroup rules": {"device_cgroup_rules": ["c 7:* rwm"]},
    "runtime": {"runtime": "runc"},
    "isolation": {"isolation": "default"},
    "cgroupns": {"cgroupns": "private"},
    "volume driver": {"volume_driver": "local"},
    "mount bind": {"mounts": [Mount("/m", "/usr/share", type="bind", read_only=True)]},
    "mount volume": {"mounts": [Mount("/m", "beside-mounted", no_copy=True, labels={"a": "b"})]},
    "mount anonymous": {"mounts": [Mount("/m", None)]},
    "mount tmpfs": {"mounts": [Mount("/m", None, type="tmpfs", tmpfs_size="1m", tmpfs_mode=0o1770)]},
    "mount propagation": {"mounts": [Mount("/m", "/usr/share", type="bind", propagation="rslave")]},
    "device request": {"device_requests": [DeviceRequest(count=-1, capabilities=[["gpu"]])]},
    "lxc conf": {"storage_opt": {"size": "1G"}},
    "cpu count": {"cpu_count": 1},
    "cpu percent": {"cpu_percent": 10},
    "kernel memory": {"kernel_memory": "64m"},
    "rt": {"cpu_rt_runtime": 1000, "cpu_rt_period": 100_000},
}
BAD: dict[str, dict[str, Any]] = {
    "restart": {"restart_policy": {"Name": "bogus"}},
    "restart count": {"restart_policy": {"Name": "always", "MaximumRetryCount": 2}},
    "network": {"network_mode": "container:nosuch"},
    "ipc": {"ipc_mode": "container:nosuch"},
    "pid": {"pid_mode": "container:nosuch"},
    "links": {"links": [("nosuch", "a")]},
    "volumes from": {"volumes_from": ["nosuch"]},
    "memory": {"mem_limit": "1m"},
    "swap": {"memswap_limit": "64m"},
    "small swap": {"mem_limit": "64m", "memswap_limit": "32m"},
    "cpus": {"nano_cpus": 10**12},
    "cpuset": {"cpuset_cpus": "99"},
    "cpuset words": {"cpuset_cpus": "a"},
    "swappiness": {"mem_swappiness": 200},
    "blkio": {"blkio_weight": 5},
    "log": {"log_config": LogConfig(type="bogus")},
    "log option": {"log_config": LogConfig(config={"x": "y"})},
    "log size": {"log_config": LogConfig(config={"max-size": "big"})},
    "log file": {"log_config": LogConfig(config={"max-file": "0"})},
    "log mode": {"log_config": LogConfig(config={"mode": "never"})},
    "log compress": {"log_config": LogConfig(config={"compress": "maybe"})},
    "log syslog": {"log_config": LogConfig(type="syslog", config={"syslog-facility": "bogus"})},
    "log fluentd": {"log_config": LogConfig(type="fluentd")},
    "security": {"security_opt": ["bogus=1"]},
    "cap": {"cap_add": ["BOGUS"]},
    "device": {"devices": ["/dev/nosuch"]},
    "bind": {"binds": ["relative/x:/y"]},
    "bind mode": {"binds": ["/tmp:/y:bogus"]},
    "bind target": {"binds": ["/tmp:y"]},
    "bind twice": {"binds": ["/tmp:/y", "/usr:/y"]},
    "root": {"binds": ["/tmp:/"]},
    "ulimit": {"ulimits": [{"name": "bogus", "soft": 1, "hard": 1}]},
    "ulimit order": {"ulimits": [{"name": "nofile", "soft": 9, "hard": 1}]},
    "sysctl": {"sysctls": {"kernel.bogus": "1"}},
    "shm": {"shm_size": -1},
    "runtime": {"runtime": "bogus"},
    "extra": {"extra_hosts": ["a"]},
    "dns": {"dns": ["bogus"]},
    "group": {"group_add": ["nosuchgroup"]},
    "userns": {"userns_mode": "bogus"},
    "tmpfs": {"tmpfs": {"/t": "bogus=1"}},
    "tmpfs path": {"tmpfs": {"t": ""}},
    "mount type": {"mounts": [{"Type": "bogus", "Target": "/m"}]},
    "mount target": {"mounts": [{"Type": "volume", "Source": "x", "Target": ""}]},
    "mount source": {"mounts": [Mount("/m", "/no/such/place", type="bind")]},
    "pids": {"pids_limit": -5},
    "oom score": {"oom_score_adj": 2000},
    "isolation": {"isolation": "hyperv"},
    "cgroupns": {"cgroupns": "bogus"},
    "device rule": {"device_cgroup_rules": ["bogus"]},
    "volume driver": {"binds": ["nosuchdrv:/v"], "volume_driver": "bogus"},
    "mount driver": {"mounts": [Mount("/m", "bs-baddrv", driver_config={"Name": "bogus"})]},
    "port": {"port_bindings": {70000: 1}},
    "auto remove": {"auto_remove": True, "restart_policy": {"Name": "always"}},
    "rw path": {"device_read_bps": [{"Path": "/dev/nosuch", "Rate": 1}]},
    "uts": {"uts_mode": "bogus"},
    "weight device": {"blkio_weight_device": [{"Path": "/dev/nosuch", "Weight": 100}]},
    "no network links": {"network_mode": "host", "links": [("a", "b")]},
}
CONFIG: dict[str, dict[str, Any]] = {
    "hostname": {"hostname": "hh"},
    "domain": {"hostname": "hh", "domainname": "example.org"},
    "user": {"user": "app"},
    "user ids": {"user": "1000:29"},
    "tty": {"tty": True, "stdin_open": True},
    "ports": {"ports": [80, (53, "udp")]},
    "environment": {"environment": {"A": "1", "B": None, "C": ""}},
    "environment list": {"environment": ["A=1", "B", "C=a=b"]},
    "volumes": {"volumes": ["/data", "/srv"]},
    "network disabled": {"network_disabled": True},
    "entrypoint": {"entrypoint": "echo a b"},
    "entrypoint list": {"entrypoint": ["echo", "a b"]},
    "no entrypoint": {"entrypoint": ""},
    "working dir": {"working_dir": "/tmp"},
    "mac": {"mac_address": "02:42:ac:11:00:99"},
    "labels": {"labels": {"a": "1", "b": ""}},
    "label list": {"labels": ["a", "b"]},
    "signal": {"stop_signal": "SIGINT"},
    "signal number": {"stop_signal": "9"},
    "timeout": {"stop_timeout": 3},
    "health": {"healthcheck": Healthcheck(test="true", interval=10**9, timeout=10**9, retries=2, start_period=10**9)},
    "health none": {"healthcheck": Healthcheck(test=["NONE"])},
    "health words": {"healthcheck": Healthcheck(test=["CMD", "true"])},
    "platform": {"platform": "linux/amd64"},
}
BAD_CONFIG: dict[str, dict[str, Any]] = {
    "name": {"name": "a/b"},
    "short name": {"name": "a"},
    "working dir": {"working_dir": "tmp"},
    "mac": {"mac_address": "xx"},
    "signal": {"stop_signal": "SIGBOGUS"},
    "health": {"healthcheck": {"test": ["BOGUS"]}},
    "health time": {"healthcheck": {"test": "true", "interval": 5}},
    "env": {"environment": ["=a"]},
    "platform": {"platform": "bogus/x"},
    "other platform": {"platform": "linux/arm64"},
    "volume": {"volumes": ["relative"]},
    "user": {"user": "nosuch"},
    "hostname": {"hostname": "a b"},
    "timeout": {"stop_timeout": -5},
    "health retries": {"healthcheck": {"test": "true", "retries": -1}},
    "port": {"ports": ["bogus"]},
}


def created_with_each_field_of_host_config(look: Look) -> None:
    for label, wish in HOST.items():
        wish = dict(wish)
        if label == "links":
            wish["links"] = {look.made(start=True, name=look.name("linked")): "alias"}
        if label == "volumes from":
            wish["volumes_from"] = [look.made(volumes=["/shared"], name=look.name("holder"))]
        try:
            made = look.made(host=wish)
        except Exception as error:
            look.see(f"{label} refused", getattr(getattr(error, "response", None), "status_code", str(error)))
            continue
        found = look.c.inspect_container(made)
        look.see(label, {k: v for k, v in found["HostConfig"].items() if k != "CgroupParent" or v == "/beside"})
        look.see(
            f"{label}: mounts",
            sorted(([m[k] for k in ("Type", "Destination", "Mode", "RW", "Propagation")] for m in found["Mounts"]), key=str),
        )


def started_with_each_field_of_host_config(look: Look) -> None:
    """What the program inside finds."""
    probes = {
        "dns": "cat /etc/resolv.conf",
        "read only": "touch /x 2>&1; echo $?",
        "shm": "df -k /dev/shm | tail -1 | awk '{print $2}'",
        "ulimits": "ulimit -n; ulimit -c",
        "extra hosts": "grep -E '1.2.3.4|::1.*b' /etc/hosts",
        "sysctls": "cat /proc/sys/net/core/somaxconn",
        "group": "id -G",
        "tmpfs": "grep ' /t ' /proc/mounts | cut -d' ' -f1-3; stat -c %a /t",
        "oom": "cat /proc/1/oom_score_adj",
        "cap": "grep Cap /proc/1/status",
        "caps": "grep CapEff /proc/1/status",
        "security": "grep NoNewPrivs /proc/1/status",
        "unconfined": "grep '^Seccomp:' /proc/1/status",
        "devices": "ls -l /dev/xnull /dev/zero | awk '{print $1,$5,$6}'",
        "init": "cat /proc/1/comm",
        "no network": "ls /sys/class/net; ls /sys/class/net | wc -l",
        "ipc none": "ls -d /dev/shm; df /dev/shm | tail -1 | awk '{print $6}'",
        "mount tmpfs": "stat -c %a /m; df -k /m | tail -1 | awk '{print $2}'",
        "dns search": "grep search /etc/resolv.conf",
        "dns options": "grep options /etc/resolv.conf",
        "privileged": "grep CapEff /proc/1/status; ls /dev | grep -c loop-control",
        "memory": "cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
        "pids": "cat /sys/fs/cgroup/pids/pids.max",
        "cpu group": "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        "swappiness": "cat /sys/fs/cgroup/memory/memory.swappiness",
        "cpuset": "cat /sys/fs/cgroup/cpuset/cpuset.cpus",
        "cpuset mems": "cat /sys/fs/cgroup/cpuset/cpuset.mems",
        "nano": "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        "reservation": "cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes",
        "binds": "touch /b/x 2>&1; echo $?",
        "bind propagation": "grep ' /b ' /proc/self/mountinfo | grep -o 'master' ",
        "cgroup rules": "cat /sys/fs/cgroup/devices/devices.list | grep '7:'",
    }
    for label, probe in probes.items():
        try:
            made = look.made(["sh", "-c", probe], host=HOST[label])
            look.c.start(made)
            look.see(f"{label}: ends", look.c.wait(made)["StatusCode"])
            look.see(label, look.c.logs(made))
        except Exception as error:
            look.see(f"{label} refused", getattr(getattr(error, "response", None), "status_code", str(error)))


def refused_host_config(look: Look) -> None:
    for label, wish in BAD.items():
        _tried(look, label, {"host": wish})


def _tried(look: Look, label: str, wish: dict[str, Any]) -> None:
    """Refused by create, by start, or by neither."""
    made = []

    def create() -> Any:
        made.append(look.made(**wish))

    look.fails(label, create)
    if made:
        look.fails(f"{label}: start", look.c.start, made[0])


def created_with_each_field_of_config(look: Look) -> None:
    for label, wish in CONFIG.items():
        look.see(label, look.c.inspect_container(made := look.made(**wish))["Config"])
        found = look.c.inspect_container(made)
        look.see(f"{label}: runs", [found["Path"], found["Args"]])


def inside_with_each_field_of_config(look: Look) -> None:
    probe = "id; hostname; pwd; env | grep -v HOSTNAME | sort; cat /etc/hostname; hostname -f 2>&1"
    for label in (
        "hostname",
        "domain",
        "user",
        "user ids",
        "environment",
        "environment list",
        "working dir",
        "entrypoint list",
        "mac",
    ):
        made = look.made(["sh", "-c", probe], **CONFIG[label])
        look.c.start(made)
        look.c.wait(made)
        look.see(label, look.c.logs(made))


def refused_config(look: Look) -> None:
    for label, wish in BAD_CONFIG.items():
        _tried(look, label, wish)
    look.fails("no image", look.c.create_container, "nosuchimage:x", "true")
    look.fails("bad image", look.c.create_container, "a/UPPER", "true")
    look.fails("no command", look.c.start, look.c.create_container(IMAGE, ["nosuchcommand"], name=(n := look.name()))["Id"])
    look.see("no command: state", {k: v for k, v in look.c.inspect_container(n)["State"].items() if k not in ("Pid", "Error")})
    look.later(look.c.remove_container, n, force=True)
    look.fails("folder", look.c.start, look.c.create_container(IMAGE, ["/etc"], name=(n := look.name()))["Id"])
    look.later(look.c.remove_container, n, force=True)
    taken = look.made()
    look.fails("name taken", look.made, name=look.c.inspect_container(taken)["Name"][1:])


def the_whole_of_an_inspection(look: Look) -> None:
    made = look.made(ports=[80], host={"port_bindings": {80: None}, "binds": ["/usr/share:/b"]}, labels={"a": "b"})
    found = look.c.inspect_container(made)
    for part in ("State", "NetworkSettings", "HostConfig", "Config", "Mounts"):
        look.see(f"created {part}", skeleton(found.pop(part)))
    look.see("created", skeleton(found))
    look.c.start(made)
    found = look.c.inspect_container(made)
    state = found.pop("State")
    look.see("running state", {k: v for k, v in state.items() if k != "Pid"})
    network = found.pop("NetworkSettings")
    network["SandboxKey"] = bool(network.get("SandboxKey"))
    network["Ports"] = skeleton(network["Ports"])
    look.see("running network", network)
    look.see(
        "running",
        {
            k: v
            for k, v in found.items()
            if k in ("Platform", "Driver", "RestartCount", "MountLabel", "ProcessLabel", "AppArmorProfile", "ExecIDs")
        },
    )
    # the shell has its trap before it has a child; TERM to the first process of a namespace without one is passed over
    while len(look.c.top(made)["Processes"]) < 2:
        time.sleep(0.05)
    look.c.stop(made, timeout=5)
    look.see("stopped state", look.c.inspect_container(made)["State"])
    look.see("stopped network", look.c.inspect_container(made)["NetworkSettings"]["Networks"])
    look.see("graph driver", skeleton(found["GraphDriver"]["Name"]))


def lists(look: Look) -> None:
    labels = {"beside": look.prefix}
    first = look.made(labels=labels, name="beside-first", ports=[80])
    second = look.made(
        labels=labels | {"x": "y"},
        start=True,
        name="beside-second",
        ports=[81],
        host={"port_bindings": {81: None}, "binds": ["bs-vol:/v"]},
    )
    look.later(look.c.remove_volume, "bs-vol")
    third = look.made(["sh", "-c", "exit 3"], labels=labels, start=True, name="beside-third")
    look.c.wait(third)
    names = {first: "first", second: "second", third: "third"}

    def listed(**how: Any) -> list[str]:
        how.setdefault("filters", {})
        how["filters"] = {"label": [f"beside={look.prefix}"], **how["filters"]}
        return [names.get(r["Id"], "?") for r in look.c.containers(**how)]

    look.see("running", listed())
    look.see("all", listed(all=True))
    look.see("limit", listed(limit=2))
    look.see("latest", [r["Id"] == third for r in look.c.containers(latest=True)])
    look.see("since", listed(since=first, all=True))
    look.see("before", listed(before=third, all=True))
    for label, filters in {
        "status": {"status": "exited"},
        "statuses": {"status": ["created", "running"]},
        "exited": {"exited": 3},
        "exited 0": {"exited": "0"},
        "name": {"name": "beside-s"},
        "name pattern": {"name": "^/beside-(first|third)$"},
        "id": {"id": second[:14]},
        "label": {"label": ["x"]},
        "label value": {"label": [f"beside={look.prefix}", "x=y"]},
        "label other": {"label": ["x=z"]},
        "ancestor": {"ancestor": IMAGE},
        "ancestor tag": {"ancestor": f"{IMAGE}:latest"},
        "no ancestor": {"ancestor": "nosuch"},
        "before": {"before": "beside-second"},
        "since": {"since": "beside-second"},
        "volume": {"volume": "bs-vol"},
        "volume place": {"volume": "/v"},
        "network": {"network": "bridge"},
        "no network": {"network": "nosuch"},
        "health": {"health": "none"},
        "publish": {"publish": "81"},
        "expose": {"expose": "80/tcp"},
        "expose range": {"expose": "79-82"},
        "task": {"is-task": False},
    }.items():
        try:
            look.see(f"filter {label}", listed(all=True, filters=filters))
        except Exception as error:
            look.see(f"filter {label} refused", getattr(getattr(error, "response", None), "status_code", str(error)))
    for label, bad in {
        "unknown": {"bogus": "x"},
        "status": {"status": "bogus"},
        "exited": {"exited": "x"},
        "before": {"before": "nosuch"},
        "health": {"health": "bogus"},
        "publish": {"publish": "x"},
        "task": {"is-task": "x"},
    }.items():
        look.fails(f"bad {label}", look.c.containers, filters=bad)
    rows = {names[r["Id"]]: r for r in look.c.containers(all=True, filters={"label": f"beside={look.prefix}"})}
    for label, row in rows.items():
        row["Ports"] = sorted(([p.get(k) for k in ("IP", "PrivatePort", "Type")] for p in row["Ports"]), key=str)
        row["Status"] = row["Status"].split()[0]
        look.see(f"row {label}", {k: v for k, v in row.items() if k != "Created"})
    sized = look.c.containers(size=True, filters={"name": "beside-second"})[0]
    look.see("sizes", skeleton({k: sized.get(k) for k in ("SizeRw", "SizeRootFs")}))
    look.see("quiet", skeleton(look.c.containers(quiet=True, filters={"name": "beside-second"})))
    look.see("models", [c.name for c in look.docker.containers.list(all=True, filters={"label": f"beside={look.prefix}"})])
    look.see(
        "models sparse",
        [c.status for c in look.docker.containers.list(all=True, sparse=True, filters={"label": f"beside={look.prefix}"})],
    )


def starts_and_ends(look: Look) -> None:
    made = look.made()
    look.see("before", look.c.inspect_container(made)["State"]["Status"])
    look.fails("stop before start", look.c.stop, made)
    look.fails("kill before start", look.c.kill, made)
    look.fails("pause before start", look.c.pause, made)
    look.fails("unpause before start", look.c.unpause, made)
    look.fails("top before start", look.c.top, made)
    look.fails("resize before start", look.c.resize, made, 10, 10)
    look.see("wait before start", look.c.wait(made, timeout=5))
    look.fails("start", look.c.start, made)
    look.fails("start again", look.c.start, made)
    look.fails("pause", look.c.pause, made)
    look.see("paused", {k: v for k, v in look.c.inspect_container(made)["State"].items() if k != "Pid"})
    look.fails("pause again", look.c.pause, made)
    look.fails("start while paused", look.c.start, made)
    look.fails("exec while paused", look.c.exec_create, made, "true")
    look.fails("unpause", look.c.unpause, made)
    look.fails("unpause again", look.c.unpause, made)
    look.fails("remove while running", look.c.remove_container, made)
    look.fails("restart", look.c.restart, made, timeout=5)
    look.fails("kill", look.c.kill, made, signal="SIGTERM")
    look.see("killed", look.c.wait(made))
    look.fails("stop", look.c.stop, made)
    look.fails("kill ended", look.c.kill, made)
    look.fails("start ended", look.c.start, made)
    look.fails("bad signal", look.c.kill, made, signal="SIGBOGUS")
    look.fails("signal number", look.c.kill, made, signal=9)
    look.see("killed 9", look.c.wait(made))
    look.see("ended", {k: v for k, v in look.c.inspect_container(made)["State"].items() if k != "Pid"})
    look.fails("restart ended", look.c.restart, made)
    look.fails("stop with time", look.c.stop, made, timeout=1)
    look.fails("remove", look.c.remove_container, made)
    look.fails("remove again", look.c.remove_container, made)
    for verb in (
        "start",
        "stop",
        "kill",
        "restart",
        "pause",
        "unpause",
        "inspect_container",
        "logs",
        "wait",
        "top",
        "diff",
        "export",
        "port",
    ):
        call = getattr(look.c, verb)
        look.fails(f"{verb} of none", (lambda call=call, verb=verb: call("nosuch", 80) if verb == "port" else call("nosuch")))
    auto = look.c.create_container(IMAGE, ["true"], host_config=look.c.create_host_config(auto_remove=True))["Id"]
    look.c.start(auto)
    look.until("auto removed", lambda: not look.c.containers(all=True, filters={"id": auto}))
    one = look.made(["sh", "-c", "exit 7"])
    result: dict[str, Any] = {}
    waiter = threading.Thread(target=lambda: result.update(look.docker.containers.get(one).wait(condition="next-exit")))
    waiter.start()
    time.sleep(0.3)
    look.c.start(one)
    waiter.join(20)
    look.see("next exit", result)
    look.fails("bad condition", look.c.wait, one, condition="bogus")
    two = look.made(["sh", "-c", "trap '' TERM; echo up; sleep 100"], start=True, stop_timeout=1)
    look.until("two is up", lambda: look.c.logs(two) == b"up\n")
    look.c.stop(two)
    look.see("stopped by force", look.c.inspect_container(two)["State"]["ExitCode"])
    again = look.made(["sh", "-c", "exit 1"], host={"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 2}})
    look.c.start(again)
    look.until("restarted", lambda: look.c.inspect_container(again)["RestartCount"] == 2)
    look.until("restarted no more", lambda: look.c.inspect_container(again)["State"]["Status"] == "exited")


def renamed_and_updated(look: Look) -> None:
    made, other = look.made(start=True), look.made()
    new = look.name("new")
    look.fails("rename", look.c.rename, made, new)
    look.see("renamed", look.c.inspect_container(new)["Name"])
    look.fails("rename to taken", look.c.rename, other, new)
    look.fails("rename to same", look.c.rename, new, new)
    look.fails("rename to bad", look.c.rename, new, "a/b")
    look.fails("rename to empty", look.c.rename, new, "")
    look.fails("rename none", look.c.rename, "nosuch", "x")
    for label, wish in {
        "memory": {"mem_limit": "64m", "memswap_limit": "128m"},
        "reservation": {"mem_reservation": "32m"},
        "shares": {"cpu_shares": 300},
        "period": {"cpu_period": 50_000, "cpu_quota": 25_000},
        "cpuset": {"cpuset_cpus": "0"},
        "mems": {"cpuset_mems": "0"},
        "blkio": {"blkio_weight": 200},
        "restart": {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 4}},
        "kernel": {"kernel_memory": "64m"},
        "nothing": {},
        "swap": {"memswap_limit": "256m"},
    }.items():
        look.fails(label, look.c.update_container, new, **wish)
        look.see(f"{label}: answer", look.c.update_container(other, **wish) if label != "kernel" else None)
    host = look.c.inspect_container(new)["HostConfig"]
    look.see(
        "updated",
        {
            k: host[k]
            for k in (
                "Memory",
                "MemorySwap",
                "MemoryReservation",
                "CpuShares",
                "CpuPeriod",
                "CpuQuota",
                "CpusetCpus",
                "CpusetMems",
                "BlkioWeight",
                "RestartPolicy",
            )
        },
    )
    for label, wish in {
        "restart": {"restart_policy": {"Name": "bogus"}},
        "memory": {"mem_limit": "1m"},
        "swap": {"mem_limit": "512m"},
        "cpuset": {"cpuset_cpus": "99"},
        "blkio": {"blkio_weight": 1},
    }.items():
        look.fails(f"bad {label}", look.c.update_container, new, **wish)
    look.fails("update none", look.c.update_container, "nosuch", cpu_shares=2)
    auto = look.made(host={"auto_remove": True})
    look.fails("restart of auto", look.c.update_container, auto, restart_policy={"Name": "always"})


def logs_and_attachments(look: Look) -> None:
    made = look.made(
        ["sh", "-c", "for i in 1 2 3; do echo out$i; done; sleep 0.3; echo err >&2; sleep 0.3; printf last"], start=True
    )
    look.c.wait(made)
    look.see("all", look.c.logs(made))
    look.see("out", look.c.logs(made, stderr=False))
    look.see("err", look.c.logs(made, stdout=False))
    look.see("tail", look.c.logs(made, tail=2))
    look.see("tail 0", look.c.logs(made, tail=0))
    look.see("tail word", look.c.logs(made, tail="all"))
    look.see("stamps", look.c.logs(made, timestamps=True))
    look.see("stream", list(look.c.logs(made, stream=True)))
    look.see("follow", b"".join(look.c.logs(made, stream=True, follow=True)))
    look.see("future", look.c.logs(made, since=int(time.time()) + 100))
    look.see("past", look.c.logs(made, until=int(time.time()) - 1000))
    look.see("since", look.c.logs(made, since=int(time.time()) - 1000))
    look.fails("neither", look.c.logs, made, stdout=False, stderr=False)
    tty = look.made(["sh", "-c", "echo a; echo b >&2"], tty=True, start=True)
    look.c.wait(tty)
    look.see("tty", look.c.logs(tty))
    none = look.made(["echo", "x"], host={"log_config": LogConfig(type="none")}, start=True)
    look.c.wait(none)
    look.fails("none", look.c.logs, none)
    created = look.made()
    look.see("created", look.c.logs(created))
    live = look.made(["cat"], stdin_open=True)
    sock = look.c.attach_socket(live, params={"stdin": 1, "stdout": 1, "stream": 1})
    look.c.start(live)
    sock._sock.sendall(b"hello\n")
    time.sleep(0.3)
    look.see("frame", sock._sock.recv(100))
    sock.close()
    demux = look.made(["sh", "-c", "sleep 0.5; echo o; sleep 0.2; echo e >&2"])
    stream = look.c.attach(demux, stream=True, demux=True)
    look.c.start(demux)
    look.see("demux", list(stream))
    whole = look.made(["sh", "-c", "sleep 0.5; echo o; sleep 0.2; echo e >&2"], start=True)
    look.see("attach whole", look.c.attach(whole, stdout=True, stderr=True))
    look.see("attach ended", look.c.attach(whole, logs=True))
    pair = look.docker.containers.run(IMAGE, ["sh", "-c", "echo o; echo e >&2"], stdout=True, stderr=True, remove=True)
    look.see("run", sorted(pair.splitlines()))
    look.fails("run fails", look.docker.containers.run, IMAGE, ["sh", "-c", "echo bad >&2; exit 5"], remove=True)
    look.fails("run no command", look.docker.containers.run, IMAGE, "nosuchcommand", remove=True)
    look.fails("run no image", look.docker.containers.run, "nosuchimage:none", "true", remove=True)
    look.see("run tty", look.docker.containers.run(IMAGE, ["sh", "-c", "test -t 1 && echo tty"], tty=True, remove=True))
    look.see(
        "run streams",
        list(look.docker.containers.run(IMAGE, ["sh", "-c", "echo 1; sleep 0.2; echo 2"], stream=True, remove=True)),
    )


def looked_into(look: Look) -> None:
    made = look.made(["sh", "-c", "echo x > /new; rm /srv/hello; echo y >> /etc/passwd; mkdir /d; sleep 1000"], start=True)
    look.until("ready", lambda: any(r["Path"] == "/d" for r in look.c.diff(made) or ()))
    look.see("diff", sorted((r["Path"], r["Kind"]) for r in look.c.diff(made)))
    top = look.c.top(made)
    look.see("top", top["Titles"])
    look.see("top rows", [r[-1] for r in top["Processes"]])
    look.see("top aux", look.c.top(made, "aux")["Titles"])
    look.see("top pid", look.c.top(made, "-eo pid,comm")["Titles"])
    look.fails("top no pid", look.c.top, made, "-eo comm")
    look.fails("top bad", look.c.top, made, "--bogus")
    stats = look.c.stats(made, stream=False)
    look.see("stats", sorted(stats))
    look.see("stats cpu", sorted(stats["cpu_stats"]))
    look.see("stats memory", sorted(k for k in stats["memory_stats"] if k != "stats"))
    look.see("stats pids", sorted(stats["pids_stats"]))
    look.see("stats network", {k: sorted(v) for k, v in stats.get("networks", {}).items()})
    look.see("stats blkio", skeleton({k: sorted(v[0]) if v else v for k, v in stats["blkio_stats"].items()}))
    first = next(iter(look.c.stats(made, decode=True, stream=True)))
    look.see("stats stream", sorted(first))
    look.see("stats once", sorted(look.c.stats(made, stream=False, one_shot=True)))
    idle = look.made()
    look.see("stats idle", look.c.stats(idle, stream=False))
    look.see("diff idle", look.c.diff(idle))
    ported = look.made(start=True, ports=[80, (53, "udp")], host={"port_bindings": {80: ("127.0.0.1", 18090), "53/udp": 18053}})
    look.see("port", look.c.port(ported, 80))
    look.see("port udp", look.c.port(ported, "53/udp"))
    look.see("port none", look.c.port(ported, 99))
    look.fails("port taken", lambda: look.made(start=True, ports=[80], host={"port_bindings": {80: ("127.0.0.1", 18090)}}))
    exported = b"".join(look.c.export(made))
    names = {m[0].rstrip("/") for m in members(exported)}
    look.see(
        "export",
        sorted(
            names
            & {
                "new",
                "d",
                "srv/hello",
                "srv/second",
                ".dockerenv",
                "etc/passwd",
                "etc/mtab",
                "etc/hosts",
                "proc",
                "dev",
                "sys",
                "etc/resolv.conf",
                "etc/hostname",
            }
        ),
    )


def archives(look: Look) -> None:
    made = look.made(
        [
            "sh",
            "-c",
            "mkdir -p /w/d; cd /w; echo abc > f; ln -s f l; ln -s d ld; ln -s /nosuch broken; echo in > d/in; chmod 640 f; "
            "touch ready; sleep 1000",
        ],
        start=True,
        volumes=["/vol"],
        host={"binds": ["/usr/share:/ro:ro"]},
    )

    def ready() -> bool:
        try:
            look.c.get_archive(made, "/w/ready")
            return True
        except Exception:
            return False

    look.until("ready", ready)
    for path in ("/w/f", "/w/d", "/w/d/", "/w/d/.", "/w/l", "/w/ld", "/w/ld/", "/w", "w/f", "/w/broken"):
        try:
            data, about = look.c.get_archive(made, path)
            look.see(f"get {path}", members(b"".join(data)))
            look.see(
                f"stat {path}", {k: v for k, v in about.items() if k != "size" or not about["name"].startswith(("d", "w"))}
            )
        except Exception as error:
            look.see(f"get {path} refused", getattr(getattr(error, "response", None), "status_code", str(error)))
    look.fails("get none", look.c.get_archive, made, "/nosuch")
    look.fails("get empty", look.c.get_archive, made, "")
    look.fails("get of a file's inside", look.c.get_archive, made, "/w/f/")
    for label, path, files in (
        ("folder", "/w", {"n1": b"1"}),
        ("deep", "/w/d", {"a/": b"", "a/b": b"2"}),
        ("through link", "/w/ld", {"n2": b"3"}),
        ("volume", "/vol", {"n3": b"4"}),
        ("root", "/", {"n4": b"5"}),
    ):
        look.see(f"put {label}", look.c.put_archive(made, path, tar(files, uid=5, gid=6)))
        for name in files:
            data, _ = look.c.get_archive(made, f"{path}/{name}")
            look.see(f"put {label} {name}", members(b"".join(data)))
    look.fails("put nowhere", look.c.put_archive, made, "/nosuch", tar({"x": b""}))
    look.fails("put into a file", look.c.put_archive, made, "/w/f", tar({"x": b""}))
    look.fails("put no tar", look.c.put_archive, made, "/w", b"this is no tar at all" * 100)
    look.fails("put into read only", look.c.put_archive, made, "/ro", tar({"x": b""}))
    look.fails("put into proc", look.c.put_archive, made, "/proc", tar({"x": b""}))

    def raw(label: str, path: str, files: dict[str, bytes], **query: str) -> None:
        url = look.c._url("/containers/{0}/archive", made)
        reply = look.c._put(url, params={"path": path, **query}, data=tar(files, uid=5, gid=6))
        look.see(f"{label}: status", reply.status_code)
        if reply.status_code >= 400:
            look.words[label] = plain(reply.text)

    raw("dir over file", "/w", {"f/": b""}, noOverwriteDirNonDir="1")
    raw("file over dir", "/w", {"d": b"x"}, noOverwriteDirNonDir="1")
    raw("file over file", "/w", {"n1": b"new"}, noOverwriteDirNonDir="1")
    raw("dir over dir", "/w", {"d/": b"", "d/x": b"y"}, noOverwriteDirNonDir="1")
    raw("owner", "/w", {"own": b"x"}, copyUIDGID="1")
    look.see("owner", members(b"".join(look.c.get_archive(made, "/w/own")[0])))
    raw("dir over file allowed", "/w", {"l/": b""})
    raw("file over dir allowed", "/w", {"d": b"x"})
    look.see("after", sorted(m[:2] for m in members(b"".join(look.c.get_archive(made, "/w")[0]))))
    asuser = look.made(user="app")
    url = look.c._url("/containers/{0}/archive", asuser)
    look.see(
        "owner of another",
        look.c._put(url, params={"path": "/tmp", "copyUIDGID": "1"}, data=tar({"u": b"x"}, uid=5, gid=6)).status_code,
    )
    idle = look.made()
    look.see("idle put", look.c.put_archive(idle, "/tmp", tar({"x": b"1"})))
    look.see("idle get", members(b"".join(look.c.get_archive(idle, "/tmp/x")[0])))
    head = look.c.head(look.c._url("/containers/{0}/archive", idle), params={"path": "/tmp/x"})
    look.see("head", stat(head.headers["X-Docker-Container-Path-Stat"]))
    look.see("head none", look.c.head(look.c._url("/containers/{0}/archive", idle), params={"path": "/nosuch"}).status_code)


def health(look: Look) -> None:
    good = look.made(start=True, healthcheck=Healthcheck(test="echo fine", interval=200_000_000))
    bad = look.made(start=True, healthcheck=Healthcheck(test=["CMD", "false"], interval=200_000_000, retries=2, timeout=10**9))
    none = look.made(start=True, healthcheck=Healthcheck(test=["CMD", "nosuch"], interval=200_000_000, retries=1))
    slow = look.made(
        start=True, healthcheck=Healthcheck(test=["CMD", "sleep", "5"], interval=200_000_000, timeout=200_000_000, retries=1)
    )
    for label, made, word in (
        ("good", good, "healthy"),
        ("bad", bad, "unhealthy"),
        ("none", none, "unhealthy"),
        ("slow", slow, "unhealthy"),
    ):
        look.until(
            f"{label} is", lambda made=made, word=word: look.c.inspect_container(made)["State"]["Health"]["Status"] == word
        )
        state = look.c.inspect_container(made)["State"]["Health"]
        look.see(
            f"{label} log",
            {k: v for k, v in state["Log"][0].items() if k != "Output"} | {"Output": state["Log"][0]["Output"][:6]},
        )
        look.see(f"{label} streak", state["FailingStreak"] > 0)


def pruned(look: Look) -> None:
    label = {"beside-prune": look.prefix}
    look.made(["true"], labels=label, start=True)
    wait = look.made(["sh", "-c", "head -c 100000 /dev/zero > /x"], labels=label, start=True)
    look.c.wait(wait)
    keep = look.made(labels=label, start=True)
    look.see("kept by label", look.c.prune_containers({"label": ["nosuch-label"]}))
    look.see("kept by time", look.c.prune_containers({"label": [f"beside-prune={look.prefix}"], "until": "1h"}))
    done = look.c.prune_containers({"label": [f"beside-prune={look.prefix}"]})
    look.see("pruned", [len(done["ContainersDeleted"]), done["SpaceReclaimed"] >= 100_000])
    look.see("running stays", look.c.inspect_container(keep)["State"]["Status"])
    look.fails("bad filter", look.c.prune_containers, {"bogus": "x"})
    look.fails("bad time", look.c.prune_containers, {"until": "x"})


def many_at_creation(look: Look) -> None:
    net = look.name("n")
    look.network(name=net)
    made = look.made(
        networking_config=look.c.create_networking_config({net: look.c.create_endpoint_config(aliases=["al"], links=None)}),
        host={"network_mode": net},
    )
    look.c.start(made)
    found = look.c.inspect_container(made)["NetworkSettings"]["Networks"][net]
    look.see("aliases", [a for a in found["Aliases"] if a != made[:12]])
    config = {net: EndpointConfig(look.c._version, aliases=["x"])}
    other = look.docker.containers.create(IMAGE, SLEEP, name=look.name(), network=net, networking_config=config)
    look.later(look.c.remove_container, other.id, force=True)
    other.start()
    other.reload()
    look.see(
        "network of run", [a for a in other.attrs["NetworkSettings"]["Networks"][net]["Aliases"] or () if a != other.short_id]
    )
    look.see("network mode", other.attrs["HostConfig"]["NetworkMode"].startswith(look.prefix))


ALL = (
    created_with_each_field_of_host_config,
    started_with_each_field_of_host_config,
    refused_host_config,
    created_with_each_field_of_config,
    inside_with_each_field_of_config,
    refused_config,
    the_whole_of_an_inspection,
    lists,
    starts_and_ends,
    renamed_and_updated,
    logs_and_attachments,
    looked_into,
    archives,
    health,
    pruned,
    many_at_creation,
)
