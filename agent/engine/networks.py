"""Where manifest networks become driver networks: what exists, who is on it, and the kernel made to agree.

Changes of many containers at once are applied together: `sync` returns when a pass that began after the call is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import json
import logging
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from agent import files, rootless
from agent.contract.cluster import ClusterNode, RemoteEndpoint, ServiceAddress, TunnelPeer
from agent.contract.container import Attachment, Container
from agent.contract.failpoints import failpoint
from agent.contract.manifest import Manifest
from agent.contract.network import Network, Subnet
from agent.contract.sealing import known_key, private_key
from agent.contract.status import PublishedPort
from agent.engine import nftables, ports
from agent.engine.dataplane import DataplaneProcess
from agent.engine.endpoints import EndpointCache
from agent.engine.records import Endpoint, Record
from agent.errors import AgentError, BadRequestError, ConflictError, ForbiddenError, NotFoundError
from agent.paths import Paths
from agent.rootless.slirp4netns import ForwardedPort, PortForwarder
from agent.settings import Settings
from netplugins import bridge, firewall, registry, wireguard
from netplugins import driver as drivers
from netplugins.errors import NetworkError
from netplugins.kernel import Kernel, features, links, prepare_namespace
from netplugins.linux import monitors, netlink, netns
from netplugins.linux.sysctl import allow_forwarding
from netplugins.resolver.table import DataplaneState, Forward

T = TypeVar("T")
DEFAULT = "bridge"
log = logging.getLogger(__name__)
HEAL_AFTER_S = 0.25
DEFAULT_MTU = 1500
FORWARDS_S = 1.0
"""How long the host is taken to forward, once it was looked at."""


class Networks:
    """One node's networks and endpoints: links, addresses, rules and names."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self.paths = paths
        self.settings = settings
        self.prefix = paths.link_prefix
        self.drivers = registry.load(self.prefix)
        self.dataplane = DataplaneProcess(paths.run)
        self.manifest: dict[str, Network] = {}
        self.leaving: dict[str, Network] = {}
        """Out of the manifest, and in use by containers that are on their way out."""
        self.peers: tuple[RemoteEndpoint, ...] = ()
        self.virtuals: tuple[ServiceAddress, ...] = ()
        self.tunnels: tuple[TunnelPeer, ...] = ()
        self.nodes: tuple[ClusterNode, ...] = ()
        self.node = ""
        self.has_manifest = False
        """Whether a manifest has arrived: before that the kernel is not changed."""
        self.underlay = ""
        self._paths_mtu = 0
        self.local: dict[str, Network] = self._load_local()
        self.attached: dict[str, Record] = {}
        """Those whose links, names and ports the kernel and the data path are to have."""
        self._starting: dict[str, Record] = {}
        """Those that have their addresses and ports, and are not attached yet."""
        self._endpoint_views = EndpointCache()
        self._netns = str(paths.netns)
        self.host = drivers.HostCapabilities(features=features())
        self.notes: list[str] = []
        self._worker = ThreadPoolExecutor(1, "netlink")
        self._kernel: Kernel | None = None
        self._rules = nftables.NftablesApplier(self.prefix)
        self._doors = PortForwarder(paths.run) if rootless.inside() else None
        self._problems: dict[str, str] = {}
        """What the last pass could not make for single containers: namespace → why."""
        self.forwards = False
        """Whether this node has networks between which and the outside it must forward, with containers of its own or not."""
        self._forwards_until = 0.0
        self._suspect = False
        self.moved: Callable[[], None] = lambda: None
        """Called when the host's own addresses are others than before."""
        self.revived: Callable[[str], None] = lambda _: None
        """Called when the data path process was started again, with why."""
        self._supervisor: asyncio.Task[None] | None = None
        self._held: set[str] = set()
        self._monitors: list[socket.socket] = []
        self._heal_timer: asyncio.TimerHandle | None = None
        self._healing: asyncio.Task[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._runner: asyncio.Task[None] | None = None

    def set_desired(self, manifest: Manifest) -> None:
        """From now on this is what the control plane wants; `sync` makes it so."""
        self.has_manifest = True
        # a container that is still stopping keeps its networks, though nobody else is to have them any more
        self.leaving |= self.manifest
        self.manifest = {n.name: n for n in manifest.networks}
        self.peers, self.virtuals, self.node = manifest.remote_endpoints, manifest.service_addresses, manifest.node
        self.tunnels, self.nodes = manifest.tunnels, manifest.nodes
        self.underlay, self._paths_mtu = manifest.underlay, manifest.mtu
        self._update_mtu()

    def _update_mtu(self) -> None:
        """What can be sent to other nodes: no more than the own link takes, nor than the paths carry."""
        now = min(mtu_of(self.underlay) or DEFAULT_MTU, self._paths_mtu or 1 << 16)
        if now != self.host.mtu:
            self.host = msgspec.structs.replace(self.host, mtu=now)

    # --- what exists -------------------------------------------------------------------------------------------

    def _load_local(self) -> dict[str, Network]:
        path = self.paths.root / "networks.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Network])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s is damaged (%s): networks made by hand are found again where containers use them", path, error)
            path.rename(path.with_suffix(".damaged"))
            return {}

    def _save_local(self, networks: dict[str, Network]) -> None:
        """From now on these are the networks made by hand; where they cannot be written down, nothing changes."""
        files.write_atomically(self.paths.root / "networks.json", msgspec.json.encode(networks))
        self.local = networks

    @property
    def all(self) -> dict[str, Network]:
        """The networks by name: local ones, the manifest's, and those that are leaving."""
        return {**self.local, **self.leaving, **self.manifest}

    def get(self, name: str) -> Network:
        """The network by its name, or by at least 6 digits of its ID; makes the default one. Raises NotFoundError."""
        if name in self.all:
            return self.all[name]
        if name == DEFAULT:
            return self.create(Network(name=DEFAULT))
        hits = [n for n in self.all.values() if len(name) >= 6 and self.identity(n.name).startswith(name)]
        if len(hits) == 1:
            return hits[0]
        raise NotFoundError(f"network {name} not found")

    def has(self, name: str) -> bool:
        """Whether `get` finds the network."""
        try:
            self.get(name)
        except NotFoundError:
            return False
        return True

    @staticmethod
    def identity(name: str) -> str:
        """A network's ID in the Engine API."""
        return hashlib.sha256(f"network {name}".encode()).hexdigest()

    def create(self, network: Network, *, ipv6: bool = False) -> Network:
        """A network made on this node alone (Engine API); one without a subnet gets a free one, and one of *ipv6* too. Raises
        BadRequestError, ConflictError, ForbiddenError: what is wrong with one must never come to what all are made of."""
        if network.name in self.all:
            raise ConflictError(f"network with name {network.name} already exists")
        if network.driver not in self.drivers:
            raise NotFoundError(
                f'plugin "{network.driver}" not found: network {network.name} can have the drivers '
                f"{', '.join(sorted(self.drivers))} on this node"
            )
        subnets = tuple(_validate_subnet(network.name, s) for s in network.subnets)
        for one in subnets:
            for other in (o for n in self.all.values() for o in n.subnets):
                if _overlap(one.cidr, other.cidr):
                    raise ForbiddenError(
                        f"network {network.name}: pool {one.cidr} overlaps with {other.cidr} of another network"
                    )
        if not any(":" not in s.cidr for s in subnets):
            subnets = (self._free_subnet(), *subnets)
        if ipv6 and not any(":" in s.cidr for s in subnets):
            # a prefix of one's own, by chance in Docker and by name here. Source: RFC 4193
            prefix = ipaddress.IPv6Address(bytes([0xFD, *hashlib.sha256(network.name.encode()).digest()[:7], *bytes(8)]))
            subnets = (*subnets, Subnet(cidr=f"{prefix}/64", gateway=str(prefix + 1)))
        network = msgspec.structs.replace(network, subnets=subnets)
        self._save_local(self.local | {network.name: network})
        return network

    def remove(self, name: str) -> None:
        """Remove a local network. Raises NotFoundError, or ConflictError if it has endpoints or belongs to a stack."""
        network = self.get(name)
        users = [r.name for r in self.attached.values() if any(e.network == network.name for e in r.endpoints)]
        if users:
            raise ConflictError(f"network {name} has active endpoints: {', '.join(users)}")
        if network.name in self.manifest:
            raise ConflictError(f"network {name} belongs to stack {network.stack}: use `pystack down`")
        self._save_local({n: one for n, one in self.local.items() if n != network.name})

    def _free_subnet(self) -> Subnet:
        taken = [ipaddress.ip_network(s.cidr) for n in self.all.values() for s in n.subnets]
        # from the end: the control plane takes its subnets from the beginning
        for pool in self.settings.address_pools:
            network = ipaddress.ip_network(pool)
            if network.version != 4:
                continue
            for number in range(2 ** (24 - network.prefixlen) - 1, -1, -1):
                start = int(network.network_address) + (number << 8)
                candidate = ipaddress.IPv4Network((start, 24))
                if not any(candidate.overlaps(t) for t in taken if t.version == 4):
                    return Subnet(cidr=str(candidate), gateway=str(candidate.network_address + 1))
        raise AgentError("no free subnet is left in the address pools: add one to config.yml (address_pools)")

    # --- who is on it ------------------------------------------------------------------------------------------

    def netns(self, record: Record) -> str:
        """The path of the record's network namespace."""
        return f"{self._netns}/{record.id[:16]}"

    def reserve(self, record: Record) -> None:
        """Fix endpoints and published ports of *record*, which is going to be attached: nobody else gets the same until it
        leaves. Raises ConflictError."""
        self.assign(record)
        others = [r for r in self._holders() if r.id != record.id]
        ports.assign(record, others)
        if not record.task:  # of a stack's addresses the planner knows who has them, and who is on the way out
            for other in others:
                if twice := _addresses(record) & _addresses(other):
                    network, address = min(twice)
                    raise ConflictError(f"address {address} of network {network} is in use by container {other.name}")
        self._starting[record.id] = record

    def _holders(self) -> list[Record]:
        return [*self._starting.values(), *self.attached.values()]

    def assign(self, record: Record, *, free: bool = True) -> None:
        """Say on which networks *record* is, with the plan's addresses; with *free* ones where the plan gave none.

        Without, a network need not exist yet. Raises NotFoundError."""
        wanted = record.container.attachments if free else tuple(a for a in record.container.attachments if self.has(a.network))
        nowhere = not record.container.attachments and record.container.network_mode in ("", "bridge", "default")
        if nowhere and not record.task:
            wanted = (Attachment(network=DEFAULT),)
        endpoints = [self._endpoint(record, attachment, order, free=free) for order, attachment in enumerate(wanted)]
        ranked = sorted(
            zip(endpoints, wanted, strict=True),
            key=lambda pair: (-pair[1].gw_priority, self.get(pair[0].network).internal, pair[0].network),
        )
        if ranked:
            ranked[0][0].default = True
        record.endpoints = endpoints

    def _endpoint(self, record: Record, attachment: Attachment, order: int, *, free: bool = True) -> Endpoint:
        network = self.get(attachment.network)
        old = next((e for e in record.endpoints if e.network == network.name), None)
        endpoint = Endpoint(
            network=network.name,
            ipv4=attachment.ipv4,
            ipv6=attachment.ipv6,
            mac=attachment.mac,
            aliases=attachment.aliases,
            order=order,
            interface=attachment.interface,
            link_local=attachment.link_local,
            bandwidth=attachment.bandwidth,
        )
        for subnet in network.subnets if free else ():
            field = "ipv6" if ":" in subnet.cidr else "ipv4"
            if not getattr(endpoint, field):
                kept = getattr(old, field) if old else ""
                used = self._used(network.name, field, record.id)
                value = kept if kept and kept not in used else _free_address(subnet, used)
                setattr(endpoint, field, value)
        return endpoint

    async def connect(self, record: Record, attachment: Attachment) -> None:
        """Put *record*, running or not, on one network more. Raises AgentError, and it is then where it was."""
        network = self.get(attachment.network)
        if any(e.network == network.name for e in record.endpoints):
            raise ForbiddenError(f"endpoint with name {record.name} already exists in network {network.name}")
        before = record.endpoints
        endpoint = self._endpoint(record, attachment, max((e.order for e in before), default=-1) + 1)
        endpoint.default = not any(e.default for e in before)
        if record.id in self.attached:
            for field, spec in (("ipv4", attachment.ipv4), ("ipv6", attachment.ipv6)):
                if spec and spec in self._used(network.name, field, record.id):
                    raise ForbiddenError(f"Address already in use: {spec} of network {network.name} is another container's")
        try:
            await self.set_endpoints(record, [*before, endpoint])
        except BaseException:
            await self.set_endpoints(record, before)
            raise

    async def disconnect(self, record: Record, network: Network) -> None:
        """Take *record* off a network. Raises ConflictError where it is not on it."""
        rest = [e for e in record.endpoints if e.network != network.name]
        if len(rest) == len(record.endpoints):
            raise ConflictError(f"container {record.id} is not connected to network {network.name}")
        if rest and not any(e.default for e in rest):
            rest[0].default = True
        await self.set_endpoints(record, rest)

    def readdress(self, record: Record, container: Container) -> None:
        """Let *record*, which is attached, have the addresses of *container* from the next `sync` on."""
        record.container = container
        self.assign(record)
        self._endpoint_views.forget(record)

    async def set_endpoints(self, record: Record, endpoints: list[Endpoint]) -> None:
        """Let *record* have these *endpoints*, at once where it runs. Raises AgentError where the kernel cannot."""
        record.endpoints = endpoints
        if record.id in self.attached:
            self._endpoint_views.forget(record)
            await self.sync()
            if problem := self._problems.get(self.netns(record)):
                raise AgentError(f"container {record.name}: {problem}")

    def _used(self, network: str, field: str, except_for: str) -> set[str]:
        return {getattr(e, field) for r in self._holders() if r.id != except_for for e in r.endpoints if e.network == network}

    def own_ports(self, record: Record) -> list[PublishedPort]:
        """The ports that lead to *record* alone; those of its whole service are balanced, and it may get or lose them while it
        runs, as replicas come and go."""
        shared = {(p.published, p.protocol) for v in self.virtuals for p in v.ports} if record.task else set()
        return [p for p in record.ports if (p.published, p.protocol) not in shared]

    def holds(self, record: Record) -> bool:
        """Whether the namespace of *record*, which does not run, is kept for those who are in it."""
        return record.id in self.attached

    async def open(self, record: Record, *, made: bool = False) -> None:
        """Give *record* its namespace, where that is not *made* yet: empty, but for its loopback device."""
        failpoint("network.attach")
        path = self.paths.netns / record.id[:16]
        await asyncio.to_thread(netns.enter if made else netns.create, path, prepare_namespace)

    async def attach(self, record: Record) -> None:
        """Give *record* links, addresses, names and ports in its namespace. Raises AgentError; nothing stays then."""
        try:
            self.attached[record.id] = record
            self._starting.pop(record.id, None)
            await self.sync()
            if problem := self._problems.get(self.netns(record)):
                raise AgentError(f"container {record.name}: {problem}")
        except BaseException:
            await self.detach(record)
            raise

    def release(self, record: Record) -> None:
        """From now on *record*'s addresses and ports are free; the kernel hears of it with the next `sync`."""
        self.attached.pop(record.id, None)
        self._starting.pop(record.id, None)
        self._endpoint_views.forget(record)

    async def detach(self, record: Record) -> None:
        """Take *record* off all networks; not attached is fine."""
        failpoint("network.detach")
        self.release(record)
        path = self.paths.netns / record.id[:16]
        if path.exists():  # else it was not attached, or is not any more
            try:
                await self.sync()
            finally:
                await asyncio.to_thread(netns.delete, path)

    def adopt(self, records: Iterable[Record]) -> None:
        """Take over containers that ran on while the agent was away."""
        for record in records:
            if netns.is_namespace(self.paths.netns / record.id[:16]):
                self.attached[record.id] = record
                for endpoint in record.endpoints:
                    if self.has_manifest and endpoint.network not in self.all:
                        self._recover_network(endpoint.network)

    def _recover_network(self, name: str) -> None:
        """A network that containers use and no document knows: what its bridge holds says what it was."""
        link = self.link(name)
        done = subprocess.run(["ip", "-json", "address", "show", "dev", link], capture_output=True, text=True, check=False)
        held = [a for entry in json.loads(done.stdout or "[]") for a in entry.get("addr_info", ()) if a["scope"] == "global"]
        subnets = tuple(
            Subnet(cidr=str(ipaddress.ip_network(f"{a['local']}/{a['prefixlen']}", strict=False)), gateway=a["local"])
            for a in held
        )
        self._save_local(self.local | {name: Network(name=name, subnets=subnets or (self._free_subnet(),))})

    # --- the kernel made to agree ------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Return when the kernel, the firewall and the data path agree with what this object says."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        mine = self._next
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        await asyncio.shield(mine)

    async def _run(self) -> None:
        while self._next is not None:
            current, self._next = self._next, None
            try:
                await self._sync_once()
            except Exception as error:
                if not current.done():
                    wrapped = error if isinstance(error, AgentError) else AgentError(str(error))
                    current.set_exception(wrapped)
                    current.exception()  # a caller that was cancelled must not leave a warning
            else:
                if not current.done():
                    current.set_result(None)

    def _describe(self) -> tuple[frozenset[drivers.KernelObject], list[drivers.FirewallPolicy], frozenset[drivers.FdbEntry]]:
        networks = self.all
        if any(n.driver not in registry.SELF_CONTAINED for n in networks.values()):  # others are made on links of the host
            self.host = msgspec.structs.replace(self.host, links=self.host_links())
        endpoints: dict[str, list[drivers.Endpoint]] = {name: [] for name in networks}
        for record in self.attached.values():
            for endpoint in self._endpoint_views.of(record, self.netns(record)).endpoints:
                endpoints.setdefault(endpoint.network, []).append(endpoint)
        objects: set[drivers.KernelObject] = set()
        far: set[drivers.FdbEntry] = set()
        remotes: dict[str, list[drivers.RemoteEndpoint]] = {}
        inside = {t.underlay: wireguard.address_of(t.key) for t in self.tunnels}
        for peer in self.peers:
            # an endpoint whose node is not in the tunnel yet is not reached in the clear either
            secret = peer.network in networks and networks[peer.network].encrypted
            underlay = inside.get(peer.underlay, "") if secret else peer.underlay
            remotes.setdefault(peer.network, []).append(
                drivers.RemoteEndpoint(underlay=underlay, ipv4=peer.ipv4, ipv6=peer.ipv6, mac=peer.mac)
            )
        tunnel = self._tunnel()
        isolation = []
        for network in networks.values():
            here = endpoints[network.name]
            spec = msgspec.structs.replace(self.driver_network(network), remotes=tuple(remotes.get(network.name, ())))
            if network.encrypted:
                spec = msgspec.structs.replace(spec, tunnel=tunnel, underlay=tunnel.address if tunnel else "")
            driver = self.drivers.get(network.driver)
            missing = driver.missing(spec, self.host) if driver else (f"driver {network.driver!r} is not known on this node",)
            if driver is None or missing:
                if here:
                    raise AgentError(f"network {network.name}: {'; '.join(missing)}")
                continue
            described = driver.desired_state(spec, here, self.host)
            objects |= described.objects
            far |= described.fdb
            if described.firewall:
                isolation.append(described.firewall)
        return frozenset(objects), isolation, frozenset(far)

    def _tunnel(self) -> drivers.WireguardDevice | None:
        """The WireGuard device that the encrypted networks of this node need; None where it has none, or nobody to reach."""
        if not self.underlay or not any(n.encrypted for n in self.all.values()):
            return None
        if not (own := known_key(self.paths.keys, "tunnel")):
            return None
        version = ipaddress.ip_address(self.underlay).version
        return drivers.WireguardDevice(
            name=f"{self.prefix}wg",
            private_key=str(private_key(self.paths.keys, "tunnel")),
            address=wireguard.address_of(own),
            port=wireguard.PORT,
            mtu=self.host.mtu - wireguard.OVERHEAD[version],
            peers=frozenset(
                drivers.WireguardPeer(key=t.key, endpoint=t.underlay, port=wireguard.PORT, address=wireguard.address_of(t.key))
                for t in self.tunnels
            ),
        )

    def host_links(self) -> frozenset[str]:
        """Links that are not ours: those that others can be made on."""
        return frozenset(name for name in links() if not name.startswith(self.prefix) and name != "lo")

    def link(self, name: str) -> str:
        """The name of the main link of the network *name*."""
        spec = dict(self.all[name].options).get("com.docker.network.bridge.name", "") if name in self.all else ""
        return spec if spec.startswith(self.prefix) else f"{self.prefix}b{self.identity(name)[: 14 - len(self.prefix)]}"

    def driver_network(self, network: Network) -> drivers.Network:
        """*network* as its driver gets it, with each subnet's gateway."""
        options = dict(network.options)
        subnets = tuple(
            drivers.Subnet(s.cidr, s.gateway or ("" if network.on_lan else str(ipaddress.ip_network(s.cidr)[1])))
            for s in network.subnets
        )
        return drivers.Network(
            name=network.name,
            link=self.link(network.name),
            driver=network.driver,
            subnets=subnets,
            internal=network.internal,
            options=options,
            vni=network.vni,
            underlay=self.underlay,
            services=network.service_pools,
            own=tuple(a for h in network.hosts if h.name == self.node for a in (h.ipv4, h.ipv6) if a),
            balanced=bool(network.vips),
        )

    def published(self) -> list[drivers.PortMapping]:
        """Ports of containers, as this network namespace has them: without root an address of the host's is none in here."""
        ports = self._published()
        return [msgspec.structs.replace(p, host_ip="") for p in ports] if self._doors else ports

    def _published(self) -> list[drivers.PortMapping]:
        out: dict[tuple[str, int, str], drivers.PortMapping] = {}
        networks = self.all
        for record in sorted((r for r in self.attached.values() if r.ports), key=lambda r: (len(r.name), r.name)):
            # a container on a LAN is reached there, by its own address
            behind = [e for e in record.endpoints if not networks[e.network].on_lan]
            endpoint = next((e for e in behind if e.default), next(iter(behind), None))
            if endpoint and not networks[endpoint.network].internal:
                for p in self.own_ports(record):
                    # of two replicas the later one is on its way out
                    out.setdefault(
                        (p.host_ip, p.published, p.protocol),
                        drivers.PortMapping(
                            endpoint=record.id,
                            host_ip=p.host_ip,
                            port=p.published,
                            protocol=p.protocol,
                            ipv4=endpoint.ipv4,
                            ipv6=endpoint.ipv6,
                            target=p.target,
                        ),
                    )
        return list(out.values())

    def _balanced(self) -> list[drivers.LoadBalancer]:
        """Services' addresses, and ports that any node answers: local tasks first, so that they see their clients."""
        here = self._local()
        out: list[drivers.LoadBalancer] = []
        for service in self.virtuals:
            out += nftables.vip_backends(service)
            if service.ports:
                out += nftables.port_backends(
                    service, frozenset(a for b in service.backends for a in (b.ipv4, b.ipv6) if a in here)
                )
        return out

    def _local(self) -> set[str]:
        """Addresses of this node's own endpoints on networks where services are balanced."""
        shared = {n.name for n in self.all.values() if n.driver == "overlay"} | {v.network for v in self.virtuals}
        return {a for r in self.attached.values() for e in r.endpoints if e.network in shared for a in (e.ipv4, e.ipv6) if a}

    def _document(self, published: list[drivers.PortMapping]) -> DataplaneState:
        names: dict[str, dict[str, list[str]]] = {}
        views = {}
        for record in self.attached.values():
            view = self._endpoint_views.of(record, self.netns(record))
            if view.view:
                views[record.id] = view.view
            for network, name, addresses in view.names:
                names.setdefault(network, {}).setdefault(name, []).extend(addresses)
        for peer in self.peers:
            table = names.setdefault(peer.network, {})
            for name in peer.names:
                table.setdefault(name, []).extend(a for a in (peer.ipv4, peer.ipv6) if a)
        for service in self.virtuals:
            table = names.setdefault(service.network, {})
            for name in service.names:
                table[name] = [a for a in (service.ipv4, service.ipv6) if a]
        forwards = []
        for service in self.virtuals:
            targets = [b.ipv4 or b.ipv6 for b in service.backends]
            forwards += [
                Forward(protocol=p.protocol, host=host, port=p.published, targets=tuple(targets), target_port=p.target)
                for p in service.ports
                if p.protocol in ("tcp", "udp")
                for host in ("0.0.0.0", "::")
            ]
        for port in published:
            if port.protocol not in ("tcp", "udp"):
                continue
            target = port.ipv4 or port.ipv6
            for host in (port.host_ip,) if port.host_ip else ("0.0.0.0", "::"):
                forwards.append(
                    Forward(protocol=port.protocol, host=host, port=port.port, targets=(target,), target_port=port.target)
                )
        frozen = {net: {n: tuple(a) for n, a in table.items()} for net, table in names.items()}
        return DataplaneState(views=views, names=frozen, forwards=tuple(forwards))

    async def _sync_once(self) -> None:
        if not self.has_manifest:
            return
        held = {e.network for r in self.attached.values() for e in r.endpoints}
        self.leaving = {name: network for name, network in self.leaving.items() if name in held}
        bridge.trim(sum(len(r.endpoints) for r in self.attached.values()))
        nftables.trim_caches(len(self.virtuals))
        objects, isolation, far = self._describe()
        published, doors = self.published(), self._wanted_doors() if self._doors else set()
        loop = asyncio.get_running_loop()
        self._problems = await loop.run_in_executor(
            self._worker, self._apply, objects, far, isolation, published, self._balanced()
        )
        problems = await self.dataplane.update(self._document(published))
        for name, why in problems.items():
            if name.split(" ")[0] in ("tcp", "udp"):
                if "::" in name:
                    continue  # an IPv6 listener is a courtesy: a host without IPv6 has none
                raise ConflictError(f"port {name.split(' ', 1)[1]} ({name.split(' ')[0]}) cannot be published: {why}")
            if name in self.attached:
                raise AgentError(f"container {self.attached[name].name}: {why}")
        if self._doors:
            for (protocol, _, port), why in (await loop.run_in_executor(self._worker, self._doors.keep, doors)).items():
                raise ConflictError(f"port {port} ({protocol}) cannot be published: {why}")

    def _wanted_doors(self) -> set[ForwardedPort]:
        """Ports of the host that lead to containers and services. Raises ConflictError where two want one port in here."""
        wanted = [(p.protocol, p.host_ip or "0.0.0.0", p.port) for p in self._published()]
        wanted += [(p.protocol, "0.0.0.0", p.published) for v in self.virtuals for p in v.ports]
        seen: set[tuple[str, int]] = set()
        for protocol, host, port in wanted:
            if protocol == "sctp" or ":" in host:
                raise ConflictError(
                    f"port {port} ({protocol}) of {host} cannot be published without root: TCP and UDP on IPv4 can"
                )
            if (protocol, port) in seen:
                raise ConflictError(f"port {port} ({protocol}) is published at two addresses: without root, a port has one use")
            seen.add((protocol, port))
        return set(wanted)

    def _apply(
        self,
        objects: frozenset[drivers.KernelObject],
        far: frozenset[drivers.FdbEntry],
        isolation: list[drivers.FirewallPolicy],
        published: list[drivers.PortMapping],
        balanced: list[drivers.LoadBalancer],
    ) -> dict[str, str]:
        try:
            if self._kernel is None:
                self._kernel = Kernel(self.prefix)
                self._kernel.adopt(objects)
            failpoint("network.converge")
            self._forward(wanted=bool(isolation))
            problems = self._converge(self._kernel, objects, far)
            wanted = self._ruleset(isolation, published, balanced)
            if wanted != self._rules.made and (isolation or self._rules.made):
                failpoint("network.firewall")
                alive = {a for r in self.attached.values() for e in r.endpoints for a in (e.ipv4, e.ipv6)}
                alive |= {a for p in self.peers for a in (p.ipv4, p.ipv6)}
                self._rules.enforce(wanted, nftables.targets(published, balanced), alive)
            for note in self._rules.sync_foreign_forward_chains(forwarding=bool(isolation)):
                self.notes.append(note)
                log.warning("%s", note)
            return problems
        except NetworkError as error:
            raise AgentError(str(error)) from error

    def _forward(self, *, wanted: bool) -> None:
        """Have the host forward where a network needs it: a published port leads on to another node's containers too."""
        self.forwards = wanted
        if wanted and time.monotonic() > self._forwards_until:
            self._forwards_until = time.monotonic() + FORWARDS_S
            self.notes += allow_forwarding()

    def _converge(
        self, kernel: Kernel, objects: frozenset[drivers.KernelObject], far: frozenset[drivers.FdbEntry]
    ) -> dict[str, str]:
        """What somebody may have taken away is looked for only where something fails: `watch` does it soon anyway, and on a
        host with hundreds of links nobody is to wait for it."""
        try:
            problems = kernel.converge(objects, far)
            if not (problems and self._suspect):
                return problems
        except NetworkError:
            if not self._suspect:
                raise
        self._suspect = False
        kernel.detect_drift()
        return kernel.converge(objects, far)

    def _ruleset(
        self,
        isolation: list[drivers.FirewallPolicy],
        published: list[drivers.PortMapping],
        balanced: list[drivers.LoadBalancer],
    ) -> firewall.Ruleset:
        return firewall.render(self.paths.table, isolation, published, balanced, sorted(self._local()), self._cluster())

    def _cluster(self) -> drivers.Nodes:
        wide = self.underlay and any(n.driver == "overlay" for n in self.all.values())
        inside = {wireguard.address_of(t.key) for t in self.tunnels}
        return drivers.Nodes(
            peers=frozenset(p.underlay for p in self.peers if p.underlay) if wide else None,
            tunnel=self._tunnel(),
            addresses=frozenset(a for n in self.nodes for a in n.addresses) | inside,
            doors=frozenset(
                (address, p.protocol, p.port)
                for n in self.nodes
                for p in n.ports
                for address in (n.addresses if p.host_ip in ("", "0.0.0.0", "::") else (p.host_ip,))
            ),
            opened=self.settings.opened,
        )

    # --- for the doctor ----------------------------------------------------------------------------------------

    async def run_with_desired_state(
        self, look: Callable[[frozenset[drivers.KernelObject], frozenset[drivers.FdbEntry], firewall.Ruleset | None], T]
    ) -> T:
        """The result of *look*, which is given all that must exist, on the thread that else changes the kernel."""
        objects, isolation, far = self._describe()
        ruleset = self._ruleset(isolation, self.published(), self._balanced()) if isolation else None
        return await asyncio.get_running_loop().run_in_executor(self._worker, look, objects, far, ruleset)

    async def rebuild(self, items: Iterable[str]) -> None:
        """Make the kernel objects called *items* anew, and write entries, rules, names and ports once more."""
        allow_forwarding(self.link(n) for n in self.all)
        if self._kernel:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._kernel.invalidate, list(items))
        self._rules.invalidate()
        self.dataplane.invalidate()
        await self.sync()

    # --- what others do to it ----------------------------------------------------------------------------------

    def watch(self) -> None:
        """Watch the kernel and the data path: what somebody else removes or changes of ours is put right within a second."""
        links, rules = monitors.monitor(), monitors.ruleset_monitor()
        self._monitors = [links, rules]
        self._held = addresses_of_host(self.prefix)
        loop = asyncio.get_running_loop()
        loop.add_reader(links, self._links_changed, links)
        loop.add_reader(rules, self._rules_changed, rules)
        self._supervisor = asyncio.create_task(self.dataplane.supervise(lambda why: self.revived(why)), name="data path")

    def _links_changed(self, monitor: socket.socket) -> None:
        with contextlib.suppress(OSError):  # ENOBUFS: what was missed is looked for all the same
            while monitor.recv(1 << 18):
                pass
        self._suspect = True
        self._schedule_heal()

    def _rules_changed(self, monitor: socket.socket) -> None:
        if self._rules.read_events(monitor):
            self._schedule_heal()

    def _schedule_heal(self) -> None:
        if self._heal_timer is None and self.settings.heal:
            self._heal_timer = asyncio.get_running_loop().call_later(HEAL_AFTER_S, self._heal)

    def _heal(self) -> None:
        self._heal_timer = None
        self._healing = asyncio.create_task(self._heal_now())

    async def _heal_now(self) -> None:
        before, self._held = self._held, await asyncio.to_thread(addresses_of_host, self.prefix)
        if before != self._held:
            self.moved()
        await self._mend()

    async def _mend(self) -> None:
        if self._suspect and self._rules.made is not None and self._kernel is not None:
            # most changes of links are our own: then there is nothing to do
            self._suspect = False
            before = self.host.mtu
            self._update_mtu()
            lacking = await asyncio.get_running_loop().run_in_executor(self._worker, self._kernel.detect_drift)
            if not lacking and before == self.host.mtu:
                return
        with contextlib.suppress(AgentError):  # a task that needs it reports it
            await self.sync()

    async def close(self) -> None:
        """End the workers and monitors and close the connections."""
        if self._heal_timer:
            self._heal_timer.cancel()
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        for monitor in self._monitors:
            asyncio.get_running_loop().remove_reader(monitor)
            monitor.close()
        if self._runner:
            await asyncio.gather(self._runner, return_exceptions=True)
        self._worker.shutdown()
        self._rules.close()
        self.dataplane.close()


def _addresses(record: Record) -> set[tuple[str, str]]:
    """(network, address) of all its endpoints."""
    return {(e.network, address) for e in record.endpoints for address in (e.ipv4, e.ipv6) if address}


def addresses_of_host(prefix: str) -> set[str]:
    """All addresses of this host's links, but for those that begin with *prefix*, loopback and link-local ones."""
    with netlink.Socket() as sock:
        ours = {link.index for link in sock.links() if link.name.startswith(prefix)}
        held = {ipaddress.ip_address(packed) for index, packed in sock.addresses() if index not in ours}
    return {str(a) for a in held if not a.is_loopback and not a.is_link_local}


def mtu_of(address: str) -> int:
    """The MTU of the link that holds *address*; 0 where none does."""
    if address:
        with netlink.Socket() as sock:
            index = next((i for i, held in sock.addresses() if held == netlink.packed(address)), 0)
            if link := next((link for link in sock.links() if link.index == index), None):
                return link.mtu
    return 0


def _validate_subnet(name: str, subnet: Subnet) -> Subnet:
    """*subnet* of a new network, with its gateway. Raises BadRequestError."""
    try:
        net = ipaddress.ip_network(subnet.cidr, strict=False)
        gateway = ipaddress.ip_address(subnet.gateway) if subnet.gateway else net[1]
        within = ipaddress.ip_network(subnet.ip_range, strict=False) if subnet.ip_range else net
        reserved = [ipaddress.ip_address(r) for r in subnet.reserved]
    except (ValueError, IndexError) as error:
        raise BadRequestError(f"network {name}: {error}") from None
    outside = [str(a) for a in (gateway, within.network_address, *reserved) if a not in net]
    if outside or within.prefixlen < net.prefixlen:
        raise BadRequestError(f"network {name}: {', '.join(outside) or within} is not within {net}")
    return msgspec.structs.replace(subnet, cidr=str(net), gateway=str(gateway), ip_range=str(within) if subnet.ip_range else "")


def _overlap(one: str, other: str) -> bool:
    a, b = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return a.version == b.version and a.overlaps(b)


def _free_address(subnet: Subnet, used: set[str]) -> str:
    network = ipaddress.ip_network(subnet.cidr)
    gateway = subnet.gateway or str(network[1])
    # from the end: the control plane gives addresses from the beginning
    span = ipaddress.ip_network(subnet.ip_range) if subnet.ip_range else network
    for offset in range(1 if subnet.ip_range else 2, min(span.num_addresses, 65536)):
        candidate = str(span[-offset])
        if candidate not in used and candidate != gateway and candidate not in subnet.reserved:
            return candidate
    raise AgentError(f"subnet {subnet.cidr} has no free address left")
