"""A Stack becomes what must exist: networks with subnets, volumes, and one task a replica with its addresses. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence, Set

import msgspec

from agent.contract.network import VXLAN_PORT, Network
from agent.contract.swarm_placeholder import names_swarm
from agent.contract.task import Task
from agent.contract.volume import Volume
from orchestrator.addressing.allocate import Addresses, free_vni, held, held_by_hosts, service_pools, subnets, vips
from orchestrator.errors import PystackError, require_services
from orchestrator.placement.arrange import arrange
from orchestrator.placement.assign import is_eligible
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.planning.manifests import ingress_network, ingress_ports
from orchestrator.planning.port_ranges import with_ports
from orchestrator.planning.state import State
from orchestrator.planning.swarm_templates import with_templates
from orchestrator.stackfile.fence import Fence
from orchestrator.stackfile.model import DRIVERS, LAN_DRIVERS, Service, Stack
from orchestrator.stackfile.stable import SLOT, own_names

SINGLE_NODE = PlacementContext(nodes=(Node(name="local", id="local"),), ready=frozenset({"local"}), local="local")


class Existing(msgspec.Struct, frozen=True, kw_only=True):
    """What exists outside the stack: *networks* of other stacks, names of *volumes*, and *images*: the ID that the nodes have
    for each name. *coming* are networks that other stacks are about to make: their addresses are taken. Overlays that are made
    get the UDP port *vxlan_port*; those that are there keep theirs."""

    networks: tuple[Network, ...] = ()
    coming: tuple[Network, ...] = ()
    volumes: frozenset[str] = frozenset()
    images: Mapping[str, str] = {}
    vxlan_port: int = VXLAN_PORT


def expand(
    stack: Stack,
    current: State,
    *,
    existing: Existing = Existing(),
    scale: Mapping[str, int] = {},
    context: PlacementContext = SINGLE_NODE,
    only: Set[str] | None = None,
) -> State:
    """The state that *stack* asks for.

    *current* is the stack's state now, so that what exists keeps its addresses; *scale* the number of replicas of services
    where it differs from the file; *context* the nodes; *only* the services that the plan is for, None for all.
    Raises NoSuchServiceError, UnschedulableError where a task fits nowhere, PystackError where pools are exhausted, or with
    every external network and volume that is missing."""
    require_services(scale, stack.name, (s.name for s in stack.services))
    if problems := [s.problem for s in stack.services if s.problem and (only is None or s.name in only)]:
        raise PystackError("\n".join(problems))
    _check_names(stack, scale)
    _check_externals(stack, {n.name for n in existing.networks}, existing.volumes, only)
    _check_networks(stack, context, only)
    others, images = existing.networks, existing.images
    networks = _networks(
        stack,
        current,
        (*others, *existing.coming),
        _sizes(stack, scale, context),
        overlay=len(context.nodes) > 1,
        port=existing.vxlan_port,
    )
    by_name = {n.name: n for n in (*others, *networks)}
    known = {t.name: t for t in current.tasks}
    arranged = arrange(stack, _drafts(stack, current, scale, images, context), current.tasks, context)
    drafts = with_ports(stack, arranged.tasks, known, context)
    stack, drafts, own = with_templates(stack, drafts, context)
    volumes = _volumes(stack, current, drafts, context, own)
    hosts = [(n.name, one.underlay) for n in by_name.values() if n.on_lan for one in context.nodes]
    addresses = Addresses(
        by_name,
        [
            *held(current.tasks),
            *held(context.others),
            *held(drafts),
            *held_by_hosts(by_name.values()),
            *hosts,
        ],
    )
    tasks = tuple(_address(task, known.get(task.name), addresses) for task in drafts)
    _check_duplicate_addresses(tasks)
    _check_ports(tasks, context)
    beside = [t for t in current.tasks if not t.planned]
    networks = tuple(_shared(stack, n, tasks, beside, context, addresses) if n.driver == "overlay" else n for n in networks)
    return State(
        networks=networks,
        volumes=volumes,
        tasks=tasks,
        contents=stack.contents,
        evicted=arranged.evicted,
        pending=arranged.pending,
    )


def _drafts(
    stack: Stack, current: State, scale: Mapping[str, int], images: Mapping[str, str], context: PlacementContext
) -> list[Task]:
    """The tasks without addresses, and without nodes but for those of mode global."""
    known = {t.name: t for t in current.tasks}
    drafts: list[Task] = []
    for service in stack.services:
        if service.schedule:
            continue  # its tasks come with its runs
        if service.mode in ("global", "global-job"):
            drafts += [
                _task(stack, service, index, known, images, node)
                for index, node in enumerate(is_eligible(stack, service, _with_silent_homes(service, current, context)), 1)
            ]
        else:
            drafts += [
                _task(stack, service, index, known, images, _home(stack, service, index, context))
                for index in range(1, scale.get(service.name, replicas(service, current, context)) + 1)
            ]
    return drafts


def replicas(service: Service, current: State, context: PlacementContext = SINGLE_NODE) -> int:
    """How many tasks of *service* there are to be: as the file says, or, where they follow their use, as many as there are,
    with those that had to make room."""
    if service.scale is None:
        return service.replicas
    there = sum(t.service == service.name and t.planned and t.share < 0 for t in current.tasks)
    there += sum(one.service == service.name for one in context.preempted.values())
    return max(service.scale.least, min(service.scale.most, there or service.replicas))


def _with_silent_homes(service: Service, current: State, context: PlacementContext) -> PlacementContext:
    """*context* with the nodes taken for ready that have a task of *service*, of mode global: one that does not answer keeps
    it, and gets what is wanted when it is back."""
    known = {n.name for n in context.nodes}
    homes = {t.node for t in current.tasks if t.service == service.name and t.planned and t.node in known}
    return msgspec.structs.replace(context, ready=context.ready | homes)


def address_oneoff(
    task: Task, current: State, networks: Sequence[Network], context: PlacementContext
) -> tuple[Task, list[Network]]:
    """*task* with free addresses, and those of *networks* that its node now carries too, changed accordingly."""
    by_name = {n.name: n for n in networks}
    addresses = Addresses(by_name, [*held(current.tasks), *held(context.others), *held_by_hosts(networks)])
    placed = _address(task, None, addresses)
    return placed, _carried([placed], by_name, addresses, context)


def networks_after_move(
    tasks: Sequence[Task], current: State, networks: Sequence[Network], context: PlacementContext
) -> list[Network]:
    """Those of *networks* that nodes must carry now because *tasks*, which keep their addresses, went there."""
    by_name = {n.name: n for n in networks}
    addresses = Addresses(by_name, [*held(current.tasks), *held(context.others), *held_by_hosts(networks)])
    return _carried(tasks, by_name, addresses, context)


def _carried(
    tasks: Sequence[Task], networks: Mapping[str, Network], addresses: Addresses, context: PlacementContext
) -> list[Network]:
    """The overlays of *tasks* that their nodes did not carry, with an address for each such node."""
    changed: dict[str, Network] = {}
    for task in tasks:
        for attachment in task.container.attachments:
            network = changed.get(attachment.network, networks[attachment.network])
            if network.driver == "overlay" and len(context.nodes) > 1 and all(h.name != task.node for h in network.hosts):
                hosts = (*network.hosts, addresses.host(network, task.node))
                changed[network.name] = msgspec.structs.replace(network, hosts=hosts)
    return list(changed.values())


def _check_names(stack: Stack, scale: Mapping[str, int]) -> None:
    """Raises PystackError where replicas would have one name."""
    named = [s for s in stack.services if scale.get(s.name, 1) > 1 and s.container_name and SLOT not in s.container_name]
    if named:
        raise PystackError(
            "\n".join(f"{s.where}: {s.name}: its replicas cannot share the name of container_name: remove it" for s in named)
        )


def _check_externals(stack: Stack, networks: Set[str], volumes: Set[str], only: Set[str] | None) -> None:
    chosen = [s.container for s in stack.services if only is None or s.name in only]
    used = {a.network for c in chosen for a in c.attachments}
    used |= {m.source for c in chosen for m in c.mounts if m.kind == "volume"}
    missing = [
        f"{spec.where}: {kind}s.{spec.key}: external {kind} {spec.name} does not exist: `pystack {kind} create {spec.name}`"
        for kind, wishes, there in (("network", stack.networks, networks), ("volume", stack.volumes, volumes))
        for spec in wishes
        if spec.external and spec.name not in there and (only is None or spec.name in used) and not names_swarm(spec.name)
    ]
    if missing:
        raise PystackError("\n".join(missing))


def _check_networks(stack: Stack, context: PlacementContext, only: Set[str] | None) -> None:
    """Drivers that no node has, and subnets that hide the way to a node, of the networks that services *only* are on."""
    wrong = []
    used = {a.network for s in stack.services if only is None or s.name in only for a in s.container.attachments}
    there = sorted({d for n in context.nodes for d in n.info.drivers} | set(DRIVERS))
    for spec in (n for n in stack.networks if only is None or n.name in used):
        if spec.driver and spec.driver not in there:
            has = ", ".join(there)
            wrong.append(f"{spec.where}: networks.{spec.key}.driver: {spec.driver!r} is on no node; there is {has}")
        if spec.driver in LAN_DRIVERS:
            continue
        for pool in (ipaddress.ip_network(s.cidr) for s in spec.subnets):
            hidden = [n for n in context.nodes if n.underlay and ipaddress.ip_address(n.underlay) in pool]
            wrong += [
                f"{spec.where}: networks.{spec.key}: subnet {pool} overlaps the underlay: node {n.name} is at {n.underlay}"
                for n in hidden[:1]
            ]
    if wrong:
        raise PystackError("\n".join(wrong))


def _sizes(stack: Stack, scale: Mapping[str, int], context: PlacementContext) -> dict[str, tuple[int, int]]:
    """How many endpoints and services each network will have: its nodes and tasks, by name."""
    out: dict[str, tuple[int, int]] = {}
    for service in stack.services:
        everywhere = service.mode in ("global", "global-job")
        tasks = len(context.nodes) if everywhere else scale.get(service.name, service.replicas)
        for attachment in service.container.attachments:
            endpoints, services = out.get(attachment.network, (len(context.nodes), 0))
            out[attachment.network] = endpoints + tasks, services + 1
    return out


def _networks(
    stack: Stack,
    current: State,
    others: Sequence[Network],
    sizes: Mapping[str, tuple[int, int]],
    *,
    overlay: bool,
    port: int,
) -> tuple[Network, ...]:
    out: list[Network] = []
    known = {n.name: n for n in current.networks}
    for spec in stack.networks:
        if spec.external:
            continue
        if spec.driver in ("host", "none"):
            continue
        old = known.get(spec.name)
        taken = [s.cidr for n in (*others, *out, *(k for k in known.values() if k.name != spec.name)) for s in n.subnets]
        asked = spec.subnets
        families = {":" in s.cidr for s in old.subnets} if old else set()
        same = old is not None and all(s in old.subnets for s in asked) and (True in families) >= spec.ipv6
        pools = (
            old.subnets
            if old is not None and same
            else subnets(
                spec.subnets,
                ipv6=spec.ipv6,
                taken=taken,
                name=spec.name,
                endpoints=sizes.get(spec.name, (0, 0))[0],
            )
        )
        driver = spec.driver or (old.driver if old and old.driver == "overlay" else "overlay" if overlay else "bridge")
        vni, services = 0, old.service_pools if old else ()
        if driver == "overlay":
            if not services:
                used = [c for n in (*others, *out, *known.values()) for c in n.service_pools]
                services = service_pools(
                    used, ipv6=any(":" in s.cidr for s in pools), name=spec.name, services=sizes.get(spec.name, (0, 0))[1]
                )
            vni = old.vni if old and old.vni else free_vni(n.vni for n in (*others, *out, *known.values()))
        out.append(
            Network(
                name=spec.name,
                driver=driver,
                subnets=pools,
                vni=vni,
                vxlan_port=(old.vxlan_port if old and old.vni else port) if vni else VXLAN_PORT,
                internal=spec.internal,
                options=spec.options,
                labels=spec.labels,
                stack=stack.name,
                key=spec.key,
                service_pools=services if vni else (),
                hosts=old.hosts if old else (),
                vips=old.vips if old else (),
            )
        )
    return tuple(out)


def _volumes(
    stack: Stack, current: State, tasks: Sequence[Task], context: PlacementContext, own: Mapping[str, str]
) -> tuple[Volume, ...]:
    """A volume of one node lives where its first user was placed, and its users follow it; one that its home exports has
    its home there. A service of mode global has such a volume on each of its nodes. Those of *own* are where they say."""
    exported = {v.name for v in stack.volumes if v.shared}
    homes = {v.name: v.node for v in current.volumes if v.node}
    everywhere = {s.name for s in stack.services if s.mode in ("global", "global-job")}
    for task in tasks:
        for mount in task.container.mounts:
            if mount.kind == "volume" and mount.source and (task.service not in everywhere or mount.source in exported):
                homes.setdefault(mount.source, context.homes.get(mount.source, task.node))
    homes |= own
    return tuple(
        Volume(
            name=v.name,
            driver=v.driver,
            options=v.options,
            labels=v.labels,
            external=v.external,
            stack="" if v.external else stack.name,
            key=v.key,
            node=homes.get(v.name, ""),
            follow=v.follow,
        )
        for v in stack.volumes
    )


def _shared(
    stack: Stack,
    network: Network,
    tasks: Sequence[Task],
    beside: Sequence[Task],
    context: PlacementContext,
    addresses: Addresses,
) -> Network:
    """An overlay with the nodes that carry it, for *tasks* and those *beside* them, and the services that have one address."""
    users = [t for t in tasks if any(a.network == network.name for a in t.container.attachments)]
    count: dict[str, int] = {}
    for task in users:
        count[task.service] = count.get(task.service, 0) + 1
    modes = {s.name: s.endpoint_mode for s in stack.services}
    old = {h.name for h in network.vips}
    wanted = [s for s in count if modes[s] == "vip" or (modes[s] != "dnsrr" and (count[s] > 1 or s in old))]
    nodes = {t.node for t in (*users, *beside) if any(a.network == network.name for a in t.container.attachments)}
    entered = {s.name for s in stack.services if s.ingress or s.metrics}  # any node's proxy or Prometheus has a way to them
    if any(
        ingress_network(t, {network.name: network}) == network.name and (ingress_ports(t) or t.service in entered)
        for t in users
    ):
        nodes = {n.name for n in context.nodes}
    hosts = tuple(addresses.host(network, node) for node in sorted(nodes)) if len(context.nodes) > 1 else ()
    kept = [h for h in network.vips if h.name in wanted]
    return msgspec.structs.replace(network, hosts=hosts, vips=vips(wanted, kept, network.service_pools, network.name))


def _check_ports(tasks: Sequence[Task], context: PlacementContext) -> None:
    """A port that any node answers belongs to one service of the cluster."""
    if len(context.nodes) < 2:
        return
    taken: dict[tuple[int, str], Task] = {(p.published, p.protocol): t for t in context.others for p in ingress_ports(t)}
    for task in tasks:
        for port in ingress_ports(task):
            other = taken.setdefault((port.published, port.protocol), task)
            if (other.stack, other.service) != (task.stack, task.service):
                raise PystackError(
                    f"{task.where}: port {port.published}/{port.protocol} is already published by service {other.service} "
                    f"of stack {other.stack}: choose another, or mode: host"
                )


def _home(stack: Stack, service: Service, index: int, context: PlacementContext) -> str:
    """The node on which replica *index* of a stable service has a volume already, "" if it has none or does not say."""
    if not service.stable:
        return ""
    own = {v.name.replace(SLOT, str(index)) for v in stack.volumes if SLOT in v.name}
    used = {m.source.replace(SLOT, str(index)) for m in service.container.mounts if m.kind == "volume"}
    return next((context.homes[v] for v in sorted(own & used) if v in context.homes), "")


def _task(
    stack: Stack, service: Service, index: int, known: Mapping[str, Task], images: Mapping[str, str], node: str = ""
) -> Task:
    everywhere = service.mode in ("global", "global-job")
    name = f"{stack.name}-{service.name}-{node if everywhere else index}"
    container = service.container
    if identity := images.get(container.image):
        container = msgspec.structs.replace(container, image_id=identity)
    if any(m.kind == "image" for m in container.mounts):
        mounts = (
            msgspec.structs.replace(m, image_id=images.get(m.source, "")) if m.kind == "image" else m for m in container.mounts
        )
        container = msgspec.structs.replace(container, mounts=tuple(mounts))
    if not container.ipc_mode and any(s.container.ipc_mode == f"service:{service.name}" for s in stack.services):
        container = msgspec.structs.replace(container, ipc_mode="shareable")
    if own := own_names(service, index):
        named = tuple(msgspec.structs.replace(a, aliases=(*a.aliases, *own)) for a in container.attachments)
        container = msgspec.structs.replace(container, attachments=named)
    old = known.get(name)
    return Task(
        name=name,
        stack=stack.name,
        service=service.name,
        container=container,
        index=index,
        node=node,
        container_name=service.container_name.replace(SLOT, str(index)),
        where=service.where,
        generation=old.generation if old else 0,
        definition=service.definition,
        boot_wait_s=_fence(stack, service).boot_wait_s,
        balanced=service.ingress_mode == "balanced",
    )


def _fence(stack: Stack, service: Service) -> Fence:
    """What the service asks for. Else one task alone with a volume that it could have on any node must not run twice: both
    would write to it."""
    shared = {v.name for v in stack.volumes if v.shared}
    alone = service.replicas == 1 and service.mode == "replicated"
    own = any(m.kind == "volume" and m.source in shared and not m.read_only for m in service.container.mounts)
    return service.fence or (Fence(boot_wait_s=None) if alone and own else Fence())


def _address(task: Task, old: Task | None, addresses: Addresses) -> Task:
    kept = {a.network: a for a in old.container.attachments} if old else {}
    filled = tuple(addresses.fill(a, kept.get(a.network)) for a in task.container.attachments)
    return msgspec.structs.replace(task, container=msgspec.structs.replace(task.container, attachments=filled))


def _check_duplicate_addresses(tasks: Sequence[Task]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for task in tasks:
        for key in held([task]):
            if key[1] and seen.setdefault(key, task.name) != task.name:
                raise PystackError(f"{task.where}: {task.name} and {seen[key]} both ask for {key[1]} on {key[0]}")
