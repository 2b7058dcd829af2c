"""A service as `docker service create` and `docker stack deploy` describe it, as a stack file's.

What comes is written as a document of Compose and read by the same reader as every stack file: what it refuses is refused here
in the same words. Source: Docker Engine API v1.48, ServiceSpec; Compose specification, services.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.printable import quoted
from orchestrator.errors import RefusedError
from orchestrator.stackfile.model import Stack
from orchestrator.swarm.objects import NANO, SINGLE, STACK, Object

WHERE = "docker service create"
"""Where the description of a service stands that came this way."""


def names_of(spec: Object) -> tuple[str, str]:
    """The stack, and the service in it, that a specification means. Raises RefusedError."""
    name = str(spec.get("Name") or "")
    stack = str((spec.get("Labels") or {}).get(STACK, "")) or SINGLE
    short = name.removeprefix(f"{stack}_")
    if not short:
        raise RefusedError("a service has a name: --name", 400)
    return stack, short


def read(spec: Object, networks: Mapping[str, str]) -> Stack:
    """The stack with the one service that *spec* describes; *networks* are names of networks by their IDs. Raises
    RefusedError."""
    from orchestrator.stackfile.load import Options, load  # a server starts in less time without the reader of stack files
    from orchestrator.stackfile.problem import StackFileError

    stack, name = names_of(spec)
    document = _document(spec, stack, name, networks)
    with tempfile.TemporaryDirectory(prefix="pystack-spec-") as folder:
        path = Path(folder) / "stack.yml"
        path.write_text(json.dumps(_literal(document)))
        try:
            loaded = load(Options(files=(str(path),), project_name=stack, project_directory=folder), {}).stack
        except StackFileError as error:
            messages = (": ".join(t for t in (p.what, p.why, p.fix) if t) for p in error.problems)
            raise RefusedError("; ".join(messages), 400) from None
    services = tuple(msgspec.structs.replace(s, where=WHERE) for s in loaded.services)
    return msgspec.structs.replace(loaded, services=services)


def joined(stack: Stack | None, more: Stack) -> Stack:
    """*stack* with what *more* has, in place of what is called the same."""
    if stack is None:
        return more

    def union(ours: Any, theirs: Any, key: str) -> tuple[Any, ...]:
        fresh = {getattr(one, key) for one in theirs}
        return (*(one for one in ours if getattr(one, key) not in fresh), *theirs)

    return msgspec.structs.replace(
        stack,
        services=union(stack.services, more.services, "name"),
        networks=union(stack.networks, more.networks, "key"),
        volumes=union(stack.volumes, more.volumes, "key"),
        contents=union(stack.contents, more.contents, "name"),
    )


def _literal(value: Any) -> Any:
    """*value* with dollars that are not variables."""
    if isinstance(value, dict):
        return {k: _literal(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_literal(one) for one in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _document(spec: Object, stack: str, name: str, networks: Mapping[str, str]) -> Object:
    template = spec.get("TaskTemplate") or {}
    container = template.get("ContainerSpec") or {}
    if not container.get("Image"):
        raise RefusedError("TaskTemplate.ContainerSpec.Image: a service has an image", 400)
    service: Object = {
        "image": str(container["Image"]).partition("@sha256:")[0],
        "entrypoint": container.get("Command"),
        "command": container.get("Args"),
        "environment": container.get("Env"),
        "labels": {k: v for k, v in (container.get("Labels") or {}).items() if k != STACK},
        "working_dir": container.get("Dir"),
        "user": container.get("User"),
        "hostname": container.get("Hostname"),
        "tty": container.get("TTY"),
        "read_only": container.get("ReadOnly"),
        "init": container.get("Init"),
        "stop_signal": container.get("StopSignal"),
        "stop_grace_period": _duration(container.get("StopGracePeriod")),
        "group_add": container.get("Groups"),
        "cap_add": container.get("CapabilityAdd"),
        "cap_drop": container.get("CapabilityDrop"),
        "sysctls": container.get("Sysctls"),
        "extra_hosts": [_host(h) for h in container.get("Hosts") or ()],
        "healthcheck": _health(container.get("Healthcheck")),
        "volumes": [_mount(m) for m in container.get("Mounts") or ()],
        "secrets": [_file(f, "Secret") for f in container.get("Secrets") or ()],
        "configs": [_file(f, "Config") for f in container.get("Configs") or ()],
        "ports": [_port(p) for p in (spec.get("EndpointSpec") or {}).get("Ports") or ()],
        "deploy": _deploy(spec, template),
    }
    attached = template.get("Networks") or spec.get("Networks") or ()
    keys = {}
    for one in attached:
        target = str(one.get("Target", ""))
        known = networks.get(target, target)
        keys[known.removeprefix(f"{stack}_")] = {"aliases": [a for a in one.get("Aliases") or () if a != name]}
    document: Object = {"services": {name: {k: v for k, v in service.items() if v not in (None, "", [], {})}}}
    if keys:
        document["services"][name]["networks"] = keys
        document["networks"] = {key: {} for key in keys}
    volumes = {m["source"] for m in service["volumes"] if m["type"] == "volume" and m.get("source")}
    document["volumes"] = {volume: {"name": volume} for volume in volumes}
    for kind in ("secrets", "configs"):
        document[kind] = {f["source"]: {"external": True, "name": f["source"]} for f in service[kind]}
    return document


def _duration(nanoseconds: Any) -> str | None:
    return f"{nanoseconds // 1_000_000}ms" if isinstance(nanoseconds, int) and nanoseconds > 0 else None


def _host(line: Any) -> str:
    """As /etc/hosts has it: an address, and names."""
    address, _, name = str(line).partition(" ")
    return f"{name}={address}"


def _health(check: Any) -> Object | None:
    if not isinstance(check, dict) or not check.get("Test"):
        return None
    if check["Test"] == ["NONE"]:
        return {"disable": True}
    times = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod", "start_interval": "StartInterval"}
    found = {ours: text for ours, theirs in times.items() if (text := _duration(check.get(theirs)))}
    return {"test": check["Test"], **found, **({"retries": check["Retries"]} if check.get("Retries") else {})}


def _mount(mount: Object) -> Object:
    kind = str(mount.get("Type", "volume"))
    if kind not in ("bind", "volume", "tmpfs"):
        raise RefusedError(f"mount type {quoted(kind)}: bind, volume and tmpfs are known", 400)
    found: Object = {"type": kind, "target": mount.get("Target"), "read_only": bool(mount.get("ReadOnly"))}
    if kind != "tmpfs" and mount.get("Source"):
        found["source"] = mount["Source"]
    return found


def _file(reference: Object, kind: str) -> Object:
    file = reference.get("File") or {}
    found = {"source": str(reference.get(f"{kind}Name", "")), "target": file.get("Name"), "mode": file.get("Mode")}
    owners = {"uid": file.get("UID"), "gid": file.get("GID")}
    return {k: v for k, v in (found | owners).items() if v not in (None, "")}


def _port(port: Object) -> Object:
    found = {
        "target": port.get("TargetPort"),
        "protocol": port.get("Protocol") or "tcp",
        "mode": port.get("PublishMode") or "ingress",
    }
    return found | ({"published": str(port["PublishedPort"])} if port.get("PublishedPort") else {})


def _deploy(spec: Object, template: Object) -> Object:
    mode, placement = spec.get("Mode") or {}, template.get("Placement") or {}
    words = {"Global": "global", "GlobalJob": "global-job", "ReplicatedJob": "replicated-job"}
    deploy: Object = {"mode": next((ours for theirs, ours in words.items() if mode.get(theirs) is not None), "replicated")}
    if "Replicated" in mode:
        deploy["replicas"] = (mode["Replicated"] or {}).get("Replicas", 1)
    if job := mode.get("ReplicatedJob"):
        deploy["replicas"] = job.get("TotalCompletions") or 1
    deploy["labels"] = {k: v for k, v in (spec.get("Labels") or {}).items() if not k.startswith("com.docker.stack.")}
    deploy["placement"] = {
        "constraints": placement.get("Constraints") or [],
        "preferences": [
            {"spread": p["Spread"]["SpreadDescriptor"]} for p in placement.get("Preferences") or () if p.get("Spread")
        ],
        **({"max_replicas_per_node": placement["MaxReplicas"]} if placement.get("MaxReplicas") else {}),
    }
    restart = template.get("RestartPolicy") or {}
    deploy["restart_policy"] = {
        "condition": restart.get("Condition") or "any",
        **({"delay": text} if (text := _duration(restart.get("Delay"))) else {}),
        **({"max_attempts": restart["MaxAttempts"]} if restart.get("MaxAttempts") else {}),
        **({"window": text} if (text := _duration(restart.get("Window"))) else {}),
    }
    resources = template.get("Resources") or {}
    deploy["resources"] = {
        ours: limits
        for ours, theirs in (("limits", "Limits"), ("reservations", "Reservations"))
        if (limits := _limits(resources.get(theirs) or {}))
    }
    for ours, theirs in (("update_config", "UpdateConfig"), ("rollback_config", "RollbackConfig")):
        if given := spec.get(theirs):
            deploy[ours] = _update(given)
    if (endpoint := (spec.get("EndpointSpec") or {}).get("Mode")) and endpoint != "vip":
        deploy["endpoint_mode"] = endpoint
    return {k: v for k, v in deploy.items() if v not in (None, {}, [])}


def _limits(given: Object) -> Object:
    found: Object = {}
    if given.get("NanoCPUs"):
        found["cpus"] = str(given["NanoCPUs"] / NANO)
    if given.get("MemoryBytes"):
        found["memory"] = f"{given['MemoryBytes']}b"
    if given.get("Pids"):
        found["pids"] = given["Pids"]
    return found


def _update(given: Object) -> Object:
    found: Object = {
        "parallelism": given.get("Parallelism", 1),
        "delay": _duration(given.get("Delay")),
        "failure_action": given.get("FailureAction"),
        "monitor": _duration(given.get("Monitor")),
        "max_failure_ratio": given.get("MaxFailureRatio"),
        "order": given.get("Order"),
    }
    return {k: v for k, v in found.items() if v not in (None, "")}
