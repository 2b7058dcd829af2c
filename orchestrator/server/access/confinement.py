"""What a stack may not ask for if its user is limited to some stacks: it would reach the nodes, or others' stacks.

Pure. An operator of all stacks is root on the nodes by way of a stack file; one of `shop-*` must not be.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.contract.container import Container
from orchestrator.server.access.model import Caller
from orchestrator.stackfile.model import Service, Stack
from orchestrator.stackfile.workloads import Backup

CAPABILITIES = frozenset(
    {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "NET_RAW"}
    | {"SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"}
)
"""Those that a container has by default, and may therefore name."""
OPTIONS = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")
DRIVERS = ("", "bridge", "overlay")
REPOSITORIES = ("s3:", "b2:", "azure:", "gs:", "swift:", "rest:")
"""Those of restic's repositories that are neither a folder nor a program of the node."""
OWN_MODES = ("", "private", "none", "bridge", "default", "shareable")


def problems(stack: Stack, caller: Caller) -> list[str]:
    """What of *stack* is refused to *caller*, one sentence each with its place; nothing for one who is not limited."""
    if not caller.is_limited:
        return []
    return [*_of_parts(stack, caller), *(p for s in stack.services for p in _of_service(s, stack, caller))]


def _is_own(name: str, stack: Stack, caller: Caller) -> bool:
    return name.startswith((f"{stack.name}_", f"{stack.name}-")) or caller.has_stack(name)


def _of_parts(stack: Stack, caller: Caller) -> Iterator[str]:
    for network in stack.networks:
        if not _is_own(network.name, stack, caller):
            yield f"{network.where}: network {network.name}: it is not of your stacks"
        if not network.external and (network.driver not in DRIVERS or network.options):
            yield f"{network.where}: network {network.name}: drivers and options that reach the nodes' links"
    for volume in stack.volumes:
        if not _is_own(volume.name, stack, caller):
            yield f"{volume.where}: volume {volume.name}: it is not of your stacks"
        if not volume.external and (volume.driver not in ("", "local") or volume.options):
            yield f"{volume.where}: volume {volume.name}: a driver or options, which can mount anything of the node"
        if volume.backup:
            yield f"{volume.backup.where}: volume {volume.name}: x-backup runs on the node, with its folders and its network"
        if volume.backup and (problem := _of_backup(volume.backup)):
            yield f"{volume.backup.where or volume.where}: x-backup of {volume.name}: {problem}"
    for content in stack.contents:
        if content.external and not _is_own(content.name, stack, caller):
            yield f"{content.kind} {content.name}: it is not of your stacks"


def _of_backup(backup: Backup) -> str:
    """Why *backup* is refused, "" if it is not: it is made by root on the node."""
    if not backup.place.startswith(REPOSITORIES) or backup.rclone:
        return f"{backup.place} is reached as root on the node: name a repository of {', '.join(REPOSITORIES)}"
    if any(command and command.hook.privileged for command in (backup.before, backup.after)):
        return "a privileged hook"
    return ""


def _of_service(service: Service, stack: Stack, caller: Caller) -> Iterator[str]:
    at = f"{service.where}: {service.name}"
    for what in _of_container(service.container):
        yield f"{at}: {what}"
    volumes = {v.name for v in stack.volumes}
    for mount in service.container.mounts:
        if mount.kind == "bind":
            yield f"{at}: {mount.source} of the node is mounted"
        elif mount.kind == "volume" and mount.source and mount.source not in volumes | {v.key for v in stack.volumes}:
            yield f"{at}: volume {mount.source} is not of this stack"
    if service.build and (service.build.privileged or service.build.entitlements or service.build.network == "host"):
        yield f"{at}: build with more rights"
    hooks = (*service.container.post_start, *service.container.pre_stop, *(h.hook for h in service.pre_start))
    if any(hook.privileged for hook in hooks):
        yield f"{at}: a privileged hook"


def _of_container(one: Container) -> Iterator[str]:
    for name in (
        "privileged",
        "devices",
        "device_rules",
        "cgroup_parent",
        "api_socket",
        "runtime",
        "oom_kill_disable",
        "blkio",
    ):
        if getattr(one, name):
            yield f"{name} reaches the node"
    if one.oom_score_adj < 0:
        yield "oom_score_adj below 0 is at the cost of the node"
    for name in ("network_mode", "pid_mode", "ipc_mode", "uts_mode", "cgroup_mode", "userns_mode"):
        word = getattr(one, name)
        if word not in (*OWN_MODES, "auto") and not word.startswith("service:"):
            yield f"{name} {word} leaves the stack"
    if wrong := [c for c in one.cap_add if c.upper().removeprefix("CAP_") not in CAPABILITIES]:
        yield f"cap_add {', '.join(wrong)}"
    if wrong := [o for o in one.security_opt if o not in OPTIONS]:
        yield f"security_opt {', '.join(wrong)}"
    if wrong := [v for v in one.volumes_from if v.startswith("container:")]:
        yield f"volumes_from {', '.join(wrong)} leaves the stack"
