"""How a service is confined: `security_opt:` and `x-harden:`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent.contract import selinux
from agent.contract.container import Mount
from orchestrator.stackfile.field_readers import Fields, ServiceContext, scalar
from orchestrator.stackfile.marked_document import Path_

KEY = "x-harden"
BUILT_IN = ("unconfined", "builtin", "strict")
MOST_BYTES = 1 << 20
WRITABLE = ("/tmp", "/run", "/var/tmp")
"""Folders that a strict service has in memory, where it mounts nothing there and its root is not to be written."""
PIDS = 1024
"""Processes of a strict service that does not say how many."""


def security_opt(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.security_opt; a seccomp profile is a file of the client, which travels with the stack. One by a whole
    path that is not here is one of the node."""
    out = []
    for number, item in enumerate(draft.reading.sequence(value, path)):
        text = scalar(item)
        name, _, rest = text.replace("=", ":", 1).partition(":")
        if name == "label" and (wrong := selinux.problem(rest)):
            draft.keep_from_starting((*path, number), wrong)
        if name == "seccomp" and rest not in BUILT_IN and not rest.startswith("{"):
            text = f"seccomp={_profile(draft, rest, (*path, number))}"
        out.append(text)
    return {"security_opt": tuple(dict.fromkeys(out))}


def _profile(draft: ServiceContext, name: str, path: Path_) -> str:
    """The profile in the file *name* as one line of JSON, or *name* where it is the node's."""
    file = draft.reading.host_path(name)
    try:
        with file.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
    except (FileNotFoundError, ValueError):
        if name.startswith("/"):
            return name
        draft.reading.check(path, f"{file} does not exist", f"name a seccomp profile, or one of {', '.join(BUILT_IN)}")
        return name
    except OSError as error:
        draft.reading.check(path, f"{file} cannot be read: {error.strerror}")
        return name
    if len(raw) > MOST_BYTES:
        draft.problem(path, f"{file} has more than {MOST_BYTES} bytes")
        return name
    try:
        document = json.loads(raw)
        if not isinstance(document, dict) or "defaultAction" not in document:
            raise ValueError("it has no defaultAction")
    except (ValueError, RecursionError) as error:
        draft.problem(path, f"{file} is not a seccomp profile: {error}", "Docker's JSON: defaultAction, syscalls …")
        return name
    return json.dumps(document, separators=(",", ":"))


def harden(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-harden: `strict` is what `strict_fields` adds."""
    if value == "strict" and draft.body.get("privileged"):
        draft.reading.check(path, "strict and privileged exclude each other", "take one of them out")
    return {}


def strict_fields(body: Mapping[str, Any], fields: Fields) -> Fields:
    """*fields* of a service with `x-harden: strict`: all capabilities dropped but those of cap_add, no new privileges, a
    smaller seccomp profile, a read-only root with memory for what is written, a user namespace, a limit of processes. What
    the service says itself of one of these counts."""
    options = tuple(fields.get("security_opt", ()))
    given = {option.replace("=", ":", 1).partition(":")[0] for option in options}
    more = [
        w for w, key in (("no-new-privileges:true", "no-new-privileges"), ("seccomp=strict", "seccomp")) if key not in given
    ]
    out = {**fields, "cap_drop": ("ALL",), "security_opt": (*options, *more)}
    out.setdefault("pids", PIDS)
    if "read_only" not in body:
        out["read_only"] = True
    if "userns_mode" not in body and not any(body.get(k) == "host" for k in ("pid", "ipc", "network_mode")):
        out["userns_mode"] = "auto"
    if out["read_only"]:
        taken = {m.target.rstrip("/") for m in out.get("mounts", ())}
        memory = (Mount(kind="tmpfs", target=t, mode=0o755 if t == "/run" else 0o1777) for t in WRITABLE if t not in taken)
        out["mounts"] = (*out.get("mounts", ()), *memory)
    return out
