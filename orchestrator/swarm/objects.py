"""Nodes, services and tasks of the cluster in the words of Swarm.

Pure. Source: Docker Engine API v1.48, sections Swarm, Node, Service, Task, Secret, Config (the definitions of their objects).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from agent.contract.container import Container
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from agent.contract.times import timestamp
from orchestrator.placement.node import Node
from orchestrator.planning.jobs import iteration
from orchestrator.server.contents import ExternalContent
from orchestrator.server.records import StackRecord
from orchestrator.server.rollouts.records import RolloutRecord
from orchestrator.stackfile.model import Service, UpdateConfig

Object = dict[str, Any]
STACK = "com.docker.stack.namespace"
"""The label by which Docker's clients know the stack of something."""
SINGLE = "services"
"""The stack of services that are created by themselves, which Swarm's clients do not see."""
PROJECT = "com.docker.compose.project"
LENGTH = 25
"""Digits of an ID, to the base of 36."""
STATES = {
    "pulling": "preparing",
    "created": "ready",
    "starting": "starting",
    "running": "running",
    "restarting": "starting",
    "paused": "running",
    "stopping": "running",
    "exited": "complete",
    "failed": "failed",
}
"""Of a task: Swarm's word for each of ours; "pending" is the same."""
NANO = 1_000_000_000
ZERO = "0001-01-01T00:00:00Z"


def identity(kind: str, name: str) -> str:
    """The ID of the *kind* called *name*: the same as long as it is there, and on every server."""
    number = int.from_bytes(hashlib.sha256(f"{kind}\0{name}".encode()).digest())
    digits = ""
    while len(digits) < LENGTH:
        number, digit = divmod(number, 36)
        digits += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
    return digits


def service_name(stack: str, service: str) -> str:
    """What Swarm calls a service of a stack, or one that is of none."""
    return service if stack == SINGLE else f"{stack}_{service}"


def stack_label(stack: str) -> dict[str, str]:
    """The label of what is of a stack; none for services that are of none."""
    return {} if stack == SINGLE else {STACK: stack}


def _dated(index: int, when: str) -> Object:
    return {"Version": {"Index": index}, "CreatedAt": when or ZERO, "UpdatedAt": when or ZERO}


# --- nodes ---------------------------------------------------------------------------------------------------------------


def node_of(node: Node, *, ready: bool, problem: str, leader: bool, index: int) -> Object:
    """*node*; *leader* leads the cluster, *problem* says why it is not *ready*."""
    info = node.info
    manager = node.server or leader
    document: Object = {
        "ID": identity("node", node.name),
        **_dated(index, ""),
        "Spec": {
            "Name": node.name,
            "Labels": dict(node.labels),
            "Role": "manager" if manager else "worker",
            "Availability": node.availability,
        },
        "Description": {
            "Hostname": info.hostname or node.name,
            "Platform": {"Architecture": {"amd64": "x86_64", "arm64": "aarch64"}.get(info.arch, info.arch), "OS": info.os},
            "Resources": {"NanoCPUs": int(info.cpus * NANO), "MemoryBytes": info.memory},
            "Engine": {
                "EngineVersion": info.version,
                "Labels": dict(info.labels),
                "Plugins": [{"Type": "Network", "Name": name} for name in info.drivers],
            },
            "TLSInfo": {},
        },
        "Status": {
            "State": "ready" if ready else "down",
            "Addr": node.underlay or "127.0.0.1",
            **({"Message": problem} if problem and not ready else {}),
        },
    }
    if manager:
        document["ManagerStatus"] = {
            "Reachability": "reachable" if ready else "unreachable",
            "Addr": f"{node.underlay or '127.0.0.1'}:2377",
            **({"Leader": True} if leader else {}),
        }
    return document


# --- services ------------------------------------------------------------------------------------------------------------


def _health(container: Container) -> Object:
    check = container.healthcheck
    if check is None:
        return {}
    return {
        "Healthcheck": {
            "Test": list(check.test) or ["NONE"],
            "Interval": int(check.interval_s * NANO),
            "Timeout": int(check.timeout_s * NANO),
            "Retries": check.retries,
            "StartPeriod": int(check.start_period_s * NANO),
        }
    }


def _files(container: Container, *, secret: bool) -> list[Object]:
    kind = "Secret" if secret else "Config"
    return [
        {
            "File": {"Name": f.target, "UID": str(f.uid), "GID": str(f.gid), "Mode": f.mode},
            f"{kind}ID": identity(kind.lower(), f.source),
            f"{kind}Name": f.source,
        }
        for f in container.files
        if f.secret == secret
    ]


def _container_spec(container: Container, stack: str) -> Object:
    mounts = [
        {"Type": m.kind, "Source": m.source, "Target": m.target, "ReadOnly": m.read_only}
        for m in container.mounts
        if m.kind != "image"
    ]
    return {
        "Image": container.image,
        "Labels": {**dict(container.labels), **stack_label(stack)},
        **({"Command": list(container.entrypoint)} if container.entrypoint else {}),
        **({"Args": list(container.command)} if container.command else {}),
        **({"Hostname": container.hostname} if container.hostname else {}),
        "Env": [f"{k}={v}" for k, v in container.environment],
        **({"Dir": container.working_dir} if container.working_dir else {}),
        **({"User": container.user} if container.user else {}),
        **({"TTY": True} if container.tty else {}),
        **({"ReadOnly": True} if container.read_only else {}),
        **({"Mounts": mounts} if mounts else {}),
        "StopGracePeriod": int(container.stop_grace_s * NANO),
        **_health(container),
        **({"Secrets": found} if (found := _files(container, secret=True)) else {}),
        **({"Configs": found} if (found := _files(container, secret=False)) else {}),
        "Isolation": "default",
    }


def task_spec(service: Service, stack: str) -> Object:
    """What Swarm calls the template of a service's tasks."""
    container, placement = service.container, service.placement
    restart = {"no": "none", "on-failure": "on-failure"}.get(container.restart, "any")
    preferences = [{"Spread": {"SpreadDescriptor": label}} for label in placement.spread]
    return {
        "ContainerSpec": _container_spec(container, stack),
        "Resources": {
            "Limits": {
                **({"NanoCPUs": int(container.cpus * NANO)} if container.cpus else {}),
                **({"MemoryBytes": container.memory} if container.memory else {}),
                **({"Pids": container.pids} if container.pids > 0 else {}),
            },
            "Reservations": {
                **({"NanoCPUs": int(service.reserves.cpus * NANO)} if service.reserves.cpus else {}),
                **({"MemoryBytes": service.reserves.memory} if service.reserves.memory else {}),
            },
        },
        "RestartPolicy": {
            "Condition": restart,
            "Delay": int(container.restart_delay_s * NANO),
            "MaxAttempts": container.restart_max,
        },
        "Placement": {
            "Constraints": list(placement.constraints),
            **({"Preferences": preferences} if preferences else {}),
            **({"MaxReplicas": placement.max_per_node} if placement.max_per_node else {}),
        },
        "Networks": [
            {"Target": identity("network", a.network), "Aliases": list(dict.fromkeys((service.name, *a.aliases)))}
            for a in container.attachments
        ],
        "ForceUpdate": 0,
        "Runtime": "container",
    }


def _update(config: UpdateConfig) -> Object:
    return {
        "Parallelism": config.parallelism,
        "Delay": int(config.delay_s * NANO),
        "FailureAction": config.failure_action,
        "Monitor": int(config.monitor_s * NANO),
        "MaxFailureRatio": config.max_failure_ratio,
        "Order": config.order,
    }


def mode_of(service: Service) -> Object:
    """How many tasks a service has."""
    if service.is_job:
        if service.mode == "global-job":
            return {"GlobalJob": {}}
        total = service.replicas
        return {"ReplicatedJob": {"MaxConcurrent": service.max_concurrent or total, "TotalCompletions": total}}
    return {"Global": {}} if service.mode == "global" else {"Replicated": {"Replicas": service.replicas}}


def _ports(service: Service) -> list[Object]:
    return [
        {"Protocol": p.protocol, "TargetPort": p.target, "PublishedPort": p.published, "PublishMode": p.mode}
        for p in service.container.ports
    ]


def update_status(service: Service, rollout: RolloutRecord | None) -> Object:
    """How far *rollout*, the last one of the stack, is with *service*, or why it stopped; nothing of one that went well."""
    if rollout is None or not rollout.concerns(service.name):
        return {}
    word = {"running": "updating", "paused": "paused", "failed": "paused", "aborted": "rollback_completed"}.get(rollout.state)
    if word is None:
        return {}
    ended = {"CompletedAt": timestamp(rollout.ended)} if rollout.ended else {}
    message = rollout.reason or "; ".join(f"{f.task}: {f.reason}" for f in rollout.failures) or rollout.phase
    return {"UpdateStatus": {"State": word, "StartedAt": timestamp(rollout.begun), **ended, "Message": message}}


def service_of(
    record: StackRecord, service: Service, tasks: list[Task], states: list[str], rollout: RolloutRecord | None = None
) -> Object:
    """*service* of the stack of *record*, whose last rollout is *rollout*. *states* are Swarm's words for its *tasks*."""
    stack, ports = record.stack.name, _ports(service)
    of_stack = stack_label(stack)
    spec: Object = {
        "Name": service_name(stack, service.name),
        "Labels": {**dict(service.labels), **(of_stack and {**of_stack, "com.docker.stack.image": service.container.image})},
        "TaskTemplate": task_spec(service, stack),
        "Mode": mode_of(service),
        "EndpointSpec": {"Mode": service.endpoint_mode or "vip", **({"Ports": ports} if ports else {})},
        **({"UpdateConfig": _update(service.update)} if service.update else {}),
        **({"RollbackConfig": _update(service.rollback)} if service.rollback else {}),
    }
    wanted = sum(t.desired == "running" for t in tasks)
    return {
        "ID": identity("service", service_name(stack, service.name)),
        **_dated(record.revision, record.updated),
        "Spec": spec,
        "Endpoint": {"Spec": spec["EndpointSpec"], **({"Ports": ports} if ports else {})},
        **update_status(service, rollout),
        **({"JobStatus": {"JobIteration": job_iteration(tasks), "LastExecution": record.updated}} if service.is_job else {}),
        "ServiceStatus": {
            "RunningTasks": states.count("running"),
            "DesiredTasks": wanted,
            "CompletedTasks": states.count("complete"),
        },
    }


# --- tasks ---------------------------------------------------------------------------------------------------------------


def state_of(task: Task, status: TaskStatus | None, *, lost: bool) -> str:
    """Swarm's word for what *task* is; *lost*: nobody knows, since its node does not answer."""
    if lost:
        return "orphaned"
    if status is None:
        return "pending"
    if status.state == "exited":
        return "failed" if status.exit_code else "complete" if task.desired == "running" else "shutdown"
    return STATES.get(status.state, "pending")


def job_iteration(tasks: Sequence[Task]) -> Object:
    """Which run of a job *tasks* are, by which clients tell its tasks from those of an earlier one."""
    return {"Index": int.from_bytes(hashlib.sha256(iteration(tasks).encode()).digest()[:4]) >> 1}


def _slot(task: Task, service: Service) -> Object:
    """Which of the replicas *task* is: counted from one, of a job from zero, as clients do; those on each node have none."""
    if service.mode.startswith("global"):
        return {}
    return {"Slot": task.index - 1 if service.is_job else task.index}


def task_of(
    task: Task, service: Service, status: TaskStatus | None, index: int, *, lost: str, run: Object | None = None
) -> Object:
    """*task* of *service*; *lost* says why its node does not answer, "" where it does. *run* is the iteration of a job."""
    name = service_name(task.stack, task.service)
    message = lost or (status.error if status else "") or ""
    spec = task_spec(service, task.stack)
    spec["ContainerSpec"]["Image"] = task.container.image
    return {
        "ID": identity("task", task.name),
        **_dated(index, status.created if status else ""),
        "Labels": {},
        "Spec": spec,
        "ServiceID": identity("service", name),
        **_slot(task, service),
        **({"JobIteration": run} if run else {}),
        "NodeID": identity("node", task.node) if task.node else "",
        "NodeName": task.node,
        "Status": {
            "Timestamp": ((status.finished or status.started or status.created) if status else "") or ZERO,
            "State": state_of(task, status, lost=bool(lost)),
            "Message": message or (status.state if status else "waiting"),
            **({"Err": message} if message else {}),
            "ContainerStatus": {
                "ContainerID": status.container if status else "",
                "PID": 0,
                "ExitCode": (status.exit_code or 0) if status else 0,
            },
            "PortStatus": {},
        },
        "DesiredState": {"running": "complete" if service.is_job else "running", "waiting": "ready"}.get(
            task.desired, "shutdown"
        ),
        "NetworksAttachments": [
            {
                "Network": {"ID": identity("network", a.network), "Spec": {"Name": a.network}},
                "Addresses": [address for address in (a.ipv4, a.ipv6) if address],
            }
            for a in task.container.attachments
        ],
    }


# --- secrets and configs ---------------------------------------------------------------------------------------------------


def content_of(kind: str, name: str, stack: str, when: str) -> Object:
    """A secret or a config (*kind*) of *stack*, "" where it was made by hand; without its content.

    It goes with its stack: without Swarm's label for that, `docker stack rm` does not try to remove it once more."""
    return {
        "ID": identity(kind, name),
        **_dated(1, when),
        "Spec": {"Name": name, "Labels": {PROJECT: stack} if stack else {}},
    }


def made_by_hand(one: ExternalContent) -> Object:
    """A secret or config that was created by itself."""
    document = content_of(one.kind, one.name, "", one.created)
    return document | {"UpdatedAt": one.updated or one.created or ZERO}


def swarm_of(name: str, index: int, port: int) -> Object:
    """The cluster, which the node *name* leads; its overlays get the UDP port *port*."""
    return {
        "ID": identity("swarm", "pystack"),
        **_dated(index, ""),
        "Spec": {
            "Name": "default",
            "Labels": {},
            "Orchestration": {"TaskHistoryRetentionLimit": 0},
            "Raft": {
                "SnapshotInterval": 0,
                "KeepOldSnapshots": 0,
                "LogEntriesForSlowFollowers": 0,
                "ElectionTick": 0,
                "HeartbeatTick": 0,
            },
            "Dispatcher": {"HeartbeatPeriod": 0},
            "CAConfig": {"NodeCertExpiry": 0},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": False},
        },
        "TLSInfo": {"TrustRoot": "", "CertIssuerSubject": "", "CertIssuerPublicKey": ""},
        "RootRotationInProgress": False,
        "DefaultAddrPool": [],
        "SubnetSize": 24,
        "DataPathPort": port,
    }
