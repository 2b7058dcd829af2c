"""The OCI bundle of a container: `config.json`, built key by key.

Every key of a Container that the runtime must know is one function below and one line in KEYS; each reads the container
and writes its part of the document. Source: OCI Runtime Specification 1.0.2, config.md and config-linux.md.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from agent import cgroups
from agent.containers import cdi, hardware
from agent.containers.users import Identity
from agent.contract.container import Container, Mount
from agent.errors import BadRequestError, reason
from agent.isolation import apparmor, capabilities, observation, paths, seccomp
from agent.trees.sandbox import IDS

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Document = dict[str, Any]


class Parts(msgspec.Struct, kw_only=True):
    """The input of the builder: the spec, values resolved from image and host, and the document itself.

    *namespaces* maps OCI namespace types to paths to join; "" asks for a new one, and a missing key for the host's.
    *notes* collects deviations from the request, in words."""

    id: str
    container: Container
    args: list[str]
    environment: dict[str, str]
    working_dir: str
    identity: Identity
    rootfs: Path
    hostname: str
    cgroup_parent: str
    namespaces: dict[str, str]
    mounts: list[tuple[Mount, Path]]
    system_files: dict[str, Path]
    cgroup2: bool
    sysctls: dict[str, str] = {}
    shm: Path | None = None
    """The folder that is its /dev/shm, where that is shared with others."""
    listener: str = ""
    """The socket at which system calls are reported, where they are observed."""
    ids: int = 0
    """The host's ID that is 0 in its user namespace; 0 for the node's own."""
    process_label: str = ""
    """The SELinux label of its processes, "" for none."""
    mount_label: str = ""
    """The SELinux label of the file systems in memory that the runtime mounts, "" for none."""
    document: Document = {}
    notes: list[str] = []


def process(p: Parts) -> None:
    """Set `process`: command, environment, user, capabilities (OCI runtime specification, config.md)."""
    c = p.container
    environment = {"PATH": DEFAULT_PATH, "HOSTNAME": p.hostname, **p.environment}
    environment.setdefault("HOME", p.identity.home)
    if c.tty:
        environment.setdefault("TERM", "xterm")
    caps = capabilities.resolve(c.cap_add, c.cap_drop, privileged=c.privileged)
    p.document["process"] = {
        "terminal": c.tty,
        "user": {"uid": p.identity.uid, "gid": p.identity.gid, "additionalGids": list(p.identity.groups)},
        "args": p.args,
        "env": [f"{k}={v}" for k, v in environment.items()],
        "cwd": p.working_dir or "/",
        "capabilities": capabilities.sets(caps, p.identity.uid),
        "noNewPrivileges": any(o.replace("=", ":") in ("no-new-privileges", "no-new-privileges:true") for o in c.security_opt),
        "oomScoreAdj": c.oom_score_adj,
    }


def root(p: Parts) -> None:
    """Set `root` and `hostname`."""
    p.document["root"] = {"path": str(p.rootfs), "readonly": p.container.read_only}
    p.document["hostname"] = p.hostname


def ulimits(p: Parts) -> None:
    """Set `process.rlimits`, never above the host's limits: one that cannot be raised is clamped, with a note."""
    out = []
    may_raise = "SYS_RESOURCE" in capabilities.held()
    for limit in p.container.ulimits:
        kind = f"RLIMIT_{limit.name.upper()}"
        number = getattr(resource, kind, None)
        if number is None:
            raise BadRequestError(f"ulimit {limit.name!r} does not exist: see getrlimit(2)")
        _, ceiling = resource.getrlimit(number)
        soft, hard = (value if value >= 0 else resource.RLIM_INFINITY for value in (limit.soft, limit.hard))
        if not may_raise and ceiling != resource.RLIM_INFINITY:
            clamped = [ceiling if v == resource.RLIM_INFINITY or v > ceiling else v for v in (soft, hard)]
            if clamped != [soft, hard]:
                p.notes.append(f"ulimit {limit.name} was lowered to the host's {ceiling}")
            soft, hard = clamped
        unlimited = (1 << 64) - 1
        out.append({"type": kind, "soft": soft if soft >= 0 else unlimited, "hard": hard if hard >= 0 else unlimited})
    if out:
        p.document["process"]["rlimits"] = out


def namespaces(p: Parts) -> None:
    """Set `linux.namespaces`, and the ID mappings of a user namespace of its own."""
    out = [{"type": kind, "path": path} if path else {"type": kind} for kind, path in p.namespaces.items()]
    p.document["linux"]["namespaces"] = out
    if p.ids:
        mapping = [{"containerID": 0, "hostID": p.ids, "size": IDS}]
        p.document["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}


def standard_mounts(p: Parts) -> None:
    """Set the mounts of every container: /proc, /dev, /sys and those below them."""
    c = p.container
    safe = ["nosuid", "noexec", "nodev"]
    mode = "rw" if c.privileged else "ro"
    mounts: list[Document] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*safe, mode]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*safe, mode]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
    ]
    if "ipc" not in p.namespaces:
        mounts.append({"destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": ["rbind"]})
    elif p.shm:
        mounts.append({"destination": "/dev/shm", "type": "bind", "source": str(p.shm), "options": ["bind", *safe]})
    else:
        options = [*safe, "mode=1777", f"size={c.shm_size}"]
        mounts.append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options})
    if "network" not in p.namespaces:
        # sysfs of a network namespace that is not ours cannot be mounted again
        mounts[3] = {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", mode, *safe]}
    p.document["mounts"] = mounts


def own_mounts(p: Parts) -> None:
    """Add the container's own mounts, parents before children."""
    for mount, source in sorted(p.mounts, key=lambda pair: pair[0].target.count("/")):
        access = "ro" if mount.read_only or mount.kind == "image" else "rw"
        if mount.kind == "tmpfs":
            options = ["nosuid", "nodev", access, f"mode={mount.mode:o}"]
            options += [f"size={mount.size}"] if mount.size else []
            options += list(mount.options)
            entry = {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
        else:
            options = ["rbind" if mount.recursive else "bind", access, mount.propagation, *(_locked(source) if p.ids else ())]
            entry = {"destination": mount.target, "type": "bind", "source": str(source), "options": options}
        p.document["mounts"].append(entry)


def system_files(p: Parts) -> None:
    """Mount hosts, hostname and resolv.conf above volumes on /etc, where possible."""
    read_only = [(m.target.rstrip("/"), source) for m, source in p.mounts if m.read_only]
    for target, source in p.system_files.items():
        below = [(t, s) for t, s in read_only if target.startswith(f"{t}/")]
        if all((s / target[len(t) + 1 :]).exists() for t, s in below):
            options = ["rbind", "rprivate", *(_locked(source) if p.ids else ())]
            p.document["mounts"].append({"destination": target, "type": "bind", "source": str(source), "options": options})


def _locked(source: Path) -> list[str]:
    """Options of the mount that *source* is on, which cannot be removed in another user namespace. Source:
    mount_namespaces(7), "Restrictions on mount namespaces"."""
    flags = os.statvfs(source).f_flag
    locked = {"ro": os.ST_RDONLY, "nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}
    return [option for option, flag in locked.items() if flags & flag]


def propagation(p: Parts) -> None:
    """Set `rootfsPropagation`: a mount receives mount events of the host only as far as the container's root does."""
    asked = {mount.propagation for mount, _ in p.mounts if mount.kind != "tmpfs"}
    if asked & {"shared", "rshared"}:
        p.document["linux"]["rootfsPropagation"] = "shared"
    elif asked & {"slave", "rslave"}:
        p.document["linux"]["rootfsPropagation"] = "rslave"


def hidden_paths(p: Parts) -> None:
    """Set `linux.maskedPaths` and `linux.readonlyPaths`, but for a container without confinement."""
    if not p.container.privileged and "systempaths=unconfined" not in p.container.security_opt:
        p.document["linux"]["maskedPaths"] = list(paths.MASKED)
        p.document["linux"]["readonlyPaths"] = list(paths.READ_ONLY)


def system_calls(p: Parts) -> None:
    """Set `linux.seccomp`, if a profile applies."""
    caps = p.document["process"]["capabilities"]["bounding"]
    profile = seccomp.resolve(p.container.security_opt, caps, privileged=p.container.privileged)
    if profile:
        own = {"listenerPath": p.listener} if observation.asked(p.container.security_opt) else {}
        p.document["linux"]["seccomp"] = {**profile, **own}


def mandatory_access(p: Parts) -> None:
    """Set `process.apparmorProfile`, if a profile applies. Raises BadRequestError if it is not loaded."""
    if profile := apparmor.resolve(p.container.security_opt, p.notes, privileged=p.container.privileged):
        p.document["process"]["apparmorProfile"] = profile


def labels(p: Parts) -> None:
    """Set `process.selinuxLabel` and `linux.mountLabel`, where there is SELinux."""
    if p.process_label:
        p.document["process"]["selinuxLabel"] = p.process_label
    if p.mount_label:
        p.document["linux"]["mountLabel"] = p.mount_label


def limits(p: Parts) -> None:
    """Set `linux.resources` and `linux.cgroupsPath`; without a control group a note says that limits are not enforced."""
    wanted = resources(p.container, p.notes, cgroup2=p.cgroup2)
    if not p.cgroup_parent:
        if wanted:
            p.notes.append(not_kept(wanted))
        return
    p.document["linux"].setdefault("resources", {}).update(wanted)
    p.document["linux"]["cgroupsPath"] = f"{p.cgroup_parent}/{p.id}"


def not_kept(names: Iterable[str]) -> str:
    """That the limits *names* are not kept where there is no control group."""
    return (
        f"limits ({', '.join(sorted(names))}) are not kept: this user has no control group of their own; "
        "`systemd-run --user --scope -p Delegate=yes pystack server` starts one that has"
    )


def resources(c: Container, notes: list[str], *, cgroup2: bool) -> Document:
    """The resources of the container, in terms of cgroup v1, which runc translates to v2; *notes* gets limits that this host
    lacks. Those of disks, huge pages and bursts are written by `limits`."""
    out: Document = {}
    for part, values in (
        ("cpu", _cpu(c, notes, cgroup2)),
        ("memory", _memory(c, notes, cgroup2)),
        ("pids", {"limit": c.pids} if c.pids else {}),
    ):
        if values:
            out[part] = values
    return out


def _cpu(c: Container, notes: list[str], cgroup2: bool) -> Document:
    cpu: Document = {}
    if c.cpus:
        cpu |= {"period": 100_000, "quota": max(1000, int(c.cpus * 100_000))}
    if c.cpu_period:
        cpu["period"] = c.cpu_period
    if c.cpu_quota:
        cpu["quota"] = c.cpu_quota
    if c.cpu_shares:
        cpu["shares"] = c.cpu_shares
    if c.cpuset:
        cpu["cpus"] = c.cpuset
    if c.cpuset_mems:
        cpu["mems"] = c.cpuset_mems
    if (c.cpu_rt_period or c.cpu_rt_runtime) and (cgroup2 or not (cgroups.ROOT / "cpu" / "cpu.rt_runtime_us").exists()):
        notes.append("cpu_rt_period and cpu_rt_runtime need a kernel with CONFIG_RT_GROUP_SCHED and cgroup version 1")
    return cpu


def _memory(c: Container, notes: list[str], cgroup2: bool) -> Document:
    memory: Document = {}
    if c.memory:
        memory["limit"] = c.memory
        if cgroup2 or _swap_is_accounted():
            memory["swap"] = c.memory_swap or c.memory * 2
    if c.memory_reservation:
        memory["reservation"] = c.memory_reservation
    for wanted, key, value, name in (
        (c.swappiness is not None, "swappiness", c.swappiness, "mem_swappiness"),
        (c.oom_kill_disable, "disableOOMKiller", True, "oom_kill_disable"),
    ):
        if wanted and cgroup2:
            notes.append(f"{name} has no counterpart in cgroup version 2: it has no effect on this node")
        elif wanted:
            memory[key] = value
    return memory


def _swap_is_accounted() -> bool:
    return Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()


def devices(p: Parts) -> None:
    """Set `linux.devices` and the rules of access to devices. Raises BadRequestError if one is missing or not a device node."""
    resources: Document = p.document["linux"].setdefault("resources", {})
    if p.container.privileged:
        resources["devices"] = [{"allow": True, "access": "rwm"}]
    else:
        numbers = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)]
        rules: list[Document] = [{"allow": False, "access": "rwm"}]
        rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
        for major, minor in numbers:
            rule: Document = {"allow": True, "type": "c", "major": major, "access": "rwm"}
            rules.append(rule if minor is None else rule | {"minor": minor})
        resources["devices"] = rules
    for text in p.container.device_rules:
        resources["devices"].append(_device_rule(text))
    nodes = []
    for device in p.container.devices:
        try:
            status = os.stat(device.source)
        except OSError as error:
            raise BadRequestError(
                f'error gathering device information while adding custom device "{device.source}": {reason(error)}'
            ) from error
        kind = {0o020000: "c", 0o060000: "b"}.get(status.st_mode & 0o170000)
        if kind is None:
            raise BadRequestError(f"device {device.source} is not a device node")
        number = {"type": kind, "major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
        nodes.append({**number, "path": device.target, "fileMode": status.st_mode & 0o777, "uid": 0, "gid": 0})
        if not p.container.privileged:
            resources["devices"].append({"allow": True, **number, "access": device.permissions})
    if nodes:
        p.document["linux"]["devices"] = nodes


def _device_rule(text: str) -> Document:
    """`c 1:3 rwm`, with * for any number. Source: docker-run(1), --device-cgroup-rule."""
    match = re.fullmatch(r"([abc]) (\d+|\*):(\d+|\*) ([rwm]{1,3})", text.strip())
    if not match:
        raise BadRequestError(f"invalid device cgroup rule format: {text!r}")
    rule: Document = {"allow": True, "type": match[1], "access": match[4]}
    return rule | {key: int(number) for key, number in (("major", match[2]), ("minor", match[3])) if number != "*"}


def requested_devices(p: Parts) -> None:
    """Add devices by name, after all mounts: a vendor's files lie above the user's mounts."""
    if p.container.device_requests:
        cdi.apply(p.container.device_requests, p.document, hardware.found(p.rootfs))


def sysctls(p: Parts) -> None:
    """Set `linux.sysctl`."""
    if p.sysctls:
        p.document["linux"]["sysctl"] = p.sysctls


def oci_annotations(p: Parts) -> None:
    """Set `annotations`."""
    if p.container.annotations:
        p.document["annotations"] = dict(p.container.annotations)


KEYS: tuple[Callable[[Parts], None], ...] = (
    process,
    root,
    ulimits,
    namespaces,
    standard_mounts,
    own_mounts,
    system_files,
    propagation,
    hidden_paths,
    system_calls,
    mandatory_access,
    labels,
    limits,
    devices,
    requested_devices,
    sysctls,
    oci_annotations,
)


def build(parts: Parts) -> Document:
    """The document for config.json. Raises BadRequestError for a spec that no kernel can grant."""
    parts.document = {"ociVersion": "1.0.2", "linux": {}}
    for key in KEYS:
        key(parts)
    return parts.document
