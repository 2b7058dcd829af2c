"""The all-in-one server: control plane and agent in one process, with the embedded store or with etcd.

With etcd there are several servers, each on its own host, for one cluster: one leads, and the others wait to take over. Their
agents keep working, whichever server leads and whether etcd answers or not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from agent.activation import unlink
from agent.contract.half_open import Runner
from agent.contract.sealing import make_key
from agent.daemon import BACKLOG, Agent, bind, prepared, run, stop_event
from agent.errors import AgentError
from agent.paths import Paths
from orchestrator.errors import PystackError
from orchestrator.gitops import api as gitops_api
from orchestrator.gitops.gitops import Gitops
from orchestrator.ingress import api as ingress_api
from orchestrator.ingress.controller import Ingress
from orchestrator.managed import api as managed_api
from orchestrator.managed.cluster import ManagedMembers
from orchestrator.managed.settings import MemberFolder
from orchestrator.managed.supervisor import MemberSupervisor
from orchestrator.metrics import api as metrics_api
from orchestrator.metrics.controller import Monitoring
from orchestrator.notify import api as notify_api
from orchestrator.notify.notifier import Notifier
from orchestrator.planning.quotas import Quota
from orchestrator.server import store_keys
from orchestrator.server.access.oidc import Provider
from orchestrator.server.api import oidc
from orchestrator.server.api.app import OWN_ENGINE, make_app
from orchestrator.server.api.standby import StandbyState, make_standby_app
from orchestrator.server.api.stream import TRACES
from orchestrator.server.node_authority import UplinkServer, known_servers, sealed_authority
from orchestrator.server.plane import ControlPlane
from orchestrator.store.interface import Store, StoreError
from orchestrator.store.sqlite import SqliteStore
from orchestrator.swarm import api as swarm
from orchestrator.tracing import export
from orchestrator.tracing.export import Exporter
from orchestrator.transport.node_listener import NodeListener
from orchestrator.ui import api as ui_api
from orchestrator.ui.board import Board

if TYPE_CHECKING:
    from orchestrator.server.access.syslog import Shipper
    from orchestrator.store.etcd.address import Address
    from orchestrator.store.etcd.store import EtcdStore

_RESTART = threading.Event()
RETRY_S = 1.0
"""How long to wait after the store did not answer."""
FOLLOW_S = 3.0
"""How often a server that does not lead looks which others there are."""
WAY_BACK = (
    "where more than half of the servers are gone for good: `pystack store recover --force-new` on the host of one that is left"
)
log = logging.getLogger(__name__)


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration from the environment. *store* is an etcd:// address, "" for the embedded store; *ca*, *cert* and *key*
    are files for TLS to etcd. *advertise* is how other servers reach this host over SSH (`root@10.0.0.1`). *listen* is a
    tcp:// address at which the server also answers, "" for none; *web* an https:// one for tokens and browsers; *nodes* a tcp://
    one that nodes dial."""

    store: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    advertise: str = ""
    listen: str = ""
    web: str = ""
    nodes: str = ""
    member: MemberSupervisor | None = None
    """This host's, of an etcd that pystack manages; *store* then follows from it."""

    @classmethod
    def read(cls) -> ServerConfig:
        """Read the PYSTACK_* variables."""
        get = os.environ.get
        return cls(
            store=get("PYSTACK_STORE", ""),
            ca=get("PYSTACK_STORE_CA", ""),
            cert=get("PYSTACK_STORE_CERT", ""),
            key=get("PYSTACK_STORE_KEY", ""),
            advertise=get("PYSTACK_ADVERTISE", ""),
            listen=get("PYSTACK_LISTEN", ""),
            web=get("PYSTACK_WEB", ""),
            nodes=get("PYSTACK_LISTEN_NODES", ""),
        )


async def serve() -> None:
    """Run until SIGTERM, SIGINT or a request to shut down. Containers run on afterwards."""
    paths, config = prepared(), ServerConfig.read()
    if not config.store:
        config = msgspec.structs.replace(config, member=_managed(paths))
    embedded = None if config.store or config.member else await SqliteStore.open(paths.root / "store.db")
    try:
        agent = Agent(paths)
    except AgentError as error:
        if embedded:
            await embedded.close()
        raise PystackError(str(error)) from error
    stop, listeners, dialled = asyncio.Event(), [], None
    try:
        await agent.start()
        if config.listen or config.web:
            from orchestrator.tls import TlsListener

            listeners += [TlsListener(config.listen, paths.control_socket)] if config.listen else []
            listeners += [TlsListener(config.web, paths.web_socket, web=True)] if config.web else []
        dialled = NodeListener(config.nodes, _name(), paths.run) if config.nodes else None
        stop = stop_event()
        if embedded:
            await _lead(embedded, agent, config, stop, stop, dialled)
        else:
            if config.member:
                config.member.start()
            await _run_ha(agent, config, stop, dialled)
    finally:
        if config.member:
            await config.member.close()
        if dialled:
            await dialled.close()
        for listener in listeners:
            listener.close()
        unlink(paths.control_socket)
        unlink(paths.web_socket)
        await agent.stop()


def _managed(paths: Paths) -> MemberSupervisor | None:
    """The member of etcd on this host, if pystack manages it. Raises PystackError."""
    folder = MemberFolder(paths.root)
    settings = folder.settings()
    return MemberSupervisor(folder, settings) if settings else None


def _address(config: ServerConfig) -> tuple[Address, ServerConfig]:
    """Where the store is now: the members may have changed since the last time."""
    from orchestrator.store.etcd.address import Address

    if config.member:
        files, known = config.member.folder, config.member.settings
        config = msgspec.structs.replace(
            config, store=known.store, ca=str(files.ca), cert=str(files.cert), key=str(files.key), advertise=known.advertise
        )
    return Address.parse(config.store, ca=config.ca, cert=config.cert, key=config.key), config


async def _run_ha(agent: Agent, given: ServerConfig, stop: asyncio.Event, dialled: NodeListener | None) -> None:
    """High availability: wait to become the leader, lead, and wait again when the leadership is lost."""
    paths, config = agent.paths, given
    state = StandbyState()
    while not stop.is_set():
        waiting = state.waiting = await _listen(
            make_standby_app(state, paths.control_socket), paths.control_socket, paths.web_socket
        )
        store = None
        try:
            while store is None and not stop.is_set():
                before, (address, config) = state.last_plane, _address(given)
                store = await _campaign(address, paths, config, state, stop, dialled)
                if store is None and await _recalled(agent, config, state, dialled) is not before:
                    await waiting.cleanup()
                    waiting = state.waiting = await _listen(
                        make_standby_app(state, paths.control_socket), paths.control_socket, paths.web_socket
                    )
            if store and not stop.is_set():
                state.begins = True  # it answers as before until it can do more
                await _lead(store, agent, config, stop, store.lost, dialled, state)
                if store.lost.is_set():
                    log.warning("this server does not lead any more")
            elif store:
                await store.close()
        finally:
            state.begins = False
            await waiting.cleanup()


async def _campaign(
    address: Address,
    paths: Paths,
    config: ServerConfig,
    state: StandbyState,
    stop: asyncio.Event,
    dialled: NodeListener | None,
) -> EtcdStore | None:
    """The store, once this server leads; None if the store does not answer. Keeps *state* up to date."""
    from orchestrator.server.leader_watch import LeaderWatch
    from orchestrator.store.etcd.store import EtcdStore

    store = watch = copying = None
    try:
        store = await EtcdStore.open(address)
        watch, copying = LeaderWatch(store, paths.run), asyncio.create_task(state.copy.follow(store), name="copy the store")
        known, own = await store.get(f"servers/{_name()}"), make_key(paths.keys, "seal").encode()
        if known and known.value == own:  # this very host's: its last server has ended, or this one could not run
            await store.resign_as(_name())
        await store.put_unfenced(f"servers/{_name()}", own)
        state.living_leader = store.living_leader
        state.reason, state.store_unreachable = "another server leads: ask that one (PYSTACK_HOST may name several)", False
        following = asyncio.create_task(_follow_authority(store, paths, config, dialled)) if dialled else None
        try:
            await _wait_or_stop(stop, store.lead(_name(), silence=watch.silence_s))
        finally:
            if following:
                following.cancel()
        state.last_word = watch.last_word
        return store
    except StoreError as error:
        state.reason = f"the store does not answer, so nothing can be read or changed; containers keep running: {error}"
        if not state.store_unreachable:
            log.warning("%s", state.reason)
            state.unreachable_since = time.monotonic()
        state.store_unreachable = True
        if store:
            await store.close()
        await _wait_or_stop(stop, asyncio.sleep(RETRY_S))
        return None
    finally:
        if watch:
            await watch.close()
        if copying:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)


async def _recalled(
    agent: Agent, config: ServerConfig, state: StandbyState, dialled: NodeListener | None
) -> ControlPlane | None:
    """What this server last knew, while the store does not answer: by its copy where that is newer than what it led with."""
    if state.store_unreachable and config.member:
        state.reason += f"; {WAY_BACK}"
    if state.store_unreachable and state.copy.as_of is not None and state.copy.as_of > state.since:
        plane, as_of = _plane(state.copy, agent, config, dialled), state.copy.as_of
        try:
            await plane.recall()
        except StoreError as error:
            log.warning("nothing can be answered from memory: %s", error)
        else:
            state.last_plane, state.extensions, state.since = plane, (), as_of
    return state.last_plane


def _plane(store: Store, agent: Agent, config: ServerConfig, dialled: NodeListener | None) -> ControlPlane:
    paths = agent.paths
    made = ControlPlane(
        store,
        _name(),
        paths.docker_socket,
        paths.run,
        paths.keys,
        advertise=config.advertise,
        reschedule_after_s=agent.engine.settings.reschedule_after_s,
    )
    if dialled:
        made.listen_for_nodes(dialled)
    return made


async def _follow_authority(store: EtcdStore, paths: Paths, config: ServerConfig, dialled: NodeListener) -> None:
    """Let nodes link to this server before it leads: the leader has sealed the authority to it, or will."""
    from orchestrator.transport.ssh import SshTarget

    own = UplinkServer(address=dialled.address(SshTarget.parse(config.advertise).host if config.advertise else ""))
    while True:
        try:
            known = await store.get(store_keys.of_uplink(_name()))
            if known is None or known.value != msgspec.json.encode(own):
                await store.put_unfenced(store_keys.of_uplink(_name()), msgspec.json.encode(own))
            if root := await sealed_authority(store, paths.keys, _name()):
                dialled.servers = await known_servers(store)
                await dialled.serve(root)
        except (StoreError, OSError) as error:
            log.warning("nodes cannot dial this server yet: %s", error)
        await asyncio.sleep(FOLLOW_S)


async def _lead(
    store: Store,
    agent: Agent,
    config: ServerConfig,
    stop: asyncio.Event,
    over: asyncio.Event,
    dialled: NodeListener | None,
    state: StandbyState | None = None,
) -> None:
    """Be the control plane until *stop* or *over*; what waits in *state* answers until it is. Leaves there what a stand-by can
    answer from. *dialled* is what nodes dial."""
    paths = agent.paths
    plane = _plane(store, agent, config, dialled)
    plane.cluster.last_word = state.last_word if state else {}
    plane.autoscaler.figures.prometheus = agent.engine.settings.prometheus
    beside = _Companions(plane, agent, config.member)
    plane.inputs.quotas.quotas = _quotas(agent)
    plane.inputs.vxlan_port = agent.engine.settings.data_path_port
    try:
        await plane.start()
        await beside.start()
        application = make_app(plane, stop, beside.extensions, paths.control_socket)
        if beside.traces:
            application[TRACES] = beside.traces
        agent.mount_into(application, OWN_ENGINE)  # requests for this node need no proxy
        runners = [
            await _listen(application, paths.control_socket, paths.web_socket),
            await _listen(swarm.make_app(plane), paths.cluster_socket),
        ]
        agent.open_to_docker_group(paths.cluster_socket)
        if state and state.waiting:
            await state.waiting.cleanup()
        await _wait_or_stop(stop, over.wait())
        if state and over.is_set():
            plane.cluster.resign()
        for runner in runners:
            await runner.cleanup()
    except StoreError as error:
        if state is None:  # nobody else can lead on this store
            raise
        log.warning("%s", error)
    finally:
        if state and plane.loaded:
            state.last_plane, state.extensions, state.since = plane, beside.extensions, time.monotonic()
        if plane.must_restart:
            _RESTART.set()
        unlink(paths.cluster_socket)
        await beside.close()
        await plane.close()
        beside.close_last()


class _Companions:
    """What a server that leads has beside its control plane, and the routes of it."""

    def __init__(self, plane: ControlPlane, agent: Agent, member: MemberSupervisor | None) -> None:
        paths, settings = agent.paths, agent.engine.settings
        self._gitops = Gitops(plane, paths.root / "gitops", paths.run / "gitops")
        self._ingress = Ingress(plane)
        self._monitoring = Monitoring(plane, self._ingress, paths.web_socket)
        self._board = Board(plane)
        self._notifier = Notifier(plane, self._certificate_ends, settings.notify)
        self._shipper = _shipper(settings.audit_log.syslog)
        plane.audit.ship = self._shipper
        self.traces = _traces(settings.traces)
        self._members = ManagedMembers(member, plane) if member else None
        self.extensions = [
            gitops_api.extension(self._gitops),
            ingress_api.extension(self._ingress),
            metrics_api.extension(self._ingress, self._monitoring, self._gitops),
            notify_api.extension(self._notifier),
            oidc.extension(Provider(settings.oidc) if settings.oidc.issuer else None),
            managed_api.extension(self._members),
            ui_api.extension(self._board, paths.run / "pasted"),
        ]

    def _certificate_ends(self) -> dict[str, float]:
        return {host: c.not_after for host, c in self._ingress.certificates.known.items() if c.secret}

    async def start(self) -> None:
        """Begin, when the plane has. Raises StoreError."""
        await self._ingress.start()
        await self._monitoring.start()
        await self._gitops.start()
        self._board.start()
        await self._notifier.start()
        if self._members:
            self._members.start()

    async def close(self) -> None:
        """Stop, before the plane does."""
        if self._members:
            await self._members.close()
        self._board.close()
        await self._notifier.close()
        await self._monitoring.close()
        await self._ingress.close()
        await self._gitops.close()

    def close_last(self) -> None:
        """Stop what takes the last lines of the log of changes."""
        if self._shipper:
            self._shipper.close()
        if self.traces:
            self.traces.close()


def _shipper(syslog: str) -> Shipper | None:
    if not syslog:
        return None
    from orchestrator.server.access.syslog import Shipper

    return Shipper(syslog)


def _traces(collector: str) -> Exporter | None:
    """Who sends traces to *collector*, or to the one of the environment; None where neither names one."""
    if not collector and not export.wanted():
        return None
    if not export.installed():
        log.warning("%s", export.MISSING)
        return None
    return Exporter("pystack-server", collector)


def _quotas(agent: Agent) -> tuple[Quota, ...]:
    return tuple(
        Quota(
            pattern=pattern,
            cpus=q.cpus,
            memory=q.memory_bytes,
            tasks=q.tasks,
            volumes=q.volumes,
            volume_size=q.volume_bytes,
            hosts=q.hosts,
        )
        for pattern, q in agent.engine.settings.quotas.items()
    )


async def _listen(app: web.Application, *sockets: Path) -> web.AppRunner:
    runner = Runner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    for path in sockets:
        await web.SockSite(runner, bind(path), backlog=BACKLOG).start()
    return runner


async def _wait_or_stop(stop: asyncio.Event, work: Awaitable[object]) -> None:
    """Wait for *work* or for *stop*, whichever is first; cancel the other. Raises what *work* raises."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _name() -> str:
    return platform.node().split(".")[0] or "local"


def main() -> None:
    """Run the server; again, from its first line on, where its store was filled by a backup."""
    run(serve, "server", PystackError)
    if _RESTART.is_set():
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
