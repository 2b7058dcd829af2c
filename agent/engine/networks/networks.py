"""The networks of one node: their interface, and the pass that brings kernel, firewall and data path to the desired state.

Changes of many containers at once are applied together: `sync` returns when a pass that began after the call is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from agent import rootless
from agent.cancellation import to_end
from agent.contract.coalescing import Coalescer
from agent.contract.container import Attachment, Container
from agent.contract.failpoints import failpoint
from agent.contract.manifest import Manifest
from agent.contract.network import Network, Subnet
from agent.contract.sealing import known_key, private_key
from agent.contract.status import PublishedPort
from agent.contract.timings import Histogram
from agent.engine.networks import nftables, ports, translate
from agent.engine.networks.applier import KernelApplier
from agent.engine.networks.dataplane import DataplaneProcess
from agent.engine.networks.endpoints import EndpointTable
from agent.engine.networks.healing import Healer
from agent.engine.networks.host import NetworkHost
from agent.engine.networks.reachable import without_silent
from agent.engine.networks.table import NetworkTable
from agent.engine.records import Endpoint, Record
from agent.errors import AgentError, ConflictError
from agent.paths import Paths
from agent.rootless.slirp4netns import PortForwarder
from agent.settings import Settings
from netplugins import bridge, registry
from netplugins.driver import FdbEntry
from netplugins.kernel import prepare_namespace
from netplugins.linux import netns
from netplugins.linux.sysctl import allow_forwarding
from netplugins.liveness import LivenessMonitor

T = TypeVar("T")
log = logging.getLogger(__name__)


class Networks:
    """The networks of one node (*table*), the containers on them (*endpoints*), and kernel, firewall and data path below."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self.paths = paths
        self.settings = settings
        self.drivers = registry.load(paths.link_prefix)
        self.table = NetworkTable(paths.root / "networks.json", paths.link_prefix, self.drivers, settings.address_pools)
        self.endpoints = EndpointTable(self.table, paths)
        self.host = NetworkHost(paths.link_prefix)
        self.manifest = Manifest()
        """The desired state of the node, of which this uses the parts about networks."""
        self.has_manifest = False
        """Whether a manifest has arrived: before that the kernel is not changed."""
        self.dataplane = DataplaneProcess(paths.run)
        self.timing = Histogram()
        """How long it took to make the kernel equal to what was described."""
        self._far: frozenset[FdbEntry] = frozenset()
        self._applier = KernelApplier(paths.link_prefix)
        self.moved: Callable[[], None] = lambda: None
        """Called when the host's own addresses have changed."""
        self.revived: Callable[[str], None] = lambda _: None
        """Called with the reason when the data path process was restarted."""
        self._forwarder = PortForwarder(paths.run) if rootless.inside() else None
        self._problems: dict[str, str] = {}
        """Failures of the last pass that concern single containers: namespace → reason."""
        self._pass = Coalescer(self._sync)
        self._healer = Healer(self._applier, paths.link_prefix, self._mend, lambda: self.moved(), enabled=settings.heal)
        self._supervisor: asyncio.Task[None] | None = None
        self._liveness = LivenessMonitor(self._liveness_changed)
        self._following: asyncio.Task[None] | None = None

    def set_desired(self, manifest: Manifest) -> None:
        """Set the desired state; `sync` applies it."""
        self.has_manifest = True
        self.manifest = manifest
        self.table.set_planned(manifest.networks)
        self.host.set_underlay(manifest.underlay, manifest.mtu)
        if not rootless.inside():
            self._liveness.watch(p.underlay for p in manifest.remote_endpoints if p.underlay)

    def remove(self, name: str) -> None:
        """Remove a network made by hand. Raises NotFoundError, or ConflictError if it has endpoints or belongs to a stack."""
        network = self.table.get(name)
        self.table.remove(network.name, self.endpoints.users_of(network.name))

    # --- containers come and go --------------------------------------------------------------------------------

    async def open(self, record: Record, *, made: bool = False) -> None:
        """Give *record* its namespace, where that is not *made* yet: empty, but for its loopback device."""
        failpoint("network.attach")
        await asyncio.to_thread(netns.enter if made else netns.create, self.endpoints.netns(record), prepare_namespace)

    async def attach(self, record: Record) -> None:
        """Give *record* links, addresses, names and ports in its namespace. Raises AgentError; nothing stays then."""
        try:
            self.endpoints.attach(record)
            await self._sync_for(record)
        except BaseException:
            await to_end(self.detach(record))
            raise

    async def detach(self, record: Record) -> None:
        """Take *record* off all networks; not attached is fine."""
        failpoint("network.detach")
        self.endpoints.release(record)
        path = self.endpoints.netns(record)
        if path.exists():  # else it was not attached, or is not any more
            try:
                await self.sync()
            finally:
                await to_end(asyncio.to_thread(netns.delete, path))

    async def connect(self, record: Record, attachment: Attachment) -> None:
        """Put *record*, running or not, on one more network. Raises AgentError; its networks are unchanged then."""
        before = record.endpoints
        after = self.endpoints.with_one_more(record, attachment)
        try:
            await self.replace_endpoints(record, after)
        except BaseException:
            await to_end(self.replace_endpoints(record, before))
            raise

    async def disconnect(self, record: Record, network: Network) -> None:
        """Take *record* off a network. Raises ConflictError if it is not on it."""
        await self.replace_endpoints(record, self.endpoints.without(record, network.name))

    async def replace_endpoints(self, record: Record, endpoints: list[Endpoint]) -> None:
        """Let *record* have these *endpoints*, at once where it runs. Raises AgentError."""
        self.endpoints.replace(record, endpoints)
        if record.id in self.endpoints.attached:
            await self._sync_for(record)

    async def _sync_for(self, record: Record) -> None:
        """`sync`, and raise AgentError if something could not be made for *record*."""
        await self.sync()
        if problem := self._problems.get(str(self.endpoints.netns(record))):
            raise AgentError(f"container {record.name}: {problem}")

    def readdress(self, record: Record, container: Container) -> None:
        """Let *record*, which is attached, have the addresses of *container* from the next `sync` on."""
        self.endpoints.readdress(record, container)

    def own_ports(self, record: Record) -> list[PublishedPort]:
        """The ports that lead to *record* alone."""
        return ports.own(record, ports.of_services(self.manifest.service_addresses))

    def adopt(self, records: Iterable[Record]) -> None:
        """Take over containers that ran on while the agent was away."""
        self.endpoints.adopt(records)
        if self.has_manifest:
            for name in sorted(self.endpoints.networks_in_use() - self.table.all.keys()):
                self._recover_network(name)

    def _recover_network(self, name: str) -> None:
        """Recover a network that containers use and no document names, from the addresses of its bridge."""
        link = self.table.link(name)
        done = subprocess.run(["ip", "-json", "address", "show", "dev", link], capture_output=True, text=True, check=False)
        held = [a for entry in json.loads(done.stdout or "[]") for a in entry.get("addr_info", ()) if a["scope"] == "global"]
        subnets = tuple(
            Subnet(cidr=str(ipaddress.ip_network(f"{a['local']}/{a['prefixlen']}", strict=False)), gateway=a["local"])
            for a in held
        )
        self.table.recover(name, subnets)

    # --- kernel, firewall and data path ------------------------------------------------------------------------

    async def sync(self) -> None:
        """Return when the kernel, the firewall and the data path agree with the networks and endpoints. Raises AgentError."""
        await self._pass()

    async def _sync(self) -> None:
        if not self.has_manifest:
            return
        try:
            await self._sync_once()
        except AgentError:
            raise
        except Exception as error:  # of any kind: all callers get it as the error of their request
            raise AgentError(str(error)) from error

    async def _sync_once(self) -> None:
        self.table.drop_left(self.endpoints.networks_in_use())
        bridge.trim(sum(len(r.endpoints) for r in self.endpoints.attached.values()))
        nftables.trim_caches(len(self.manifest.service_addresses))
        with self.timing.timed():
            desired = self.desired()
            self._problems = await self._applier.apply(desired)
        self._far = desired.fdb
        self._check_dataplane(await self.dataplane.update(desired.dataplane))
        if self._forwarder:
            for (protocol, _, port), why in (await self._applier.run(self._forwarder.keep, desired.forwarded)).items():
                raise ConflictError(f"port {port} ({protocol}) cannot be published: {_in_line(why)}")

    def _check_dataplane(self, problems: dict[str, str]) -> None:
        """Raise AgentError if the data path cannot serve something."""
        for name, why in problems.items():
            if name.split(" ")[0] in ("tcp", "udp"):
                if "::" in name:
                    continue  # IPv6 listeners are optional: a host without IPv6 has none
                raise ConflictError(
                    f"port {name.split(' ', 1)[1]} ({name.split(' ')[0]}) cannot be published: {why[:1].lower()}{why[1:]}"
                )
            if name in self.endpoints.attached:
                raise AgentError(f"container {self.endpoints.attached[name].name}: {why}")

    def desired(self) -> translate.Desired:
        """All that must exist now. Raises AgentError if a network with endpoints cannot be made on this node."""
        networks = self.table.all
        if any(n.driver not in registry.SELF_CONTAINED for n in networks.values()):  # others are made on links of the host
            self.host.refresh_links()
        return translate.translate(
            translate.Snapshot(
                networks=networks,
                links={name: self.table.link(name) for name in networks},
                records=tuple(self.endpoints.attached.values()),
                views=self.endpoints.views(),
                manifest=without_silent(self.manifest, self._liveness.silent),
                host=self.host.capabilities,
                drivers=self.drivers,
                tunnel_keys=self._tunnel_keys(networks.values()),
                prefix=self.paths.link_prefix,
                table=self.paths.table,
                opened=self.settings.opened,
                rootless=self._forwarder is not None,
            )
        )

    def _tunnel_keys(self, networks: Iterable[Network]) -> translate.TunnelKeys | None:
        if translate.needs_tunnel(self.manifest, networks) and (public := known_key(self.paths.keys, "tunnel")):
            return translate.TunnelKeys(private=str(private_key(self.paths.keys, "tunnel")), public=public)
        return None

    def far_endpoints(self) -> dict[str, int]:
        """How many endpoints on other nodes each overlay knows, each by an FDB entry."""
        counts = Counter(entry.bridge for entry in self._far)
        return {name: counts[self.table.link(name)] for name, n in self.table.all.items() if n.driver == "overlay"}

    async def run_undisturbed(self, look: Callable[[], T]) -> T:
        """The result of *look*, called on the thread that otherwise changes the kernel."""
        return await self._applier.run(look)

    @property
    def notes(self) -> list[str]:
        """Messages: changes to the host that are not ours, and those that failed."""
        return self._applier.notes

    @property
    def forwards(self) -> bool:
        """Whether the host must forward for a network of this node."""
        return self._applier.forwards

    async def rebuild(self, items: Iterable[str]) -> None:
        """Recreate the kernel objects called *items*, and write entries, rules, names and ports once more."""
        allow_forwarding(self.table.link(n) for n in self.table.all)
        await self._applier.invalidate(items)
        self.dataplane.invalidate()
        await self.sync()

    def watch(self) -> None:
        """Watch the kernel and the data path: changes by others to our objects are undone within a second."""
        self._healer.start()
        self._supervisor = asyncio.create_task(self.dataplane.supervise(lambda why: self.revived(why)), name="data path")

    def _liveness_changed(self) -> None:
        """Send connections to others, or to all again; passes of one moment are one."""
        log.warning("nodes that do not answer: %s", ", ".join(sorted(self._liveness.silent)) or "none")
        self._following = asyncio.create_task(self._follow_liveness())

    async def _follow_liveness(self) -> None:
        with contextlib.suppress(AgentError):  # the next pass reports it to who waits for it
            await self.sync()

    async def _mend(self) -> None:
        remade = self.host.refresh_mtu()
        if await self._applier.is_intact() and not remade:
            return
        with contextlib.suppress(AgentError):  # a task that needs it reports it
            await self.sync()

    async def close(self) -> None:
        """End the workers and monitors and close the connections."""
        self._healer.close()
        self._liveness.close()
        if self._following:
            await asyncio.gather(self._following, return_exceptions=True)
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._pass.drain()
        self._applier.close()
        self.dataplane.close()


def _in_line(why: str) -> str:
    """The text of strerror(3) as it stands behind a colon, in the words that Docker's clients look for."""
    return why[:1].lower() + why[1:]
