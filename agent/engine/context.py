"""The parts of a node that the steps of a container's life use: containers, images, volumes, networks and runtime."""

from __future__ import annotations

import contextlib
from pathlib import Path

from agent import cgroups, mounts
from agent.containers import runtime
from agent.containers.runtime import Runtime
from agent.contract.container import Healthcheck
from agent.contract.failpoints import failpoint
from agent.contract.manifest import FileContent
from agent.contract.trust import ImageTrust
from agent.contract.volume import Volume
from agent.engine import health
from agent.engine.container_table import ContainerTable
from agent.engine.events import Events
from agent.engine.networks import translate
from agent.engine.networks.networks import Networks
from agent.engine.networks.table import network_id
from agent.engine.pulls import ImagePulls
from agent.engine.records import Record
from agent.errors import AgentError
from agent.images.store import ImageStore
from agent.images.trust import Trust
from agent.images.types import RunConfig
from agent.isolation import selinux
from agent.paths import Paths
from agent.settings import Settings
from agent.volumes.volumes import Volumes


class EngineContext:
    """The parts of one node that containers are made with. It knows no step: the steps (`starting`, `stopping` …) get it."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self.paths = paths
        self.settings = settings
        self.cgroup2 = cgroups.unified()
        self.selinux = selinux.in_use(settings.selinux)
        self.events = Events(paths.run / "events.jsonl")
        self.containers = ContainerTable(paths, self.events)
        self.images = ImageStore(paths, settings.limits)
        self.images.users = self.images_in_use
        self.pulls = ImagePulls(self.images, settings, self.events)
        self.volumes = Volumes(paths)
        self.networks = Networks(paths, settings)
        self.runtime = Runtime(paths, runtime.choose(settings.runtime, paths.containers), settings.runtimes)
        self.manifest_volumes: dict[str, Volume] = {}
        """The manifest's volumes by name."""
        self.trust = Trust(self.images, settings)
        self.task_trust: dict[str, ImageTrust] = {}
        """What the images of the manifest's tasks are held to, by task."""
        self.contents: dict[str, FileContent] = {}
        """The manifest's configs and secrets by digest."""

    def cgroup_parent(self, record: Record) -> str:
        """The cgroup that the container's own lies in, from the root of each hierarchy."""
        own = record.container.cgroup_parent.strip("/")
        return f"/{own}" if own else self.paths.cgroup_parent

    def image_config(self, record: Record) -> RunConfig:
        """The run configuration of the record's image. Raises ImageError if the image is gone."""
        return self.images.image(record.image_id).config.config or RunConfig()

    def healthcheck_of(self, record: Record) -> Healthcheck | None:
        """The health check of the container or else of its image; None if there is none or it cannot be read."""
        try:
            return health.effective(record.container, self.image_config(record))
        except AgentError:
            return None

    def gateway_of(self, record: Record) -> str:
        """The address of the host as *record* reaches it, for `host-gateway`."""
        endpoint = next((e for e in record.endpoints if e.default), None)
        if endpoint is None:
            return "127.0.0.1"
        network = self.networks.table.get(endpoint.network)
        return translate.gateway(network, network.subnets[0])

    def tell_network(self, record: Record, action: str, network: str) -> None:
        """Emit the event that a container came onto a network ("connect"), or left it ("disconnect")."""
        known = self.networks.table.all.get(network)
        attributes = {"container": record.id, "name": network, "type": known.driver if known else "bridge"}
        self.events.emit("network", action, network_id(network), attributes)

    def mount_root(self, record: Record) -> Path:
        """The container's root, its image's layers below its own writable one; mounted already is fine."""
        bundle = self.paths.bundle(record.id)
        rootfs = bundle / "rootfs"
        rootfs.mkdir(parents=True, exist_ok=True)
        bundle.chmod(0o700)
        failpoint("container.mount")
        if not mounts.is_mounted(rootfs):
            lower = self.images.lower(self.images.image(record.image_id))
            mounts.overlay(rootfs, lower, self.paths.container(record.id), label=record.mount_label)
        return rootfs

    async def require_trusted(self, record: Record) -> None:
        """Raises ForbiddenError if an image of *record* may not be run here."""
        trust = self.task_trust.get(record.task)
        if not self.trust.applies(trust):
            return
        user = record.container.user or self.image_config(record).user
        await self.trust.require(record.container.image, record.image_id, user, trust)
        for mount in (m for m in record.container.mounts if m.kind == "image"):
            digest = self.images.find(mount.image_id or mount.source).digest
            await self.trust.require(mount.source, digest, user, trust)

    def images_in_use(self) -> set[str]:
        """The digests of the manifests of the images that containers are made of, or mount."""
        records = self.containers.records.values()
        used = {r.image_id for r in records}
        for mount in (m for r in records for m in r.container.mounts if m.kind == "image"):
            with contextlib.suppress(AgentError):
                used.add(self.images.find(mount.image_id or mount.source).digest)
        return used
