"""`deploy:` and `x-placement:` of a service. Source: Compose Specification, deploy.md."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.contract.container import DeviceRequest
from orchestrator.stackfile.constraints import ConstraintSyntaxError, parse, parse_extended
from orchestrator.stackfile.field_readers import Fields, ServiceContext, decimal, duration, integer, pairs, scalar, size
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import Placement, Reserves, UpdateConfig
from orchestrator.stackfile.tolerations import parse_toleration
from orchestrator.stackfile.workloads import JOBS

MODES = ("replicated", "global", *JOBS)


def deploy(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.deploy."""
    body = draft.reading.mapping(value, path)
    fields: Fields = {}
    for key, item in body.items():
        at = (*path, key)
        if key == "replicas":
            fields |= integer("replicas", 0)(draft, item, at)
        elif key == "resources":
            fields |= _resources(draft, item, at)
        elif key == "restart_policy":
            fields |= _restart_policy(draft, item, at)
        elif key == "mode":
            fields["mode"] = _one_of(draft, item, at, MODES)
        elif key == "endpoint_mode":
            fields["endpoint_mode"] = _one_of(draft, item, at, ("vip", "dnsrr"))
        elif key == "labels":
            fields["service_labels"] = pairs("labels")(draft, item, at)["labels"]
        elif key == "placement":
            fields["placement"] = _placement(draft, item, at)
        elif key in ("update_config", "rollback_config"):
            fields[key.removesuffix("_config")] = _update_config(draft, item, at)
    return fields


def _one_of(draft: ServiceContext, value: Any, path: Path_, words: tuple[str, ...]) -> str:
    word = scalar(value)
    if word not in words:
        draft.keep_from_starting(path, f"{word!r} is not known", "one of " + ", ".join(words))
        return words[0]
    return word


def _update_config(draft: ServiceContext, value: Any, path: Path_) -> UpdateConfig:
    body = draft.reading.mapping(value, path)
    actions = ("pause", "continue", "rollback") if path[-1] == "update_config" else ("pause", "continue")
    fields: Fields = {}
    for key, row in (
        ("parallelism", integer("parallelism", 0)),
        ("delay", duration("delay_s")),
        ("monitor", duration("monitor_s")),
    ):
        if key in body:
            fields |= row(draft, body[key], (*path, key))
    for key, allowed in (("failure_action", actions), ("order", ("stop-first", "start-first"))):
        if key in body:
            fields[key] = _one_of(draft, body[key], (*path, key), allowed)
    if "max_failure_ratio" in body:
        try:
            ratio = float(scalar(body["max_failure_ratio"]))
            fields["max_failure_ratio"] = max(0.0, min(1.0, ratio))
            if not 0 <= ratio <= 1:
                draft.reading.check((*path, "max_failure_ratio"), f"{ratio:g} is not from 0 to 1", "0.2 lets one in five fail")
        except ValueError:
            draft.problem((*path, "max_failure_ratio"), f"{scalar(body['max_failure_ratio'])!r} is not a number")
    if path[-1] == "rollback_config" and fields.get("order") == "start-first":
        draft.reading.check(
            (*path, "order"),
            "what is taken back is exchanged in its place, stopped before the next starts",
            "leave it out, or write stop-first",
        )
    return UpdateConfig(**fields)


def _restart_policy(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    policy = draft.reading.mapping(value, path)
    word = {"none": "no", "any": "always", "on-failure": "on-failure"}.get(scalar(policy.get("condition", "any")))
    if word is None:
        draft.keep_from_starting((*path, "condition"), "must be none, on-failure or any")
        return {}
    fields: Fields = {"restart": word}
    for key, row in (
        ("max_attempts", integer("restart_max", 0)),
        ("delay", duration("restart_delay_s")),
        ("window", duration("restart_window_s")),
    ):
        if key in policy:
            fields |= row(draft, policy[key], (*path, key))
    return fields


def _resources(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    fields: Fields = {}
    body = draft.reading.mapping(value, path)
    for key, row in (("cpus", decimal("cpus")), ("memory", size("memory")), ("pids", integer("pids"))):
        item = draft.reading.mapping(body.get("limits"), (*path, "limits")).get(key)
        if item is not None:
            fields |= row(draft, item, (*path, "limits", key))
    at = (*path, "reservations")
    reserved = draft.reading.mapping(body.get("reservations"), at)
    wanted: Fields = {}
    if "memory" in reserved:
        wanted |= size("memory")(draft, reserved["memory"], (*at, "memory"))
        fields |= size("memory_reservation")(draft, reserved["memory"], (*at, "memory"))
    if "cpus" in reserved:
        wanted |= decimal("cpus")(draft, reserved["cpus"], (*at, "cpus"))
    if "generic_resources" in reserved:
        wanted["generic"] = _generic(draft, reserved["generic_resources"], (*at, "generic_resources"))
    if "devices" in reserved:
        fields |= device_requests(draft, reserved["devices"], (*at, "devices"))
    fields["reserves"] = Reserves(**wanted)
    return fields


def device_requests(draft: ServiceContext, value: Any, path: Path_, capability: str = "") -> Fields:
    """Devices by what they can do. Without count and device_ids it is all of them."""
    for number, item in enumerate(draft.reading.sequence(value, path)):
        at = (*path, number)
        body = draft.reading.mapping(item, at)
        if "count" in body and "device_ids" in body:
            draft.problem(at, "count and device_ids exclude each other", "keep one of them")
        count = body.get("count", "all")
        if count in ("all", -1):
            count = -1
        elif not str(count).isdecimal():
            draft.problem((*at, "count"), f"{scalar(count)!r} is neither a number nor all")
            continue
        draft.requests.append(
            DeviceRequest(
                driver=scalar(body.get("driver")),
                count=int(count),
                ids=tuple(map(scalar, body.get("device_ids") or ())),
                capabilities=tuple(dict.fromkeys(filter(None, (capability, *map(scalar, body.get("capabilities") or ()))))),
            )
        )
    return {"device_requests": tuple(draft.requests)}


def _generic(draft: ServiceContext, value: Any, path: Path_) -> tuple[tuple[str, int], ...]:
    out = []
    for number, item in enumerate(draft.reading.sequence(value, path)):
        at = (*path, number)
        spec = draft.reading.mapping(draft.reading.mapping(item, at).get("discrete_resource_spec"), at)
        try:
            out.append((scalar(spec["kind"]), int(spec["value"])))
        except (KeyError, ValueError):
            draft.keep_from_starting((*path, number), "needs discrete_resource_spec with kind and a whole value")
    return tuple(out)


def _placement(draft: ServiceContext, value: Any, path: Path_) -> Placement:
    body = draft.reading.mapping(value, path)
    constraints = []
    for number, item in enumerate(draft.reading.sequence(body.get("constraints"), (*path, "constraints"))):
        try:
            parse(scalar(item))
            constraints.append(scalar(item))
        except ConstraintSyntaxError as error:
            draft.keep_from_starting((*path, "constraints", number), str(error), error.fix)
    spread = []
    for number, item in enumerate(draft.reading.sequence(body.get("preferences"), (*path, "preferences"))):
        at = (*path, "preferences", number)
        label = scalar(draft.reading.mapping(item, at).get("spread"))
        if not label.startswith(("node.labels.", "engine.labels.")):
            draft.keep_from_starting(at, f"spread over {label!r}", "spread: node.labels.NAME")
        else:
            spread.append(label)
    limit = integer("max", 0)(draft, body.get("max_replicas_per_node", 0), (*path, "max_replicas_per_node"))
    before = draft.placement
    draft.placement = Placement(
        constraints=tuple(constraints),
        spread=tuple(spread),
        max_per_node=limit.get("max", 0),
        extended=before.extended,
        near=before.near,
        away=before.away,
        tolerations=before.tolerations,
    )
    return draft.placement


def x_placement(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """What Swarm's grammar cannot say: `constraints` with in, exists, matches and comparisons; services `near` and `away`;
    `tolerations` of taints."""
    body = draft.reading.mapping(value, path)
    extended = []
    for number, item in enumerate(draft.reading.sequence(body.get("constraints"), (*path, "constraints"))):
        try:
            parse_extended(scalar(item))
            extended.append(scalar(item))
        except ConstraintSyntaxError as error:
            draft.problem((*path, "constraints", number), str(error), error.fix)
    names = {}
    for key in ("near", "away"):
        given = body.get(key) or ()
        names[key] = tuple(map(scalar, [given] if isinstance(given, str) else given))
    tolerations = []
    for number, item in enumerate(draft.reading.sequence(body.get("tolerations"), (*path, "tolerations"))):
        if parse_toleration(scalar(item)):
            tolerations.append(scalar(item))
        else:
            draft.problem((*path, "tolerations", number), f"{scalar(item)!r} is not a toleration", "write KEY, KEY=VALUE or *")
    draft.placement = msgspec.structs.replace(
        draft.placement, extended=tuple(extended), tolerations=tuple(tolerations), **names
    )
    return {"placement": draft.placement}
