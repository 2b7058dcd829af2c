"""A service of the file becomes a Service: one row a key, one function a shape.

Each row's function reads the key's value and answers with fields of Container (or of Service, where SERVICE_FIELDS says
so). `schema.py` says which shape each value has, and why a key without a row has no effect.
Source: Compose Specification, 05-services.md.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from agent.contract.container import Container, Device, DeviceRequest, File, Healthcheck
from agent.contract.options import OPTIONS
from orchestrator.stackfile import envfile, templates
from orchestrator.stackfile.bandwidth import x_bandwidth
from orchestrator.stackfile.block_io import blkio_config
from orchestrator.stackfile.build import build, x_build
from orchestrator.stackfile.deploy import deploy, device_requests, x_placement
from orchestrator.stackfile.fence_key import x_fence
from orchestrator.stackfile.field_readers import (
    FieldReader,
    Fields,
    ServiceContext,
    boolean,
    command_line,
    decimal,
    duration,
    extra_hosts,
    flag,
    integer,
    microseconds,
    pairs,
    permissions,
    plain,
    read_hook,
    scalar,
    size,
    text,
    ulimits,
    words,
)
from orchestrator.stackfile.hardening import harden, security_opt, strict_fields
from orchestrator.stackfile.hugepages import x_hugepages
from orchestrator.stackfile.ingress import ingress
from orchestrator.stackfile.interpolate import InvalidError
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.merge import as_mapping
from orchestrator.stackfile.metrics_key import x_metrics
from orchestrator.stackfile.model import Dependency, Placement, Provider, Service, StartHook, WatchRule
from orchestrator.stackfile.mounts import tmpfs, volumes
from orchestrator.stackfile.networks import mac_address, network_mode, networks, service_links
from orchestrator.stackfile.ports import expose, ports
from orchestrator.stackfile.resources import unreadable
from orchestrator.stackfile.units import parse_duration
from orchestrator.stackfile.workload_keys import (
    job_restart,
    x_hooks,
    x_job,
    x_priority,
    x_scale,
    x_schedule,
    x_stable,
    x_update,
)

CDI_NAME = r"[A-Za-z][\w.-]*/[A-Za-z][\w.-]*=[A-Za-z0-9][\w.:-]*"
"""A device's full name in the Container Device Interface: VENDOR/CLASS=NAME."""
SERVICE_FIELDS = (
    "attach",
    "replicas",
    "container_name",
    "depends_on",
    "build",
    "build_node",
    "build_limits",
    "mode",
    "endpoint_mode",
    "placement",
    "reserves",
    "update",
    "rollback",
    "fence",
    "ingress_mode",
    "job",
    "schedule",
    "hooks",
    "staged",
    "scale",
    "stable",
    "priority",
    "watch",
    "pre_start",
    "provider",
    "problem",
    "port_ranges",
    "service_labels",
    "bandwidth",
    "ingress",
    "metrics",
)


# --- keys with a shape of their own ----------------------------------------------------------------------------


def environment(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """env_file first, then environment; a name without a value comes from the client's environment, if it is there."""
    del value, path
    reading, known = draft.reading, draft.variables
    found: dict[str, str | None] = {}
    if not (reading.is_valid((*draft.path, "env_file")) and reading.is_valid((*draft.path, "environment"))):
        return {}
    listed = draft.body.get("env_file")
    entries = listed if isinstance(listed, list) else [listed] if listed is not None else []
    for number, entry in enumerate(entries):
        where = (*draft.path, "env_file", number)
        long = entry if isinstance(entry, dict) else {"path": entry}
        target = reading.host_path(scalar(long.get("path")))
        if long.get("format") not in (None, "raw"):
            draft.problem((*where, "format"), f"{scalar(long['format'])!r} is not a format", "raw, or leave it out")
        try:
            found.update(envfile.read(target, known, raw=long.get("format") == "raw"))
        except FileNotFoundError:
            if flag(long.get("required", True)):
                draft.problem(where, f"{target} does not exist", "create it, or set required: false")
        except (InvalidError, OSError) as error:
            draft.problem(where, f"{target}: {error}")
    for key, item in as_mapping(draft.body.get("environment")).items():
        found[key] = known.get(key) if item is None else scalar(item)
    return {"environment": tuple((k, v) for k, v in found.items() if v is not None)}


def restart(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.restart: a policy, or on-failure:N."""
    policy, _, count = ("no" if value is False else scalar(value) or "no").partition(":")
    if policy not in ("no", "always", "unless-stopped", "on-failure") or (count and not re.fullmatch(r"[0-9]{1,9}", count)):
        why = f"{scalar(value)!r} is not a restart policy"
        draft.keep_from_starting(path, why, "no, always, unless-stopped or on-failure[:N]")
        return {}
    return {"restart": policy, "restart_max": int(count or 0)}


def healthcheck(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.healthcheck."""
    body = draft.reading.mapping(value, path)
    fields: Fields = {}
    for key, item in body.items():
        at = (*path, key)
        if key == "test":
            if item in ([], ""):
                continue  # the image's own
            if isinstance(item, list):
                if item[0] not in ("NONE", "CMD", "CMD-SHELL"):
                    draft.reading.check(at, "a list must begin with NONE, CMD or CMD-SHELL")
                    continue
                fields["test"] = tuple(scalar(i) for i in item)
            else:
                fields["test"] = ("CMD-SHELL", scalar(item))
        elif key == "retries" and scalar(item) != "0":  # the default
            fields |= integer("retries", 1)(draft, item, at)
        elif key in ("interval", "timeout", "start_period", "start_interval"):
            fields |= duration(f"{key}_s")(draft, item, at)
    if flag(body.get("disable")):
        fields["test"] = ("NONE",)
    if "start_interval" in body and "start_period" not in body:
        draft.keep_from_starting((*path, "start_interval"), "has no meaning without start_period")
    return {"healthcheck": Healthcheck(**fields)}


def devices(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.devices: paths, in short or long form, and CDI names, which become device requests."""
    out = []
    for number, item in enumerate(draft.reading.sequence(value, path)):
        name = scalar(item.get("source") if isinstance(item, dict) else item)
        if re.fullmatch(CDI_NAME, name):
            draft.requests.append(DeviceRequest(driver="cdi", ids=(name,)))
            continue
        if isinstance(item, dict):
            out.append(
                Device(
                    source=scalar(item.get("source")),
                    target=scalar(item.get("target", item.get("source"))),
                    permissions=scalar(item.get("permissions", "rwm")),
                )
            )
            continue
        parts = scalar(item).split(":")
        if not parts[0].startswith("/"):
            draft.keep_from_starting((*path, number), f"{item!r} is not a device path")
        out.append(
            Device(
                source=parts[0],
                target=parts[1] if len(parts) > 1 else parts[0],
                permissions=parts[2] if len(parts) > 2 else "rwm",
            )
        )
    return {"devices": tuple(out), "device_requests": tuple(draft.requests)}


def userns_mode(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.userns_mode."""
    mode = {"private": "auto"}.get(scalar(value), scalar(value))
    if mode not in ("", "host", "auto"):
        draft.keep_from_starting(path, f"{scalar(value)!r} is not known", "auto, for a user namespace of its own, or host")
        return {}
    return {"userns_mode": mode}


def gpus(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """`all`, or what `deploy.resources.reservations.devices` has, with the capability gpu."""
    if value == "all":
        draft.requests.append(DeviceRequest(count=-1, capabilities=("gpu",)))
        return {"device_requests": tuple(draft.requests)}
    return device_requests(draft, value, path, "gpu")


def platform(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """os[/arch[/variant]]: where the service can run."""
    system, _, rest = scalar(value).partition("/")
    arch = rest.partition("/")[0]
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(arch, arch)
    wanted = [f"node.platform.os == {system}"] + ([f"node.platform.arch == {arch}"] if arch else [])
    draft.platform = tuple(wanted)
    return {}


def depends_on(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.depends_on: a list of services, or conditions for each."""
    out = []
    body = dict.fromkeys(value) if isinstance(value, list) else draft.reading.mapping(value, path)
    for name, item in body.items():
        at = (*path, name)
        settings = draft.reading.mapping(item, at)
        condition = settings.get("condition", "service_started")
        out.append(
            Dependency(
                service=scalar(name),
                condition=condition,
                restart=flag(settings.get("restart")),
                required=flag(settings.get("required", True)),
                where=str(draft.reading.mark(at)),
            )
        )
    return {"depends_on": tuple(out)}


def implied(fields: Fields, where: str) -> list[Dependency]:
    """Who shares something with a service, or has a name of its own for it, starts after it. Source: Compose Specification,
    network_mode, ipc, pid, links, volumes_from."""
    written = {d.service for d in fields.get("depends_on", ())}
    shared = [
        fields.get(k, "")[8:]
        for k in ("network_mode", "pid_mode", "ipc_mode", "uts_mode")
        if fields.get(k, "").startswith("service:")
    ]
    wanted = dict.fromkeys((*shared, *(target for _, target in fields.get("links", ()))), True)
    for donor in fields.get("volumes_from", ()):
        if not donor.startswith("container:"):
            wanted.setdefault(donor.split(":")[0], False)
    return [Dependency(service=n, restart=again, implied=True, where=where) for n, again in wanted.items() if n not in written]


def provider(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.provider."""
    body = draft.reading.mapping(value, path)
    given = draft.reading.mapping(body.get("options"), (*path, "options"))
    options = [(k, scalar(i)) for k, v in given.items() for i in (v if isinstance(v, list) else [v])]
    if "/" in scalar(body["type"]):
        draft.problem((*path, "type"), "must be the name of a program, not a path")
    return {"provider": Provider(type=scalar(body["type"]), options=tuple(options))}


def pre_start(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Containers that run to their ends, one after the other, before the service starts."""
    out = []
    for number, item in enumerate(draft.reading.sequence(value, path)):
        at = (*path, number)
        body = draft.reading.mapping(item, at)
        words = command_line("command")(draft, body.get("command"), (*at, "command")).get("command") or ()
        image = scalar(body.get("image"))
        out.append(
            StartHook(hook=read_hook(draft, body, words), image="" if image == scalar(draft.body.get("image")) else image)
        )
    return {"pre_start": tuple(out)}


def logging(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.logging; an unknown driver is a warning."""
    body = draft.reading.mapping(value, path)
    driver = scalar(body.get("driver", "json-file"))
    if driver not in ("json-file", "local", "none", "syslog", "journald"):
        draft.reading.warn((*path, "driver"), f"driver {driver!r} is not supported yet: logs are kept as json-file does")
    options = draft.reading.mapping(body.get("options"), (*path, "options"))
    return {"log_driver": driver, "log_options": tuple(sorted((k, scalar(v)) for k, v in options.items()))}


def pull_policy(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.pull_policy; `refresh` has the interval pull_refresh_after, or a day if that is missing."""
    known = ("always", "never", "missing", "build", "daily", "weekly")
    policy = {"if_not_present": "missing"}.get(scalar(value), scalar(value))
    if policy == "refresh":
        after = draft.body.get("pull_refresh_after")
        policy, path = (f"every_{scalar(after)}", (*path[:-1], "pull_refresh_after")) if after else ("daily", path)
    if policy.startswith("every_"):
        try:
            parse_duration(policy[6:])
        except ValueError as error:
            draft.problem(path, str(error))
    elif policy not in known:
        draft.problem(path, f"{policy!r} is not a pull policy", f"{', '.join(known)} or every_DURATION")
    return {"pull_policy": policy}


def granted(kind_: str, folder: str) -> FieldReader:
    """`configs:` and `secrets:` of a service: what the file declares under that name, as files of the container."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        out = []
        for number, item in enumerate(draft.reading.sequence(value, path)):
            at = (*path, number)
            body = item if isinstance(item, dict) else {"source": scalar(item)}
            source = scalar(body.get("source"))
            if source not in draft.reading.mapping(draft.reading.tree.value.get(kind_), (kind_,)):
                draft.reading.check(at, f"{kind_[:-1]} {source!r} is not declared", f"declare it under {kind_}:")
                continue
            known = draft.reading.mapping(draft.reading.tree.value[kind_][source], (kind_, source))
            if "driver" in known and not known.keys() & {"file", "environment"} and not flag(known.get("external")):
                kind = scalar(known["driver"])
                draft.keep_from_starting(
                    at,
                    f"secret {source!r} is of the driver {kind!r}, which is not here: "
                    "give it file: or environment:, or make it by hand and say external: true",
                )
            if found := unreadable(draft.reading, kind_, source):
                draft.keep_from_starting(*found)
            target = scalar(body.get("target")) or (f"{folder}/{source}" if folder else f"/{source}")
            target = target if target.startswith("/") else f"{folder}/{target}"
            try:
                mode = permissions(body.get("mode", 0o444))
                uid, gid = int(body.get("uid") or 0), int(body.get("gid") or 0)
            except ValueError:
                draft.problem(at, "mode, uid and gid are numbers")
                continue
            out.append(File(target=target, source=source, mode=mode, uid=uid, gid=gid, secret=kind_ == "secrets"))
        return {f"files_{kind_}": tuple(out)}

    return row


def label_file(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Files of NAME=VALUE lines, below `labels`."""
    found: dict[str, str] = {}
    for number, item in enumerate(value if isinstance(value, list) else [value]):
        file = draft.reading.host_path(scalar(item))
        try:
            found |= {k: v or "" for k, v in envfile.read(file, {}).items()}
        except (InvalidError, OSError) as error:
            draft.reading.check((*path, number), f"{file} cannot be read: {getattr(error, 'strerror', None) or error}")
    own = {k: scalar(v) for k, v in as_mapping(draft.body.get("labels")).items()}
    return {"labels": tuple(sorted({**found, **own}.items()))}


def develop(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Rules of `pystack watch`."""
    out = []
    for number, rule in enumerate(draft.reading.mapping(value, path).get("watch") or ()):
        at = (*path, "watch", number)
        if not rule["path"]:
            draft.problem((*at, "path"), "must name a file or folder")
            continue
        if "sync" in rule["action"] and not scalar(rule.get("target")).startswith("/"):
            draft.problem(at, f"{rule['action']} needs target, an absolute path in the container", "target: /app")
            continue
        if rule["action"] == "sync+exec" and not rule.get("exec"):
            draft.problem(at, "sync+exec needs exec", "exec: {command: …}")
            continue
        found = hooks("hook")(draft, [rule["exec"]], (*at, "exec"))["hook"] if rule.get("exec") else ()
        lists = {k: words(k)(draft, rule[k], (*at, k))[k] for k in ("ignore", "include") if k in rule}
        out.append(
            WatchRule(
                path=str(draft.reading.host_path(scalar(rule["path"])).resolve()),
                action=rule["action"],
                target=scalar(rule.get("target")),
                command=found[0] if found else None,
                initial_sync=flag(rule.get("initial_sync")),
                **lists,
            )
        )
    return {"watch": tuple(out)}


def hooks(field: str) -> FieldReader:
    """`post_start:` and `pre_stop:`: commands that run inside the container."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        out = []
        known = ("command", "user", "privileged", "working_dir", "environment")
        for number, item in enumerate(draft.reading.sequence(value, path)):
            at = (*path, number)
            body = draft.reading.mapping(item, at)
            for key in body:
                if key not in known:
                    draft.reading.unknown((*at, key), known)
            words = command_line("command")(draft, body.get("command"), (*at, "command")).get("command")
            if not words:
                draft.problem(at, "needs a command", "command: [program, argument]")
                continue
            out.append(read_hook(draft, body, words))
        return {field: tuple(out)}

    return row


def storage_opt(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.storage_opt: the size of the writable layer. A limit that nobody keeps is none: better no container than
    one that fills the disk."""
    if others := [key for key in value if key != "size"]:
        draft.keep_from_starting(path, f"the writable layer has a size here and no other option: take {', '.join(others)} out")
    return size("storage_size")(draft, value["size"], (*path, "size")) if "size" in value else {}


def nothing(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Keys whose meaning another row, or nothing on the node, takes up."""
    del draft, value, path
    return {}


KEYS: dict[str, FieldReader] = {
    **{o.key: plain(o) for o in OPTIONS if o.key},
    "image": text("image"),
    "build": build,
    "provider": provider,
    "entrypoint": command_line("entrypoint"),
    "command": command_line("command"),
    "environment": nothing,  # read together with env_file, below
    "env_file": nothing,
    "group_add": words("group_add"),
    "container_name": text("container_name"),
    "labels": pairs("labels"),
    "label_file": label_file,
    "develop": develop,
    "attach": boolean("attach"),
    "security_opt": security_opt,
    "stop_grace_period": duration("stop_grace_s"),
    "restart": restart,
    "healthcheck": healthcheck,
    "cpus": decimal("cpus"),
    "cpu_shares": integer("cpu_shares", 0),
    "cpu_period": microseconds("cpu_period"),
    "cpu_quota": microseconds("cpu_quota"),
    "cgroup": text("cgroup_mode"),
    "memswap_limit": size("memory_swap"),
    "mem_reservation": size("memory_reservation"),
    "mem_swappiness": integer("swappiness", 0, 100),
    "pids_limit": integer("pids"),
    "x-cpu-burst": microseconds("cpu_burst", 0),
    "x-hugepages": x_hugepages,
    "cpu_rt_period": microseconds("cpu_rt_period", 0),
    "cpu_rt_runtime": microseconds("cpu_rt_runtime", 0),
    "blkio_config": blkio_config,
    "use_api_socket": boolean("api_socket"),
    "runtime": text("runtime"),
    "storage_opt": storage_opt,
    "shm_size": size("shm_size"),
    "ulimits": ulimits,
    "userns_mode": userns_mode,
    "devices": devices,
    "gpus": gpus,
    "volumes": volumes,
    "tmpfs": tmpfs,
    "network_mode": network_mode,
    "networks": networks,
    "mac_address": mac_address,
    "links": service_links,
    "platform": platform,
    "pid": text("pid_mode"),
    "ipc": text("ipc_mode"),
    "ports": ports,
    "expose": expose,
    "extra_hosts": extra_hosts,
    "dns_opt": words("dns_opt"),
    "logging": logging,
    "pull_policy": pull_policy,
    "pre_start": pre_start,
    "post_start": hooks("post_start"),
    "pre_stop": hooks("pre_stop"),
    "depends_on": depends_on,
    "deploy": deploy,
    "x-placement": x_placement,
    "x-build": x_build,
    "x-fence": x_fence,
    "x-ingress-mode": text("ingress_mode"),
    "x-bandwidth": x_bandwidth,
    "x-harden": harden,
    "x-job": x_job,
    "x-schedule": x_schedule,
    "x-hooks": x_hooks,
    "x-update": x_update,
    "x-scale": x_scale,
    "x-stable": x_stable,
    "x-priority": x_priority,
    "x-ingress": ingress,
    "x-metrics": x_metrics,
    "scale": integer("replicas", 0),
    "profiles": nothing,
    "configs": granted("configs", ""),
    "secrets": granted("secrets", "/run/secrets"),
}


def read(reading: LoadContext, name: str, value: Any) -> Service:
    """The service *name*; its problems are in *reading*."""
    path: Path_ = ("services", name)
    body = reading.mapping(value, path)
    draft = ServiceContext(reading, name, body)
    fields: Fields = environment(draft, None, path)
    for key, item in body.items():
        at = (*path, key)
        if key in KEYS and reading.is_valid(at):
            fields |= KEYS[key](draft, item, at)
    if "label_file" in body and reading.is_valid((*path, "label_file")):
        fields |= label_file(draft, body["label_file"], (*path, "label_file"))
    fields["mounts"] = (*fields.get("mounts", ()), *fields.pop("tmpfs_mounts", ()))
    if body.get("x-harden") == "strict" and reading.is_valid((*path, "x-harden")):
        fields = strict_fields(body, fields)
    if published := fields.pop("ingress_ports", ()):
        fields["ports"] = tuple(dict.fromkeys((*fields.get("ports", ()), *published)))
    fields["files"] = (*fields.pop("files_configs", ()), *fields.pop("files_secrets", ()))
    if not fields.keys() & {"image", "build", "provider"} and not body.keys() & {"extends", "build", "provider"}:
        reading.check(path, "has neither image nor build", "add image: NAME or build: FOLDER")
    fields.setdefault("image", f"{reading.name}-{name}")
    if draft.platform:
        before = fields.get("placement", Placement())
        fields["placement"] = msgspec.structs.replace(before, constraints=(*before.constraints, *draft.platform))
    fields |= job_restart(draft, fields)
    labelled = fields.get("labels") or fields.get("service_labels") or "x-ports" in body
    if "x-ingress" not in body and labelled:
        from orchestrator.stackfile.proxy_labels import rules_of_labels  # not at the top: most files have none

        if found := rules_of_labels(draft, fields):
            fields["ingress"] = found
    fields["depends_on"] = (*fields.get("depends_on", ()), *implied(fields, str(reading.mark(path))))
    own = {key: fields.pop(key) for key in SERVICE_FIELDS if key in fields}
    own["problem"] = "\n".join(draft.refusals)
    own["labels"] = own.pop("service_labels", ())
    container = Container(**fields)
    variables = as_mapping(body.get("environment")) if reading.is_valid((*path, "environment")) else {}
    for at, why in templates.problems(container, variables, dict(own["labels"])):
        reading.problem((*path, *at), why)
    if own.get("container_name") and own.get("replicas", 1) > 1:
        reading.check((*path, "container_name"), "several replicas cannot share one name", "remove it")
    return Service(name=name, container=container, where=str(reading.mark(path)), **own)
