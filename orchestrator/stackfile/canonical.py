"""The normal form of a stack file: what `pystack config` prints.

Every key in its long form, paths absolute, variables and env files put in, names and defaults that follow from others
written out; services of profiles that are not asked for are left out. Loading it, with the same profiles, gives the same
Stack. Where Docker Compose prints a form of its own (`docker compose config`), this is that form.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.options import OPTIONS, Kind
from orchestrator.stackfile import omitted
from orchestrator.stackfile.field_readers import flag, scalar
from orchestrator.stackfile.host_paths import absolute_path
from orchestrator.stackfile.load import Loaded
from orchestrator.stackfile.merge import as_mapping
from orchestrator.stackfile.model import Service
from orchestrator.stackfile.mount_text import converted, is_windows
from orchestrator.stackfile.mounts import converts, split_mount
from orchestrator.stackfile.plain import cast
from orchestrator.stackfile.port_text import read_ports
from orchestrator.stackfile.schema import DEFS, SERVICE
from orchestrator.stackfile.units import parse_bytes, parse_duration, show_duration

Form = Callable[["ServiceBody", Any], Any]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What of the normal form is left as the file has it."""

    implied: bool = True
    """Names, the default network, the Dockerfile's name and what else follows from the rest are written out."""
    paths: bool = True
    """Paths are absolute."""
    env_files: bool = True
    """What files of variables say is in `environment`, and the files are not named."""

    targets: bool = False
    """Where secrets go is said even where the file leaves it to what is usual."""


WHOLE_FORM = Shape()


class ServiceBody:
    """Where values stand: the project's folder, and the service as it was read."""

    def __init__(
        self, directory: Path, service: Service, body: Mapping[str, Any], *, convert: bool = False, shape: Shape = WHOLE_FORM
    ) -> None:
        self.directory = directory
        self.shape = shape
        self.convert = convert
        self.service = service
        self.body = body

    def path(self, text: str) -> str:
        """*text* as an absolute path; a path of Windows is converted only if that is wanted."""
        if is_windows(text):
            return converted(text) if self.convert else text
        if not self.shape.paths:
            return text
        return str(absolute_path(text, self.directory))


def canonicalize(loaded: Loaded, shape: Shape = WHOLE_FORM) -> dict[str, Any]:
    """The normal form, its keys in alphabetical order; a $ is written $$, as in every stack file."""
    document = loaded.document
    active = {s.name: s for s in loaded.services}
    out: dict[str, Any] = {"name": loaded.stack.name, "services": {}}
    for name, body in (document.get("services") or {}).items():
        if name in active:
            out["services"][name] = _service(
                ServiceBody(loaded.directory, active[name], body, convert=converts(loaded.environment), shape=shape)
            )
    for section in ("networks", "volumes", "configs", "secrets"):
        bodies = dict(document.get(section) or {})
        if section == "networks" and any("default" in (s.get("networks") or ()) for s in out["services"].values()):
            bodies.setdefault("default", None)
        if bodies:
            out[section] = {k: _resource(loaded, section, k, v or {}, shape) for k, v in bodies.items()}
    for key, value in document.items():
        if key not in out and key not in ("version", "include"):
            out[key] = value
    return dict(_sorted({k: v for k, v in out.items() if k != "name"}, first=("name", out["name"])))


def _sorted(value: Any, first: tuple[str, str] | None = None) -> Any:
    if isinstance(value, dict):
        ordered = {str(k): _sorted(value[k]) for k in sorted(value, key=str)}
        return {first[0]: first[1], **ordered} if first else ordered
    if isinstance(value, (list, tuple)):
        return [_sorted(v) for v in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _service(place: ServiceBody) -> dict[str, Any]:
    out: dict[str, Any] = {}
    body = place.body
    for key, value in body.items():
        if key == "env_file" and not place.shape.env_files:
            out[key] = [_env_file(place, item) for item in (value if isinstance(value, list) else [value])]
        if key in ("env_file", "label_file", "extends"):
            continue  # what is in them is in the service now
        plain = cast(SERVICE["properties"].get(key, {}), value)
        out[key] = FORMS[key](place, plain) if key in FORMS else plain
    environment = dict(place.service.container.environment)
    if not place.shape.env_files:
        environment = {k: scalar(v) for k, v in as_mapping(body.get("environment")).items() if v is not None}
    missing = {k: None for k, v in as_mapping(body.get("environment")).items() if v is None and k not in environment}
    if environment or missing:
        out["environment"] = environment | missing
    if labels := place.service.container.labels:
        out["labels"] = dict(labels)
    conditions = {
        d.service: {"condition": d.condition, "required": d.required, **({"restart": True} if d.restart else {})}
        for d in place.service.depends_on
        if place.shape.implied or d.service in (body.get("depends_on") or ())
    }
    if conditions:
        out["depends_on"] = conditions
    mode = body.get("network_mode")
    if place.shape.implied and not mode and "provider" not in body and not out.get("networks"):
        out["networks"] = {"default": None}
    return omitted.SERVICE(out)  # type: ignore[no-any-return]


def _env_file(place: ServiceBody, item: Any) -> dict[str, Any]:
    body = dict(item) if isinstance(item, dict) else {"path": scalar(item)}
    return {"required": True, **body, "path": place.path(scalar(body["path"]))}


def _command(place: ServiceBody, value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


def _listed(place: ServiceBody, value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _pairs(place: ServiceBody, value: Any) -> Any:
    return {k: "" if v is None else scalar(v) for k, v in as_mapping(value).items()}


def _build(place: ServiceBody, value: Any) -> Any:
    body = {"context": value} if isinstance(value, str) else dict(value)
    if place.service.build and place.shape.paths:
        body["context"] = place.service.build.context
    else:
        body["context"] = place.path(scalar(body.get("context", ".")))
    if place.shape.implied and "dockerfile_inline" not in body:
        body.setdefault("dockerfile", "Dockerfile")
    if place.service.build and "args" in body:
        body["args"] = dict(place.service.build.args)
    body |= {key: form(place, body[key]) for key, form in OF_BUILD.items() if key in body}
    if place.service.build and "additional_contexts" in body and place.shape.paths:
        body["additional_contexts"] = dict(place.service.build.contexts)
    if "extra_hosts" in body and place.service.build:
        body["extra_hosts"] = [f"{name}={address}" for name, address in place.service.build.extra_hosts]
    return body


def _ports(place: ServiceBody, value: Any) -> Any:
    out = []
    for item in value:
        if isinstance(item, dict):
            protocol = scalar(item.get("protocol") or "tcp").lower()
            entry = {"mode": "ingress", **item, "target": int(item["target"]), "protocol": protocol}
            if scalar(item.get("published")):
                entry["published"] = scalar(item["published"])
            out.append(entry)
            continue
        for port in read_ports(scalar(item)):
            entry = {"mode": "ingress", "target": port.target, "protocol": port.protocol}
            if port.published:
                entry["published"] = port.published
            if port.host_ip:
                entry["host_ip"] = port.host_ip
            out.append(entry)
    return out


def _volumes(place: ServiceBody, value: Any) -> Any:
    out = []
    for item in value:
        if isinstance(item, dict):
            out.append(_long_volume(place, item))
            continue
        mount, _ = split_mount(scalar(item), place.path)
        entry: dict[str, Any] = {"type": mount.kind, "target": mount.target}
        if mount.source:
            entry["source"] = mount.source
        if mount.read_only:
            entry["read_only"] = True
        if mount.kind == "bind":
            entry["bind"] = {"create_host_path": True}
            if mount.propagation != "rprivate":
                entry["bind"]["propagation"] = mount.propagation
            if mount.selinux:
                entry["bind"]["selinux"] = mount.selinux
        else:
            entry["volume"] = {"nocopy": True} if mount.nocopy else {}
        out.append(entry)
    return out


def _long_volume(place: ServiceBody, item: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(item)
    if item["type"] == "bind":
        out["source"] = place.path(scalar(item.get("source")))
        if isinstance(item.get("bind"), dict):
            out["bind"] = {"create_host_path": True, **item["bind"]}
    if isinstance(options := item.get("tmpfs"), dict) and "size" in options:
        out["tmpfs"] = {**options, "size": _bytes(place, options["size"])}
    if isinstance(options := item.get("volume"), dict) and "labels" in options:
        out["volume"] = {**options, "labels": _pairs(place, options["labels"])}
    return out


def _named(place: ServiceBody, value: Any) -> Any:
    return dict.fromkeys(value) if isinstance(value, list) else value


def _networks(place: ServiceBody, value: Any) -> Any:
    """Each network by its name; options of its driver are text."""
    return {k: _driven(v) for k, v in _named(place, value).items()}


def _driven(body: Any) -> Any:
    if isinstance(body, dict) and isinstance(body.get("driver_opts"), dict):
        return {**body, "driver_opts": _texts(body["driver_opts"])}
    return body


def _texts(options: Mapping[str, Any]) -> dict[str, str]:
    return {k: scalar(v) for k, v in options.items()}


def _logging(place: ServiceBody, value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("options"), dict):
        return {**value, "options": _texts(value["options"])}
    return value


def _granted(place: ServiceBody, value: Any) -> Any:
    return [item if isinstance(item, dict) else {"source": item} for item in value]


def _secrets(place: ServiceBody, value: Any) -> Any:
    """Where each is written to is said in full."""
    if not place.shape.targets:
        return _granted(place, value)
    return [{**item, "target": item.get("target") or f"/run/secrets/{item['source']}"} for item in _granted(place, value)]


def _as_texts(place: ServiceBody, value: Any) -> Any:
    return [scalar(item) for item in value]


def _number(place: ServiceBody, value: Any) -> Any:
    try:
        return plain_number(float(scalar(value)))
    except ValueError:
        return value


def plain_number(value: float) -> float | int:
    """*value*, without a fraction where it has none."""
    return int(value) if value == int(value) else value


def _healthcheck(place: ServiceBody, value: Any) -> Any:
    body = dict(value)
    if isinstance(body.get("test"), str):
        body["test"] = ["CMD-SHELL", body["test"]]
    timed = ("interval", "timeout", "start_period", "start_interval")
    return {k: _duration(place, v) if k in timed else v for k, v in body.items()}


def _hosts(place: ServiceBody, value: Any) -> Any:
    return [f"{name}={address}" for name, address in place.service.container.extra_hosts]


def _hooks(place: ServiceBody, value: Any) -> Any:
    out = []
    for item in value:
        hook = {**item, "command": _command(place, item.get("command"))} if "command" in item else dict(item)
        if "environment" in item:
            hook["environment"] = _pairs(place, item["environment"])
        out.append(hook)
    return out


def _before(place: ServiceBody, value: Any) -> Any:
    image = place.body.get("image")
    return [{**({"image": image} if image and "image" not in hook else {}), **hook} for hook in _hooks(place, value)]


def _devices(place: ServiceBody, value: Any) -> Any:
    """Each with its source, target and permissions; a name of the Container Device Interface is its own target."""
    out = []
    for item in value:
        if isinstance(item, dict):
            out.append(item)
            continue
        source, _, rest = scalar(item).partition(":")
        target, _, permissions = rest.partition(":")
        out.append({"source": source, "target": target or source, "permissions": permissions or "rwm"})
    return out


def _ulimits(place: ServiceBody, value: Any) -> Any:
    return {
        name: {k: _number(place, v) for k, v in one.items()} if isinstance(one, dict) else _number(place, one)
        for name, one in value.items()
    }


def _blkio(place: ServiceBody, value: Any) -> Any:
    """Rates are text: bytes, or operations."""
    rated = (k for k in value if k.endswith(("_bps", "_iops")))
    return {**value, **{k: [{**e, "rate": _bytes(place, e["rate"])} if "rate" in e else e for e in value[k]] for k in rated}}


def _provider(place: ServiceBody, value: Any) -> Any:
    """Each option is a list: it may be given several times."""
    if not isinstance(value.get("options"), dict):
        return value
    return {**value, "options": {k: [scalar(v) for v in _listed(place, one)] for k, one in value["options"].items()}}


def _pull_policy(place: ServiceBody, value: Any) -> Any:
    return "missing" if value == "if_not_present" else value


def _gpus(place: ServiceBody, value: Any) -> Any:
    return [{"count": -1}] if value == "all" else [_device_request(place, one) for one in value]


def _device_request(place: ServiceBody, value: Mapping[str, Any]) -> dict[str, Any]:
    """-1 are all of them; without a count and names it is all."""
    out = dict(value)
    if "device_ids" not in out and out.get("count", "all") == "all":
        out["count"] = -1
    elif "count" in out and scalar(out["count"]).isdigit():
        out["count"] = int(scalar(out["count"]))
    if "options" in out:
        out["options"] = _pairs(place, out["options"])
    return out


def _bytes(place: ServiceBody, value: Any) -> Any:
    try:
        return scalar(value) if scalar(value).startswith("-") else str(parse_bytes(value))
    except ValueError:
        return scalar(value)


def _duration(place: ServiceBody, value: Any) -> Any:
    try:
        return show_duration(parse_duration(value))
    except ValueError:
        return value


def _deploy(place: ServiceBody, value: Any) -> Any:
    """Sizes and durations as other keys have them."""
    if not isinstance(value, dict):
        return value
    out = dict(value)
    for key, inner in value.items():
        if key == "memory":
            out[key] = _bytes(place, inner)
        elif key in ("delay", "monitor", "window"):
            out[key] = _duration(place, inner)
        elif key == "cpus":
            out[key] = _number(place, inner)
        elif key == "labels":
            out[key] = _pairs(place, inner)
        elif key == "devices":
            out[key] = [_device_request(place, one) for one in inner]
        else:
            out[key] = _deploy(place, inner)
    return out


def _develop(place: ServiceBody, value: Any) -> Any:
    return value and {**value, "watch": [_watch_rule(place, rule) for rule in value.get("watch") or ()]}


def _watch_rule(place: ServiceBody, rule: Mapping[str, Any]) -> dict[str, Any]:
    path = place.path(scalar(rule["path"]))
    out = {**rule, "path": str(Path(path).resolve()) if place.shape.paths else path}
    for key in ("include", "ignore"):
        if key in rule:
            out[key] = _listed(place, rule[key])
    if isinstance(rule.get("exec"), dict):
        [out["exec"]] = _hooks(place, [rule["exec"]])
    return out


def _text(place: ServiceBody, value: Any) -> Any:
    return scalar(value)


OF_BUILD: dict[str, Form] = {
    "labels": _pairs,
    "additional_contexts": _pairs,
    "secrets": _granted,
    "shm_size": _bytes,
    "no_cache_filter": _listed,
    "provenance": _text,
    "sbom": _text,
}
"""Keys of `build`."""
_OF_KIND: dict[Kind, Form] = {Kind.SIZE: _bytes, Kind.WORD_OR_WORDS: _listed, Kind.PAIRS: _pairs}
FORMS: dict[str, Form] = {
    **{o.key: _OF_KIND[o.kind] for o in OPTIONS if o.key and o.kind in _OF_KIND},
    "build": _build,
    "develop": _develop,
    "command": _command,
    "entrypoint": _command,
    "ports": _ports,
    "volumes": _volumes,
    "networks": _networks,
    "configs": _granted,
    "secrets": _secrets,
    "logging": _logging,
    "cpus": _number,
    "expose": _as_texts,
    "healthcheck": _healthcheck,
    "extra_hosts": _hosts,
    "post_start": _hooks,
    "pre_stop": _hooks,
    "pre_start": _before,
    "devices": _devices,
    "provider": _provider,
    "blkio_config": _blkio,
    "ulimits": _ulimits,
    "group_add": _as_texts,
    "tmpfs": _listed,
    "memswap_limit": _bytes,
    "mem_reservation": _bytes,
    "shm_size": _bytes,
    "stop_grace_period": _duration,
    "deploy": _deploy,
    "gpus": _gpus,
    "pull_policy": _pull_policy,
    "models": _named,
}


def _resource(loaded: Loaded, section: str, key: str, body: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """A network, volume, config or secret with the name that it has."""
    external = body.get("external")
    out: dict[str, Any] = cast(DEFS[section[:-1]], {k: v for k, v in body.items() if k != "external"})
    if flag(external):
        inner = external.get("name") if isinstance(external, dict) else None
        own = {k: v for k, v in out.items() if k.startswith("x-")}  # what else it says is as it is already
        return {**own, "external": True, "name": scalar(body.get("name") or inner or key)}
    if shape.implied or "name" in body:
        out["name"] = scalar(body.get("name") or f"{loaded.stack.name}_{key}")
    out = _driven(out)
    if "file" in out and shape.paths:
        out["file"] = str(absolute_path(scalar(out["file"]), loaded.directory))
    if "labels" in out:
        out["labels"] = {k: scalar(v) for k, v in as_mapping(out["labels"]).items()}
    return omitted.RESOURCE(out)  # type: ignore[no-any-return]
