"""What a client wants of a build."""

from __future__ import annotations

import re

import msgspec

from agent.build.cache_option import CacheOption
from agent.build.options_text import TRUE
from agent.contract.container import Ulimit
from agent.contract.printable import quoted
from agent.errors import BadRequestError
from agent.images.types import Platform


class BuildOptions(msgspec.Struct, kw_only=True):
    """*dockerfile* is a path inside the context; *tags* are names for the result. *contexts* are further ones by name:
    `docker-image://NAME`, `sent:ID`, a URL, or a folder below BUILD_EXTRAS. *remote* is a context to be fetched, *sent* the ID
    of one that came by difference, in place of one that comes with the request. Sizes are in bytes; *network* is that of
    containers. *attestations* are options by kind, *annotations* the manifest's; *agents* lends SSH agents: by their names, the
    IDs of their doors. *platforms*: each gets an image; without any, this node's does. *push*: names under which the image goes
    to registries. *timeout_s*: what it may take, 0 if that is the node's own limit."""

    dockerfile: str = "Dockerfile"
    remote: str = ""
    sent: str = ""
    tags: tuple[str, ...] = ()
    args: dict[str, str] = {}
    target: str = ""
    labels: dict[str, str] = {}
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    pull: bool = False
    network: str = ""
    platforms: tuple[Platform, ...] = ()
    shm_size: int = 0
    extra_hosts: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    contexts: dict[str, str] = {}
    privileged: bool = False
    entitlements: tuple[str, ...] = ()
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset: str = ""
    cgroup_parent: str = ""
    cache_from: tuple[CacheOption, ...] = ()
    cache_to: tuple[CacheOption, ...] = ()
    attestations: dict[str, dict[str, str]] = {}
    annotations: dict[str, str] = {}
    agents: dict[str, str] = {}
    push: tuple[str, ...] = ()
    timeout_s: float = 0.0

    def is_set(self, name: str) -> bool:
        """Whether the build argument *name*, which is one for the builder, is true."""
        return self.args.get(name, "").lower() in TRUE

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH, seconds since 1970: when all of the image was made. Raises BadRequestError."""
        text = self.args.get("SOURCE_DATE_EPOCH", "")
        if text and not re.fullmatch(r"[0-9]{1,11}", text):
            raise BadRequestError(f"invalid SOURCE_DATE_EPOCH: {quoted(text)!r}: seconds since 1970")
        return int(text) if text else None
