"""Says whether a host can be pystack's, before anything is installed there: `pystack doctor --host`.

The module is also sent over SSH and run by the host's own interpreter, so it imports the standard library alone, and keeps to
what Python 3.7 has. Each finding is one sentence, with the remedy where there is one.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple  # noqa: UP035 - Python 3.7 reads this too

Finding = Dict[str, Any]  # noqa: UP006
"""{check, target, ok, detail, fix}; one that is ok and has a fix is advice."""
FOLDERS = (
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/usr/libexec/podman",
    "/usr/lib/podman",
)
PROGRAMS = (
    # programs of which one is enough; what for; package in Debian and Ubuntu; in Fedora and its kin
    (("runc", "crun"), "containers are started with it", "runc", "runc"),
    (("conmon",), "containers are watched by it", "conmon", "conmon"),
    (("nft",), "firewall rules and service addresses are loaded with it", "nftables", "nftables"),
)
ROOTLESS = (
    (("newuidmap",), "user IDs of containers are mapped with it", "uidmap", "shadow-utils"),
    (("slirp4netns",), "containers reach the network through it", "slirp4netns", "slirp4netns"),
)
LINKS = {"bridge": "every network", "veth": "every container's interface", "vxlan": "networks over several hosts"}
FILESYSTEMS = ("overlay",)
CONTROLLERS = ("cpu", "memory", "pids")
OLDEST_KERNEL = (5, 6)  # openat2
OLDEST_PYTHON = (3, 11)
ROOM_BYTES = 2 * 10**9
MEMORY_BYTES = 400 * 10**6
SKEW_S = 60.0
VXLAN_PORT = 4789
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
IDS = 65536
"""User IDs that a container may need; as many subordinate ones the user of an engine without root has."""


def examine(root: str = "/var/lib/pystack") -> List[Finding]:  # noqa: UP006
    """All findings of this host, those that are well included. *root* is where state would lie."""
    if sys.platform != "linux":
        return [_bad("system", platform.node(), f"this is {platform.system()}", "use a Linux host; the client works here")]
    out = [_kernel(), _python(), _user(), *_programs(), *_cgroups(), *_features(), _disk(root), _memory()]
    return [*out, *_rootless(), *_beside(), *_firewalls(), *_security_modules(), _names()]


def _well(check: str, target: str, detail: str, fix: str = "") -> Finding:
    return {"check": check, "target": target, "ok": True, "detail": detail, "fix": fix}


def _bad(check: str, target: str, detail: str, fix: str) -> Finding:
    return {"check": check, "target": target, "ok": False, "detail": detail, "fix": fix}


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _output_of(*command: str) -> Tuple[int, str]:  # noqa: UP006
    """Exit status and output of a program; 127 where it is not there or does not end."""
    path = which(command[0])
    if not path:
        return 127, ""
    try:
        done = subprocess.run([path, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 127, ""
    return done.returncode, done.stdout.decode(errors="replace")


def which(name: str) -> Optional[str]:  # noqa: UP045
    """Where a program is, in the folders that an ordinary user's PATH lacks too."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS]))


def distribution() -> Tuple[str, str]:  # noqa: UP006
    """(name, the command that installs a package) of this host."""
    words = dict(line.split("=", 1) for line in _read("/etc/os-release").splitlines() if "=" in line)
    fields = {key: value.strip("\"'") for key, value in words.items()}
    kin = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split()
    name = fields.get("PRETTY_NAME", "an unknown distribution")
    for families, command in (
        (("debian", "ubuntu"), "apt-get install"),
        (("fedora", "rhel", "centos"), "dnf install"),
        (("suse", "opensuse"), "zypper install"),
        (("arch",), "pacman -S"),
        (("alpine",), "apk add"),
    ):
        if any(family in kin for family in families):
            return name, command
    return name, "install"


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdecimal())
    if numbers < OLDEST_KERNEL:
        wanted = ".".join(map(str, OLDEST_KERNEL))
        return _bad(
            "kernel", release, "it has no openat2, with which images are unpacked safely", f"use kernel {wanted} or newer"
        )
    return _well("kernel", release, distribution()[0])


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return _bad("python", found, f"the agent needs Python {wanted} or newer", f"{distribution()[1]} python{wanted}")
    return _well("python", found, "new enough")


def _user() -> Finding:
    if os.geteuid() == 0:
        return _well("user", "root", "the engine can make namespaces, mounts and rules")
    return _well(
        "user",
        str(os.geteuid()),
        "not root: one host works without, in a user namespace; as a node of a cluster it needs root",
        "log in as root, or keep to one host (the guide: Without root)",
    )


def _programs() -> List[Finding]:  # noqa: UP006
    command = distribution()[1]
    wanted = PROGRAMS if os.geteuid() == 0 else PROGRAMS + ROOTLESS
    out = []
    for names, why, debian, fedora in wanted:
        found = next((path for path in map(which, names) if path), None)
        package = fedora if command.startswith("dnf") else debian
        if found:
            out.append(_well("program", names[0], found))
        else:
            out.append(_bad("program", " or ".join(names), f"it is not installed: {why}", f"{command} {package}"))
    return out


def _rootless() -> List[Finding]:  # noqa: UP006
    """What an engine without root needs beside programs: IDs, user namespaces, a way to the network, a folder to run in."""
    user = os.geteuid()
    if user == 0:
        return []
    import pwd  # Windows has none, and asks other hosts with this module

    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    out = []
    for file in ("/etc/subuid", "/etc/subgid"):
        lines = [line.split(":") for line in _read(file).splitlines() if line.count(":") == 2]
        if not any(who in (name, str(user)) and int(count) >= IDS for who, _, count in lines):
            fix = f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name} (numbers that are free)"
            out.append(_bad("rootless", file, f"{name} has no {IDS} IDs there for the users of containers", fix))
    for sysctl, value, wanted in (
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        if _read("/proc/sys/" + sysctl.replace(".", "/")).strip() == value:
            fix = f"as root: sysctl -w {sysctl}={wanted}, and a line of it in /etc/sysctl.d"
            out.append(_bad("rootless", sysctl, f"it is {value}: users may make no user namespaces", fix))
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        fix = "as root: modprobe tun && chmod 666 /dev/net/tun"
        out.append(_bad("rootless", "/dev/net/tun", "users may not open it: containers reach no network", fix))
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    if not os.access(folder, os.W_OK | os.X_OK):
        out.append(_bad("rootless", folder, *no_runtime_folder(name)))
    return out or [_well("rootless", name, "subordinate IDs, user namespaces, /dev/net/tun and a folder to run in")]


def no_runtime_folder(user: str) -> Tuple[str, str]:  # noqa: UP006
    """What to say of a user who has no folder of XDG_RUNTIME_DIR's kind: (what and why, the remedy)."""
    return (
        "it is not there or not this user's: the user has no login session, as after su, sudo -u and in cron",
        f"log in over SSH, or as root: loginctl enable-linger {user}; or set XDG_RUNTIME_DIR to a folder of the user's own",
    )


def _cgroups() -> List[Finding]:  # noqa: UP006
    if unified := _read("/sys/fs/cgroup/cgroup.controllers").split():
        missing = [name for name in CONTROLLERS if name not in unified]
        kind = "version 2"
    else:
        lines = [line.split("\t") for line in _read("/proc/cgroups").splitlines()[1:]]
        enabled = {fields[0] for fields in lines if fields[-1] == "1"}
        mounted = {
            word for line in _read("/proc/mounts").splitlines() if " cgroup " in line for word in line.split()[3].split(",")
        }
        missing = [name for name in CONTROLLERS if name not in enabled & mounted]
        kind = "version 1"
    if len(missing) == len(CONTROLLERS):
        return [
            _bad(
                "cgroup", "/sys/fs/cgroup", "no cgroups are mounted: nothing can be limited", "boot with systemd, or mount them"
            )
        ]
    if "memory" in missing:
        fix = "add cgroup_enable=memory to the kernel's command line and boot"
        return [_bad("cgroup", "memory", "the kernel has no memory controller on: mem_limit has no effect", fix)]
    if missing:
        return [
            _bad(
                "cgroup", ", ".join(missing), f"controllers that cgroup {kind} does not have here", "turn them on in the kernel"
            )
        ]
    return [_well("cgroup", kind, f"with {', '.join(CONTROLLERS)}")]


def _features() -> List[Finding]:  # noqa: UP006
    out = []
    for name in ("mnt", "net", "pid", "uts", "ipc", "user", "cgroup"):
        if not os.path.exists(f"/proc/self/ns/{name}"):
            out.append(_bad("kernel feature", f"{name} namespaces", "the kernel has none", "use a kernel that has them"))
    for name in FILESYSTEMS:
        if f"\t{name}\n" not in _read("/proc/filesystems") and not _loadable(name):
            out.append(
                _bad("kernel feature", name, "the kernel cannot mount it: images have no layers then", f"modprobe {name}")
            )
    if "errno" not in _read("/proc/sys/kernel/seccomp/actions_avail"):
        out.append(_bad("kernel feature", "seccomp", "no filters of system calls", "use a kernel with CONFIG_SECCOMP_FILTER"))
    refused = _refused_links()
    if refused is None:
        out.append(_well("kernel feature", "links", "not tried: this user may make no network namespace"))
    for name in refused or ():
        out.append(_bad("kernel feature", name, f"the kernel makes no such link: {LINKS[name]} needs it", f"modprobe {name}"))
    return out or [_well("kernel feature", "all", f"namespaces, overlay, seccomp, {', '.join(LINKS)}")]


def _loadable(module: str) -> bool:
    return _output_of("modprobe", "-n", "-q", module)[0] == 0


def _refused_links() -> Optional[List[str]]:  # noqa: UP006, UP045
    """Kinds of links that the kernel refuses, tried in a network namespace of a child's; None where there can be none."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            libc = ctypes.CDLL(None, use_errno=True)
            flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
            if libc.unshare(flags) == 0:
                os.write(write, json.dumps([kind for kind in LINKS if not _makes_link(kind)]).encode())
                status = 0
        os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(output) if status == 0 and output else None


def _makes_link(kind: str) -> bool:
    """Whether the kernel makes a link of *kind* here. Source: rtnetlink(7), RTM_NEWLINK."""

    def attribute(number: int, value: bytes) -> bytes:
        return struct.pack("=HH", len(value) + 4, number) + value + b"\0" * (-len(value) % 4)

    data = attribute(2, attribute(1, struct.pack("=I", 1))) if kind == "vxlan" else b""  # IFLA_INFO_DATA: VXLAN's identifier
    info = attribute(1, kind.encode() + b"\0") + data
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute(3, b"try\0") + attribute(18, info)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(10)
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHII", len(body) + 16, 16, 0x1 | 0x4 | 0x200 | 0x400, 1, 0) + body)
        error: int = struct.unpack_from("=i", sock.recv(4096), 16)[0]
        if error == 0:
            body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute(3, b"try\0")
            sock.send(struct.pack("=IHHII", len(body) + 16, 17, 0x1 | 0x4, 2, 0) + body)
            sock.recv(4096)
    return error == 0


def _disk(root: str) -> Finding:
    place = root
    while not os.path.isdir(place):
        place = os.path.dirname(place) or "/"
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_RDONLY:
        return _bad(
            "disk", place, "it is mounted read-only", "mount it for writing, or set PYSTACK_ROOT to a place on another disk"
        )
    if free < ROOM_BYTES:
        fix = "free some (`pystack system prune` where images lie), or set PYSTACK_ROOT to a place on another disk"
        return _bad("disk", place, f"{free / 1e9:.1f} GB are free, and images need {ROOM_BYTES / 1e9:.0f} or more", fix)
    if found.f_files and found.f_favail < 50_000:
        return _bad(
            "disk", place, f"{found.f_favail} inodes are free: images have many files", "make room, or use another file system"
        )
    return _well("disk", place, f"{free / 1e9:.1f} GB free")


def _memory() -> Finding:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total < MEMORY_BYTES:
        return _bad(
            "memory", "host", f"{total / 1e6:.0f} MB in all", f"give it {MEMORY_BYTES / 1e6:.0f} MB: the server takes 150"
        )
    return _well("memory", "host", f"{total / 1e9:.1f} GB")


def _beside() -> List[Finding]:  # noqa: UP006
    out = []
    if os.path.exists("/var/run/docker.sock") or os.path.isdir("/sys/class/net/docker0"):
        out.append(
            _well("beside", "docker", "it runs on: pystack has its own names, rules and state, and publishes ports of its own")
        )
    if os.path.exists("/run/k3s") or os.path.exists("/etc/kubernetes/kubelet.conf"):
        out.append(_well("beside", "kubernetes", "it runs on; ports 80, 443 and 30000 to 32767 may be taken by it"))
    return out


def _firewalls() -> List[Finding]:  # noqa: UP006
    out = []
    port = f"{VXLAN_PORT}/udp"
    if "ENABLED=yes" in _read("/etc/ufw/ufw.conf"):
        rules = _read("/etc/ufw/user.rules")
        if os.geteuid() == 0 and str(VXLAN_PORT) not in rules:
            fix = f"ufw allow from ADDRESS-OF-EACH-NODE to any port {VXLAN_PORT} proto udp; not needed with one host"
            out.append(_well("firewall", "ufw", f"it is on, and accepts no {port} from other nodes", fix))
        else:
            out.append(_well("firewall", "ufw", "it is on; ports that stacks publish are let through by pystack itself"))
    if _output_of("firewall-cmd", "--state")[0] == 0:
        if _output_of("firewall-cmd", f"--query-port={port}")[0] != 0:
            fix = f"firewall-cmd --permanent --add-port={port} && firewall-cmd --reload; not needed with one host"
            out.append(_well("firewall", "firewalld", f"it is on, and accepts no {port} from other nodes", fix))
        else:
            out.append(_well("firewall", "firewalld", f"it is on, with {port} open"))
    return out


def _security_modules() -> List[Finding]:  # noqa: UP006
    if _read("/sys/fs/selinux/enforce").strip() == "1":
        path, context = _container_context()
        fix = "install a policy for containers, on Fedora and its kin container-selinux; else SELinux does not confine them"
        if not context:
            return [_well("selinux", "enforcing", "no types of containers are named: they get no labels", fix)]
        if not _policy_knows(context):
            why = f"its policy does not know {context}, which {path} names: containers get no labels"
            return [_well("selinux", "enforcing", why, fix)]
        return [_well("selinux", "enforcing", "containers get labels")]
    if _read("/sys/module/apparmor/parameters/enabled").startswith("Y"):
        return [_well("apparmor", "on", "containers get a profile")]
    return []


def _container_context() -> Tuple[str, str]:  # noqa: UP006
    """The file by which containers are labelled, and the context of their processes; ("", "") where there is none. Source:
    selinux_lxc_contexts_path(3)."""
    named = [line.partition("=")[2] for line in _read("/etc/selinux/config").splitlines() if line.startswith("SELINUXTYPE=")]
    own = [f"/etc/selinux/{name.strip()}/contexts/lxc_contexts" for name in named[-1:]]
    for path in ("/usr/share/containers/selinux/contexts", *own):
        for line in _read(path).splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "process":
                return path, value.strip().strip('"')
    return "", ""


def _policy_knows(context: str) -> bool:
    """Source: security_check_context(3)."""
    try:
        with open("/sys/fs/selinux/context", "w") as file:
            file.write(context)
    except PermissionError:
        return True  # to ask is root's
    except OSError:
        return False
    return True


def _names() -> Finding:
    servers = [
        line.split()[1]
        for line in _read("/etc/resolv.conf").splitlines()
        if line.startswith("nameserver ") and line[11:].strip()
    ]
    if not servers:
        return _bad(
            "dns",
            "/etc/resolv.conf",
            "it names no server: containers resolve nothing but each other",
            "write a nameserver line",
        )
    return _well("dns", "/etc/resolv.conf", ", ".join(servers))


def skew(far: float, near: float, target: str) -> Finding:
    """The finding of two clocks, read as one: seconds since the epoch at the host and here."""
    off = far - near
    if abs(off) > SKEW_S:
        way = "ahead of" if off > 0 else "behind"
        fix = "set it, and keep it: `timedatectl set-ntp true`; certificates and logs go wrong else"
        return _bad("clock", target, f"it is {abs(off):.0f} s {way} this machine's", fix)
    return _well("clock", target, "as here" if abs(off) < 2 else f"{off:+.0f} s from here")


if __name__ == "__main__":
    rows = examine(os.environ.get("PYSTACK_ROOT") or "/var/lib/pystack")
    print(json.dumps({"time": time.time(), "findings": rows, "connection": os.environ.get("SSH_CONNECTION", "")}))
