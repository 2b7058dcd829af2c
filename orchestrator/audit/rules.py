"""Rules of the benchmark's sections 4 (images) and 5 (containers), each a function of one service.

A rule answers with what is wrong and where, or with nothing. Rules that say nothing of a container that pystack makes (5.1
Swarm mode, 5.9 needed ports, 5.19 default ulimits, 5.23 and 5.24 `docker exec`, 5.30 the default bridge) are left out.
Source: CIS Docker Benchmark 1.6.0, sections 4 and 5; docker-bench-security, tests/4 and tests/5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from agent.contract import selinux
from agent.contract.container import Container
from agent.contract.trust import ImagePolicy
from orchestrator.audit.finding import Finding, Level
from orchestrator.stackfile.model import Service

SENSITIVE = (
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/sys",
    "/usr",
    "/var/lib/pystack",
    "/var/lib/docker",
)
SOCKETS = ("docker.sock", "pystack.sock", "containerd.sock", "podman.sock")
MANY_RIGHTS = frozenset({"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "NET_ADMIN", "DAC_READ_SEARCH", "BPF"})
MOST_RESTARTS = 5


class Wrong(NamedTuple):
    """*key* is the key of the service that says it, or that would; *fix* what to write."""

    key: str
    detail: str
    fix: str


Check = Callable[[Container, ImagePolicy], Iterator[Wrong]]


class Rule(NamedTuple):
    """A section of the benchmark, and its check."""

    number: str
    title: str
    level: Level
    check: Check


def _options(c: Container) -> dict[str, str]:
    return {key: value for key, _, value in (o.replace("=", ":", 1).partition(":") for o in c.security_opt)}


def user(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    """4.1: a user of its own; the image's own user is not known here."""
    if c.user.partition(":")[0] in ("root", "0"):
        yield Wrong("user", "it runs as root", 'user: "1000:1000", or x-harden: strict')
    elif not c.user and policy.root:
        yield Wrong("user", "it runs as the user of its image, which is root if the image names none", 'user: "1000:1000"')


def signed(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    """4.5: content trust."""
    if not policy.signed and not policy.locked:
        yield Wrong("image", "nothing proves who made the image", "x-policy: {signed: …} or {locked: true}")


def healthcheck(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    """4.6 and 5.27: a health check; the image may have one."""
    if c.healthcheck is None:
        yield Wrong("healthcheck", "it has no health check of its own", "healthcheck: {test: …}")
    elif c.healthcheck.test[:1] == ("NONE",):
        yield Wrong("healthcheck", "its health check is switched off", "take disable: out")


def apparmor(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if _options(c).get("apparmor") == "unconfined":
        yield Wrong("security_opt", "AppArmor is switched off", "take apparmor=unconfined out")


def labels(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if selinux.DISABLE in selinux.options(c.security_opt):
        yield Wrong("security_opt", "SELinux is switched off", "take label=disable out")


def capabilities(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    given = {name.upper().removeprefix("CAP_") for name in c.cap_add}
    if many := sorted(given & MANY_RIGHTS):
        yield Wrong("cap_add", f"it has {', '.join(many)}, with which it can leave its container", "name what it needs alone")
    elif "ALL" not in {name.upper().removeprefix("CAP_") for name in c.cap_drop}:
        yield Wrong("cap_drop", "it keeps Docker's default capabilities", "cap_drop: [ALL], or x-harden: strict")


def privileged(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if c.privileged:
        yield Wrong("privileged", "nothing confines it", "privileged: false, with cap_add and devices for what it needs")


def host_folders(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    for mount in c.mounts:
        if mount.kind == "bind" and not mount.read_only and (mount.source.rstrip("/") or "/") in SENSITIVE:
            yield Wrong(
                "volumes", f"it can write {mount.source} of its node", f"{mount.source}:{mount.target}:ro, or less of it"
            )


def low_ports(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    for port in c.ports:
        if 0 < port.published < 1024 and port.published not in (80, 443):
            yield Wrong("ports", f"it publishes port {port.published}, one of root's", "publish a port above 1023")


def addresses(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    for port in c.ports:
        if port.host_ip in ("", "0.0.0.0", "::") and port.published:
            fix = f'"127.0.0.1:{port.published}:{port.target}", or the address that it is for'
            yield Wrong("ports", f"port {port.published} is open at every address of its node", fix)


def namespaces(field: str, key: str, what: str) -> Check:
    """That *field* of the container is not the host's."""

    def check(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
        if getattr(c, field) == "host":
            yield Wrong(key, f"it is in its node's {what}", f"take {key}: host out")

    return check


def memory(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if not c.memory:
        yield Wrong("mem_limit", "it may use all memory of its node", "mem_limit: 256m")


def cpu(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if not (c.cpus or c.cpu_shares or c.cpu_quota):
        yield Wrong("cpus", "it may use all CPUs of its node", "cpus: 1")


def read_only(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if not c.read_only:
        yield Wrong(
            "read_only", "its root can be written", "read_only: true, with tmpfs: for what it writes; or x-harden: strict"
        )


def restarts(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if c.restart in ("always", "unless-stopped") or (c.restart == "on-failure" and not 0 < c.restart_max <= MOST_RESTARTS):
        yield Wrong("restart", "it is restarted without an end", f"restart: on-failure:{MOST_RESTARTS}")


def devices(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    for device in c.devices:
        if device.source not in ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/fuse"):
            yield Wrong("devices", f"it has {device.source} of its node", "take it out, or give r alone")


def propagation(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    for mount in c.mounts:
        if mount.propagation in ("shared", "rshared"):
            yield Wrong("volumes", f"what it mounts below {mount.target} its node sees too", "propagation: rprivate or rslave")


def seccomp(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if _options(c).get("seccomp") == "unconfined":
        yield Wrong("security_opt", "no system call is kept from it", "take seccomp=unconfined out: builtin is the default")


def cgroup(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if c.cgroup_parent or c.cgroup_mode == "host":
        yield Wrong(
            "cgroup_parent", "its control group is not among those of pystack", "take cgroup_parent: and cgroup: host out"
        )


def no_new_privileges(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if _options(c).get("no-new-privileges", "false") in ("false", "0"):
        yield Wrong("security_opt", "programs in it can gain rights (setuid)", "security_opt: [no-new-privileges:true]")


def latest(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    name = c.image.rpartition("/")[2]
    if "@" not in name and name.partition(":")[2] in ("", "latest"):
        yield Wrong("image", f"{c.image} may be another image tomorrow", "name a version or a digest; `pystack lock`")


def pids(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if not c.pids:
        yield Wrong("pids_limit", "it may have as many processes as its node", "pids_limit: 100")


def sockets(c: Container, policy: ImagePolicy) -> Iterator[Wrong]:
    if c.api_socket:
        yield Wrong("use_api_socket", "it is given the engine's API, and so its node", "take use_api_socket out")
    for mount in c.mounts:
        if mount.kind == "bind" and mount.source.rsplit("/", 1)[-1] in SOCKETS:
            yield Wrong("volumes", f"it is given {mount.source}, and so its node", "use a door with access: read (config.yml)")


RULES: tuple[Rule, ...] = (
    Rule("4.1", "A user for the container", "warning", user),
    Rule("4.5", "Content trust", "note", signed),
    Rule("4.6", "A health check", "note", healthcheck),
    Rule("5.2", "An AppArmor profile", "warning", apparmor),
    Rule("5.3", "SELinux labels", "warning", labels),
    Rule("5.4", "Few capabilities", "warning", capabilities),
    Rule("5.5", "No privileged container", "error", privileged),
    Rule("5.6", "No sensitive folders of the host", "error", host_folders),
    Rule("5.8", "No privileged ports", "note", low_ports),
    Rule("5.10", "No network of the host", "error", namespaces("network_mode", "network_mode", "network")),
    Rule("5.11", "A limit of memory", "warning", memory),
    Rule("5.12", "A limit of CPU", "note", cpu),
    Rule("5.13", "A root that is read-only", "warning", read_only),
    Rule("5.14", "Ports at one interface", "note", addresses),
    Rule("5.15", "At most five restarts", "note", restarts),
    Rule("5.16", "No processes of the host", "error", namespaces("pid_mode", "pid", "PID namespace")),
    Rule("5.17", "No IPC of the host", "error", namespaces("ipc_mode", "ipc", "IPC namespace")),
    Rule("5.18", "No devices of the host", "warning", devices),
    Rule("5.20", "No shared propagation", "warning", propagation),
    Rule("5.21", "No UTS namespace of the host", "error", namespaces("uts_mode", "uts", "UTS namespace")),
    Rule("5.22", "A seccomp profile", "error", seccomp),
    Rule("5.25", "A control group of pystack's", "note", cgroup),
    Rule("5.26", "No new privileges", "warning", no_new_privileges),
    Rule("5.28", "A pinned image", "note", latest),
    Rule("5.29", "A limit of processes", "warning", pids),
    Rule("5.31", "No user namespace of the host", "note", namespaces("userns_mode", "userns_mode", "user namespace")),
    Rule("5.32", "No socket of the engine", "error", sockets),
)


def examine(service: Service, policy: ImagePolicy, place: Callable[[str, str], str]) -> Iterator[Finding]:
    """Every rule on *service*: each thing that is wrong, or one finding that is ok. *place* gives the place of a service's key
    in its file."""
    for rule in RULES:
        wrong = list(rule.check(service.container, policy))
        target = f"services.{service.name}"
        if not wrong:
            yield Finding(rule=rule.number, title=rule.title, target=target, ok=True)
        for one in wrong:
            yield Finding(
                rule=rule.number,
                title=rule.title,
                target=target,
                ok=False,
                level=rule.level,
                detail=one.detail,
                fix=one.fix,
                where=place(service.name, one.key),
            )
