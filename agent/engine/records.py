"""The record of a container, in memory and on disk for the next agent."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from agent import files
from agent.containers.runtime import Process
from agent.contract.bandwidth import Bandwidth
from agent.contract.container import Container, digest
from agent.contract.status import PublishedPort, State

log = logging.getLogger(__name__)
IMAGE_OF = "com.docker.compose."
"""How the labels begin that Docker Compose gives to images that it builds."""


class Endpoint(msgspec.Struct, kw_only=True):
    """A container's place on a network, addresses resolved."""

    network: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    default: bool = False
    order: int = 0
    interface: str = ""
    link_local: tuple[str, ...] = ()
    bandwidth: Bandwidth | None = None


class Record(msgspec.Struct, kw_only=True):
    """One container. *task* is the manifest's name for it, "" for one made through the Engine API. *stopped* is true
    after an ordered stop: restart policies and reconciliation leave such a container alone."""

    id: str
    name: str
    container: Container
    created: str
    image: str = ""
    image_id: str = ""
    task: str = ""
    stack: str = ""
    service: str = ""
    digest: str = ""
    generation: int = 0
    state: State = "created"
    stopped: bool = False
    auto_remove: bool = False
    process: Process | None = None
    monitor: Process | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    pre_stop_failed: bool = False
    """Whether *error* is that of a pre_stop hook."""
    started: str = ""
    finished: str = ""
    restarts: int = 0
    """How often it was restarted since it last ran for a while: how long the next pause is."""
    attempts: int = 0
    """How often its restart policy restarted it, for the policy's limit."""
    ends: int = 0
    """How often it ended, whether it was restarted or not."""
    health: str = ""
    failing_streak: int = 0
    health_log: list[dict[str, object]] = []
    endpoints: list[Endpoint] = []
    ports: list[PublishedPort] = []
    anonymous: dict[str, str] = {}
    replaces: bool = False
    """Whether it was made in the place of a container of the same task."""
    notes: list[str] = []
    asked: dict[str, Any] = {}
    """The request of the Engine API that the container was created by; answers repeat its words."""
    joined: dict[str, str] = {}
    """The namespaces of others that it is in while it runs: kind → ID of the owner."""
    ids: int = 0
    """The host's ID that is 0 inside, while it runs; 0 in the node's own user namespace."""

    process_label: str = ""
    """The SELinux label of its processes; "" where they are not confined."""
    mount_label: str = ""
    """The SELinux label of its files; "" as long as it has none."""

    @property
    def running(self) -> bool:
        """Whether the container has a process: it runs, is paused or stops."""
        return self.state in ("running", "paused", "stopping")

    @property
    def short(self) -> str:
        """The first 12 digits of the ID."""
        return self.id[:12]


def labels(record: Record) -> dict[str, str]:
    """The container's labels, with those of Docker Compose for the tools that look for them."""
    out = {**dict(record.container.labels), **dict(record.container.origin)}
    if record.stack:
        number = record.task.rsplit("-", 1)[-1] if record.task else "1"
        out |= {
            "com.docker.compose.project": record.stack,
            "com.docker.compose.service": record.service,
            "com.docker.compose.container-number": number,
            "com.docker.compose.oneoff": str(not record.task),
            "com.docker.compose.image": record.image_id,
            "com.docker.compose.config-hash": record.digest or digest(record.container),
        }
        if record.replaces:
            parts = (record.stack, record.service, number)
            joint = next((j for j in "-_" if record.name == j.join(parts)), "")
            out["com.docker.compose.replace"] = joint.join(parts[1:]) if joint else record.name
    return out


def labels_with_image(record: Record, of_image: dict[str, str] | None) -> dict[str, str]:
    """The container's labels over those of its image, without those that say of which project the image is: a container that
    somebody else makes of it is not that project's, nor for who may see that project alone."""
    return {k: v for k, v in (of_image or {}).items() if not k.startswith(IMAGE_OF)} | labels(record)


def encoded(record: Record) -> bytes:
    """*record* as it is written."""
    return msgspec.json.encode(record)


def save(directory: Path, raw: bytes) -> None:
    """Write an encoded record to its directory. Raises OSError."""
    files.write_atomically(directory / "record.json", raw, 0o600)


def load(directory: Path) -> Record | None:
    """The record in *directory*; None if it is missing or damaged: its container is removed then."""
    path = directory / "record.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("%s is damaged (%s): its container is removed; one that a stack asks for is created again", path, error)
        return None
