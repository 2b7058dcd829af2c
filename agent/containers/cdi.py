"""Devices by name: GPUs and other hardware, whose vendors describe what a container needs.

Source: Container Device Interface specification 0.8 (cncf-tags/container-device-interface, SPEC.md). A spec file in /etc/cdi or
/var/run/cdi lists, for each device of a kind, the nodes, mounts, variables and hooks that a container gets.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.container import DeviceRequest, device_kind
from agent.errors import BadRequestError

FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
Document = dict[str, Any]
log = logging.getLogger(__name__)


class DeviceNode(msgspec.Struct, rename="camel"):
    """A device node to make in the container (CDI specification, `deviceNodes`)."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = "rwm"
    uid: int = 0
    gid: int = 0


class CdiMount(msgspec.Struct, rename="camel"):
    """A mount to add (CDI specification, `mounts`)."""

    host_path: str
    container_path: str
    options: list[str] = []
    type: str = ""


class CdiHook(msgspec.Struct, rename="camel"):
    """An OCI hook to add (CDI specification, `hooks`); *timeout* in seconds."""

    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class Edits(msgspec.Struct, rename="camel"):
    """Changes to a container's configuration (CDI specification, `containerEdits`)."""

    env: list[str] = []
    device_nodes: list[DeviceNode] = []
    mounts: list[CdiMount] = []
    hooks: list[CdiHook] = []
    additional_gids: list[int] = msgspec.field(default_factory=list, name="additionalGIDs")


class CdiDevice(msgspec.Struct, rename="camel"):
    """A named device and the changes that it needs (CDI specification, `devices`)."""

    name: str
    container_edits: Edits = msgspec.field(default_factory=Edits)


class Spec(msgspec.Struct, rename="camel"):
    """A spec file; additions of later versions of the format are ignored."""

    kind: str
    devices: list[CdiDevice]
    container_edits: Edits = msgspec.field(default_factory=Edits)

    def named(self) -> Named:
        """Its devices by their full names, `vendor.com/class=name`."""
        return {f"{self.kind}={d.name}": (self, d) for d in self.devices}


Named = dict[str, tuple[Spec, CdiDevice]]


def read(folders: Iterable[Path] = FOLDERS) -> Named:
    """Every device of the files in *folders*; of two with one name the later folder's counts."""
    out: Named = {}
    for folder in folders:
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if path.suffix not in (".json", ".yaml", ".yml"):
                continue
            try:
                spec = msgspec.convert(_parsed(path), Spec)
            except (OSError, ValueError, msgspec.ValidationError) as error:
                log.warning("%s describes no devices: %s", path, error)
                continue
            out |= spec.named()
    return out


def _parsed(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_bytes())
    import yaml

    try:
        return yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def apply(requests: Sequence[DeviceRequest], document: Document, there: Named) -> None:
    """Add the requested devices to *document* (config.json). Raises BadRequestError, which lists the devices of this node."""
    done: set[int] = set()
    for request in requests:
        names = request.choose(sorted(there))
        if names is None:
            kinds = ", ".join(sorted({device_kind(n) for n in there})) or "none"
            raise BadRequestError(
                f"{_refused(request)}there is no {request} on this node; devices that CDI describes in {FOLDERS[0]}: {kinds} "
                "(of NVIDIA's: `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`)"
            )
        for name in names:
            spec, device = there[name]
            for edits in (spec.container_edits, device.container_edits):
                if id(edits) not in done:
                    done.add(id(edits))
                    _edit(edits, document, name)


def _refused(request: DeviceRequest) -> str:
    """The words by which Docker's clients know that no device of that kind is to be had."""
    return f'could not select device driver "{request.driver}" with capabilities: [[{" ".join(request.capabilities)}]]: '


def _edit(edits: Edits, document: Document, name: str) -> None:
    process, linux = document["process"], document["linux"]
    given = {v.partition("=")[0] for v in edits.env}
    process["env"] = [v for v in process["env"] if v.partition("=")[0] not in given] + edits.env
    process["user"].setdefault("additionalGids", []).extend(g for g in edits.additional_gids if g)
    for node in edits.device_nodes:
        entry = _node(node, name)
        linux.setdefault("devices", []).append(entry)
        rules = linux.setdefault("resources", {}).setdefault("devices", [])
        rules.append({"allow": True, "access": node.permissions, **{k: entry[k] for k in ("type", "major", "minor")}})
    for mount in edits.mounts:
        options = mount.options or ["ro", "nosuid", "nodev", "rbind", "rprivate"]
        if not {"bind", "rbind"} & set(options) and mount.type in ("", "bind"):
            options = [*options, "rbind"]
        document["mounts"].append(
            {
                "destination": mount.container_path,
                "source": mount.host_path,
                "type": mount.type or "bind",
                "options": options,
            }
        )
    for hook in edits.hooks:
        if hook.hook_name not in HOOKS:
            raise BadRequestError(f"device {name}: its CDI file has a hook {hook.hook_name!r}, which the runtime does not know")
        entry = {"path": hook.path, "args": hook.args, "env": hook.env} | ({"timeout": hook.timeout} if hook.timeout else {})
        document.setdefault("hooks", {}).setdefault(hook.hook_name, []).append(entry)


def _node(node: DeviceNode, name: str) -> Document:
    """A device node; what the file leaves out is read from the host's."""
    kind, major, minor, mode = node.type, node.major, node.minor, node.file_mode
    if not kind or not (major or minor):
        try:
            status = os.stat(node.host_path or node.path)
        except OSError as error:
            raise BadRequestError(f"device {name}: {node.host_path or node.path}: {error.strerror}") from error
        kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        mode = stat.S_IMODE(status.st_mode) if mode is None else mode
    return {
        "path": node.path,
        "type": kind,
        "major": major,
        "minor": minor,
        "fileMode": 0o666 if mode is None else mode,
        "uid": node.uid,
        "gid": node.gid,
    }
