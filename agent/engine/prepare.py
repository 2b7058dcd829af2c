"""Makes the bundle of a container on disk from its spec and its image: process, namespaces, mounts, files in /etc."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from agent import files, mounts, rootless
from agent.containers import bundle, userns, users
from agent.contract.container import Mount
from agent.engine import etcfiles, mount_sources, selinux_labels, sharing
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import BadRequestError
from agent.images.types import Config, RunConfig
from agent.isolation import selinux
from netplugins.linux import sysctl

SHM = "shm"
"""The folder of a bundle that is /dev/shm, where that is shared with other containers."""
SHAREABLE = "shareable"
"""The mode of a container whose IPC namespace, and with it /dev/shm, others may join."""
ETC = "etc"
"""The folder of a bundle for the files in /etc that a container may write to: a file system of its own, or it could fill the
host's /run."""
ETC_BYTES = 4 << 20
"""Room for a host's own /etc/hosts, where a container shares its network, and for lines that a container adds."""
DOCKER_MARK = "/.dockerenv"
"""The file by which programs know that they are in a container of Docker's kind."""
MOUNT_TABLE = "/etc/mtab"
"""Where df(1) and others look for mounts."""
INIT = (
    f"{sys.prefix}/bin/tini-static",
    "/usr/bin/tini-static",
    "/usr/bin/catatonit",
    "/usr/libexec/podman/catatonit",
    "/usr/bin/docker-init",
)
"""Programs that can be a container's first process; the first was sent over with the agent."""
INIT_TARGET = "/sbin/pystack-init"
"""The path of the init program in a container."""


def arguments(record: Record, image: RunConfig) -> list[str]:
    """entrypoint + command; an entrypoint of one's own drops the image's command."""
    c = record.container
    entrypoint = list(c.entrypoint if c.entrypoint is not None else image.entrypoint or ())
    of_image = image.cmd if c.entrypoint is None else ()
    command = list(c.command if c.command is not None else of_image or ())
    if not entrypoint + command:
        raise BadRequestError(f"image {c.image} names no command to run: give one (command: …)")
    return entrypoint + command


def hostname(record: Record) -> str:
    """The host name in the container: its own, the host's where it shares that, or its short ID."""
    c = record.container
    if c.network_mode == "host" or c.uts_mode == "host":
        return c.hostname or os.uname().nodename
    return c.hostname or record.short


def _namespaces(context: EngineContext, record: Record) -> dict[str, str]:
    """OCI namespaces: "" new, a path to join, absent for the host's."""
    c = record.container
    out = {"mount": "", "pid": "", "ipc": "", "uts": ""}
    joined: dict[str, str] = {}
    for kind, mode in (("pid", c.pid_mode), ("ipc", c.ipc_mode), ("uts", c.uts_mode)):
        if mode == "host":
            del out[kind]
        elif other := sharing.running_owner(context.containers, record, mode):
            out[kind] = f"/proc/{other.process.pid}/ns/{kind}" if other.process else ""
            joined[kind] = other.id
    if (heir := next(iter(sharing.users(context.containers, record, "ipc")), None)) and heir.process and "ipc" not in joined:
        out["ipc"] = f"/proc/{heir.process.pid}/ns/ipc"  # its own one, which has outlived it
    if c.network_mode == "host":
        pass
    elif other := sharing.running_owner(context.containers, record, c.network_mode, "network"):
        out["network"] = f"/proc/{other.process.pid}/ns/net" if other.process else ""
        joined["network"] = other.id
    else:
        out["network"] = str(context.networks.endpoints.netns(record))
    if c.cgroup_mode == "private" or (context.cgroup2 and c.cgroup_mode != "host"):
        out["cgroup"] = ""
    record.joined = joined
    return out


def user_namespace(context: EngineContext, record: Record) -> tuple[int, Path | None]:
    """The user namespace of *record*: the host's ID of its root, and its path; (0, None) is the node's own.

    A container that joins a namespace of another must be in its user namespace too, which alone may use it. Raises
    BadRequestError."""
    c = record.container
    mode = c.userns_mode or context.settings.userns
    donors = [
        d for d in (sharing.running_owner(context.containers, record, m) for m in (c.network_mode, c.pid_mode, c.ipc_mode)) if d
    ]
    if donors:
        if len({d.ids for d in donors}) > 1:
            raise BadRequestError("it shares namespaces of containers in different user namespaces: give all userns_mode: host")
        donor = donors[0]
        if c.userns_mode and (mode == "host") != (donor.ids == 0):
            raise BadRequestError(
                f"userns_mode: {mode}: it shares namespaces of {donor.name}, and must have the same userns_mode"
            )
        path = next((Path(f"/proc/{d.process.pid}/ns/user") for d in donors if d.ids and d.process), None)
        return donor.ids, path
    if record.id in context.networks.endpoints.attached and record.ids:  # it outlived its last run
        return record.ids, context.paths.user_namespace(record.id)
    if mode == "host":
        return 0, None
    modes = {"network_mode": c.network_mode, "pid": c.pid_mode, "ipc": c.ipc_mode}
    wants = ["privileged"] if c.privileged else [f"{key}: host" for key, value in modes.items() if value == "host"]
    if wants:
        raise BadRequestError(
            f"{' and '.join(wants)}: a container in a user namespace has nothing of the host: userns_mode: host"
        )
    if rootless.inside():
        raise BadRequestError("userns_mode: auto: a server without root has one user namespace for all its containers")
    return userns.free(r.ids for r in context.containers.records.values()), context.paths.user_namespace(record.id)


def shares_network(record: Record) -> bool:
    """Whether the container joins the network namespace of another."""
    return record.container.network_mode.partition(":")[0] in ("service", "container")


def etc(bundle: Path) -> Path:
    """Where a container's own files in /etc are; an agent of an older version put them beside the rest."""
    folder = bundle / ETC
    return folder if folder.is_dir() else bundle


def linked(context: EngineContext, record: Record) -> dict[str, str]:
    """The environment variables of the links of a container on the default bridge. Source: Docker, "Legacy container links",
    environment variables."""
    found: dict[str, str] = {}
    if record.stack or not any(e.network == "bridge" for e in record.endpoints):
        return found
    for alias, name in record.container.links:
        other = context.containers.find(name)
        prefix, address = alias.upper().replace("-", "_"), next((e.ipv4 for e in other.endpoints if e.network == "bridge"), "")
        found[f"{prefix}_NAME"] = f"/{record.name}/{alias}"
        own = {
            **dict(p.partition("=")[::2] for p in context.image_config(other).env or ()),
            **dict(other.container.environment),
        }
        found |= {f"{prefix}_ENV_{k}": v for k, v in own.items() if k not in ("PATH", "HOME")}
        exposed = (*(context.image_config(other).exposed_ports or ()), *other.container.expose)
        ports = sorted(
            {(int(n), kind or "tcp") for n, _, kind in (p.partition("/") for p in exposed) if re.fullmatch(r"[0-9]{1,5}", n)}
        )
        for number, (port, kind) in enumerate(ports):
            url, key = f"{kind}://{address}:{port}", f"{prefix}_PORT_{port}_{kind.upper()}"
            found |= {key: url, f"{key}_ADDR": address, f"{key}_PORT": str(port), f"{key}_PROTO": kind}
            if not number:
                found[f"{prefix}_PORT"] = url
    return found


def sysctls(record: Record) -> dict[str, str]:
    """The container's own, and those of its interfaces by their names in there."""
    c, names = record.container, {e.network: e.interface for e in record.endpoints}
    own = {k.replace("IFNAME", names.get(a.network, "")): v for a in record.container.attachments for k, v in a.sysctls}
    asked = dict(record.container.sysctls)
    if record.container.network_mode == "host":
        asked = {k: v for k, v in asked.items() if k not in HOST_SYSCTLS}
    # runtimes before version 1.1 of OCI's specification have no other word for it
    domain = {"kernel.domainname": c.domainname} if c.domainname and c.uts_mode != "host" else {}
    return {**domain, **own, **asked}


HOST_SYSCTLS = frozenset({"net.ipv4.tcp_migrate_req"})
"""What a container on the host's own network may switch on there: nobody loses by it. With this one, connections that wait in
the queue of one of several listeners at a port are given to another when it closes. Source: Linux, ip-sysctl.rst."""


def switch_on_host_sysctls(record: Record) -> None:
    """Switch on those of HOST_SYSCTLS that a container on the host's network asks for."""
    if record.container.network_mode == "host":
        for name, value in record.container.sysctls:
            if name in HOST_SYSCTLS and value == "1":
                sysctl.write(name.replace(".", "/"), value)


async def write_bundle(context: EngineContext, record: Record, config: Config, rootfs: Path, user: Path | None) -> None:
    """Write the bundle of the runtime below the container's directory; *user* is its user namespace, None for the node's.

    Raises BadRequestError, NotFoundError."""
    c = record.container
    image = config.config or RunConfig()
    _make_top_directories(rootfs, c.image)
    own = await mount_sources.sources(context, record, image, rootfs, user)
    name, system_files = _system_files(context, record)
    if c.api_socket:
        files.make_in_root(rootfs, mount_sources.DOCKER_SOCKETS[0], directory=False)
        own.append((Mount(kind="bind", target=mount_sources.DOCKER_SOCKETS[0]), context.paths.docker_socket))
    taken = {m.target for m, _ in own}
    system_files = {t: p for t, p in system_files.items() if t not in taken}
    for target in (DOCKER_MARK, *system_files):
        files.make_in_root(rootfs, target, directory=False)
    files.link_in_root(rootfs, MOUNT_TABLE, "/proc/mounts")
    identity = users.resolve(rootfs, c.user or image.user, c.group_add)
    working_dir = c.working_dir or image.working_dir or "/"
    if not working_dir.startswith("/") or working_dir.startswith("/proc/"):
        raise BadRequestError(f"working_dir {working_dir!r} must be an absolute path outside /proc")
    files.make_in_root(rootfs, working_dir, directory=True)
    args = arguments(record, image)
    if c.init:
        own.append(_init_mount(context, record, rootfs))
        args = [INIT_TARGET, "--", *args]
    namespaces = _namespaces(context, record)
    parts = bundle.Parts(
        id=record.id,
        container=c,
        args=args,
        environment=_environment(context, record, image),
        working_dir=working_dir,
        identity=identity,
        rootfs=rootfs,
        hostname=name,
        cgroup_parent=context.cgroup_parent(record),
        namespaces=namespaces | ({"user": str(user)} if user else {}),
        listener=str(context.paths.listener(record.id)),
        ids=record.ids,
        mounts=own,
        system_files=system_files,
        cgroup2=context.cgroup2,
        sysctls=sysctls(record),
        shm=_shared_memory(context, record),
        process_label=record.process_label,
        mount_label=record.mount_label,
        notes=selinux_labels.notes(context, record),
    )
    document = bundle.build(parts)
    if "uts" not in parts.namespaces:
        del document["hostname"]
    record.notes = parts.notes
    context.runtime.write(record.id, context.paths.bundle(record.id), document)


def _shared_memory(context: EngineContext, record: Record) -> Path | None:
    """The folder that is /dev/shm of *record* and of others: its own, if they may join its IPC namespace, or its owner's; None
    where it has one inside alone. Raises BadRequestError."""
    c = record.container
    if c.ipc_mode == SHAREABLE:
        folder = context.paths.bundle(record.id) / SHM
        mount_sources.make_tmpfs(
            folder, f"mode=1777,size={c.shm_size}", record.mount_label
        )  # unless its users kept that of its last run
        return folder
    owner = sharing.running_owner(context.containers, record, c.ipc_mode)
    if owner is None or "ipc" not in record.joined:
        return None
    if not mounts.is_mounted(folder := context.paths.bundle(owner.id) / SHM):
        raise BadRequestError(
            f"cannot join IPC of container {owner.name}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    return folder


def _make_top_directories(rootfs: Path, image: str) -> None:
    """Make the directories that the runtime mounts on. Raises BadRequestError if *image* has a symbolic link there."""
    for top in ("dev", "proc", "sys", "etc"):
        path = rootfs / top
        if path.is_symlink():
            # an image whose /dev or /proc is a link could lead the runtime's mounts elsewhere (CVE-2025-31133 and kin)
            raise BadRequestError(f"image {image}: /{top} is a symbolic link: refused")
        path.mkdir(exist_ok=True)


def _system_files(context: EngineContext, record: Record) -> tuple[str, dict[str, Path]]:
    """The host name, and hosts, hostname and resolv.conf by their paths in the container: those of the container whose network
    *record* shares, or new ones."""
    name, mode = hostname(record), record.container.network_mode
    if shares_network(record):
        other = sharing.running_owner(context.containers, record, mode)
        assert other
        system_files = {f"/etc/{n}": etc(context.paths.bundle(other.id)) / n for n in ("hosts", "hostname", "resolv.conf")}
        _label(system_files, selinux.shared(record.mount_label))  # both write there
        return hostname(other), system_files
    directory = context.paths.bundle(record.id) / ETC
    mount_sources.make_tmpfs(directory, f"mode=0755,size={ETC_BYTES},nr_inodes=16")
    gateway = context.gateway_of(record)
    system_files = etcfiles.write(directory, record, name, gateway=gateway, shared_host_network=mode == "host")
    for path in system_files.values():
        os.chown(path, record.ids, record.ids)
    users = sharing.users(context.containers, record, "network")
    _label(system_files, selinux.shared(record.mount_label) if users else record.mount_label)
    return name, system_files


def _label(system_files: dict[str, Path], label: str) -> None:
    for path in system_files.values():
        selinux.set_label(path, label)


def _init_mount(context: EngineContext, record: Record, rootfs: Path) -> tuple[Mount, Path]:
    """The mount of the node's init program at INIT_TARGET. Raises BadRequestError if the node has none."""
    program = next((Path(p) for p in INIT if Path(p).exists()), None)
    if program is None:
        raise BadRequestError("init: true needs an init program on the node: `apt-get install tini`")
    if record.mount_label:  # the host's own program is not the container's to run
        copy = context.paths.container(record.id) / "init"
        files.write_atomically(copy, program.read_bytes(), 0o755)
        selinux.set_label(copy, record.mount_label)
        program = copy
    files.make_in_root(rootfs, INIT_TARGET, directory=False)
    return Mount(kind="bind", target=INIT_TARGET, read_only=True), program


def _environment(context: EngineContext, record: Record, image: RunConfig) -> dict[str, str]:
    """The variables of links, of the image, and of the container, the later first in rank."""
    environment = linked(context, record) | dict(pair.partition("=")[::2] for pair in image.env or ())
    for gone in record.container.environment_dropped:
        environment.pop(gone, None)
    return environment | dict(record.container.environment)
