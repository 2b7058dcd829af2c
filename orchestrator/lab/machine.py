"""One machine of a lab: its first process. Run as `python -m orchestrator.lab.machine SPEC.json`.

It leaves all namespaces of the host, mounts the file systems of a machine, prints its PID, and then is a small init: it
restarts the services (as systemd would) and reaps orphans. When it is killed, the kernel kills everything inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from netplugins.linux import syscalls
from netplugins.linux.uapi import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MNT_DETACH,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
)
from orchestrator.lab import cgroups


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    syscalls.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode())


def _mount_filesystems(spec: dict[str, Any], mounted: list[cgroups.Hierarchy]) -> None:
    """The machine's own /proc, /sys, /run, cgroups, name and resolv.conf."""
    _mount("none", "/", "none", MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc")
    syscalls.libc.umount2(b"/sys", MNT_DETACH)
    _mount("sysfs", "/sys", "sysfs")
    with contextlib.suppress(OSError):  # a kernel without security modules has none
        _mount("securityfs", "/sys/kernel/security", "securityfs")
    if Path("/sys/fs/selinux").is_dir():  # SELinux is on
        _mount("selinuxfs", "/sys/fs/selinux", "selinuxfs")
    if any(not h.unified for h in mounted):
        _mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755")
        for h in mounted:
            h.path.mkdir(exist_ok=True)
            _mount("cgroup", str(h.path), "cgroup2" if h.unified else "cgroup", 0, "" if h.unified else h.options)
    else:
        _mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
        cgroups.settle(Path("/sys/fs/cgroup"))
    _mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    Path("/run/sshd").mkdir(0o755)  # sshd's empty folder for privilege separation
    resolv = Path(spec["directory"]) / "resolv.conf"
    resolv.write_text(f"nameserver {spec['nameserver']}\n")
    _mount(str(resolv), os.path.realpath("/etc/resolv.conf"), "none", MS_BIND)
    hosts = Path(spec["directory"]) / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n::1 localhost\n{spec['address']} {spec['name']}\n")
    _mount(str(hosts), "/etc/hosts", "none", MS_BIND)
    _mount("none", "/", "none", MS_REC | MS_SHARED)  # as systemd leaves a host
    name = spec["name"].encode()
    syscalls.libc.sethostname(name, len(name))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _init(spec: dict[str, Any]) -> None:
    """Reap children, and start a service again when it ends. Never returns."""
    directory = Path(spec["directory"])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYSTACK_")}
    environment |= {"PYSTACK_ROOT": spec["directory"], "HOME": str(directory / "home")}
    python = [sys.executable, "-E", "-s", "-m"]
    services = {}
    if spec["role"] != "switch":
        services["sshd"] = ["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "sshd_config")]
    if members := spec.get("members"):
        login = f"root:{spec['password']}@" if spec.get("password") else ""
        environment["PYSTACK_STORE"] = f"etcd://{login}{','.join(members.values())}"
        environment["PYSTACK_ADVERTISE"] = f"root@{spec['address']}"
    if members and spec["role"] == "server":
        services["etcd"] = _etcd(spec, members)
    if spec["role"] == "server":
        environment["PYSTACK_LISTEN_NODES"] = "tcp://0.0.0.0"  # wherever the machine moves
        services["server"] = [*python, "orchestrator.embedded"]
    elif spec["role"] == "node":
        services["agent"] = [*python, "agent"]
    running: dict[str, subprocess.Popen[bytes]] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        for name in services.keys() - running.keys():
            # a test arms one start: the service ends at the named point, and the next start is normal
            armed = directory / "failpoint"
            extra: dict[str, str] = {}
            if name != "sshd" and armed.exists():
                extra["PYSTACK_FAILPOINT"] = armed.read_text()
                armed.unlink()
            with (directory / f"{name}.log").open("ab") as log:
                running[name] = subprocess.Popen(
                    services[name],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment | extra,
                    cwd="/",
                    start_new_session=True,
                )
            (directory / "run" / f"{name}.pid").write_text(str(running[name].pid))  # on a tmpfs: the disk may be full
        try:
            pid, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.2)
            continue
        for name in [n for n, process in running.items() if process.pid == pid]:
            del running[name]
            time.sleep(0.1)


def _etcd(spec: dict[str, Any], members: dict[str, str]) -> list[str]:
    """The command of a member of the store. Without TLS: no other host is on the lab's network."""
    own = spec["address"]
    return [
        "etcd",
        "--name",
        spec["name"],
        "--data-dir",
        f"{spec['directory']}/etcd",
        "--logger",
        "zap",
        "--listen-client-urls",
        f"http://{own}:2379",
        "--advertise-client-urls",
        f"http://{own}:2379",
        "--listen-peer-urls",
        f"http://{own}:2380",
        "--initial-advertise-peer-urls",
        f"http://{own}:2380",
        "--initial-cluster",
        ",".join(f"{name}=http://{address}:2380" for name, address in members.items()),
    ]


def main(spec: dict[str, Any]) -> None:
    """Start the machine that *spec*, its machine.json, describes; prints {"pid": …} or {"error": …} when it is ready."""
    mounted = cgroups.hierarchies()
    cgroups.enter(spec["lab"], spec["name"])
    syscalls.check(
        syscalls.libc.unshare(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID),
        "unshare",
    )
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        answer = os.read(read, 4096).decode()
        print(json.dumps({"pid": child} if answer == "ready" else {"error": answer or "the machine ended at once"}))
        return
    os.close(read)
    os.setsid()
    try:
        _mount_filesystems(spec, mounted)
        # the switch's end is wired by the parent before the server may look at its links
        os.write(write, b"ready")
    except OSError as error:
        os.write(write, str(error).encode())
        os._exit(1)
    os.close(write)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    gate = Path(spec["directory"]) / "wired"
    deadline = time.monotonic() + 30
    while not gate.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    _init(spec)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
