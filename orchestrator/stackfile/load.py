"""The way in: files and environment → Stack.

read → interpolate → merge → services, networks, volumes → profiles → cross-checks. All problems are collected and raised
together, each with its file, line and column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.container import Attachment, Mount
from agent.contract.volume import VOLUME_DRIVERS
from orchestrator.stackfile import bandwidth, block_io, consistency, ingress, lock, naming, policy, service, sources, validate
from orchestrator.stackfile.backup_key import check_backups
from orchestrator.stackfile.graph import check_dependencies
from orchestrator.stackfile.host_paths import absolute_path
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.model import Service, Stack, StackNetwork, StackVolume
from orchestrator.stackfile.models import models_of
from orchestrator.stackfile.networks import OUTSIDE
from orchestrator.stackfile.pre_start import Provided, expand_pre_start, split_provided
from orchestrator.stackfile.problem import Mark, Problem, StackFileError
from orchestrator.stackfile.remote import Fetch
from orchestrator.stackfile.resources import contents_of, networks_of, volumes_of
from orchestrator.stackfile.source_context import SourceContext
from orchestrator.stackfile.stable import with_own_volumes
from orchestrator.stackfile.variables import variables_of


class Loaded(msgspec.Struct, frozen=True):
    """*document* is the merged, interpolated file; *warnings* are keys that have no effect here, *notes* what else its author
    should know; *providers* are the services that are not containers; *services* are those of the file as they stand there,
    *environment* has the variables that it was read with."""

    stack: Stack
    document: dict[str, Any]
    warnings: tuple[Problem, ...]
    directory: Path
    services: tuple[Service, ...]
    environment: Mapping[str, str]
    providers: tuple[Provided, ...] = ()
    notes: tuple[Problem, ...] = ()
    differences: tuple[Problem, ...] = ()
    """Keys that are honoured, but otherwise than Docker Compose has it."""
    tree: MarkedDocument | None = None
    """*document* with the places of its values."""
    opened: tuple[sources.File, ...] = ()
    """The files of the stack as they stand, without those that they include or extend."""
    env_files: tuple[str, ...] = ()
    """The files that its variables were read from."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """The services of the file that no profile asks for."""
        there = {s.name for s in self.services}
        return tuple(name for name in self.document.get("services") or {} if name not in there)

    def mark(self, path: Path_) -> Mark:
        """The place of *path*, or of what is nearest above it."""
        return self.tree.mark(path) if self.tree else Mark("", 0, 0)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Which files make up the stack, and how they are read; "" and () stand for the defaults of Compose."""

    files: tuple[str, ...] = ()
    project_name: str = ""
    project_directory: str = ""
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    interpolate: bool = True
    consistency: bool = True
    unused: bool = False
    """Networks that no service is on are made too."""
    named: tuple[str, ...] = ()
    """Services that are asked for by name: no profile leaves them out, nor others with a profile of theirs."""
    names: tuple[str, ...] = naming.NAMES
    """What a file that is not given may be called."""
    fetch: Fetch | None = None
    """What brings included and extended files that lie elsewhere; without it they are a problem."""


def load(options: Options, environment: Mapping[str, str]) -> Loaded:
    """Raises StackFileError with every problem, PystackError where there is no file."""
    start = absolute_path(options.project_directory or ".")
    paths = naming.stack_files(options.files, variables_of(start, options.env_files, environment), start, options.names)
    directory = absolute_path(options.project_directory or paths[0].parent)
    variables = variables_of(directory, options.env_files, environment, start)
    problems: list[Problem] = []
    opened = sources.files(paths)
    name = _project_name(options, variables, opened, directory, problems)
    variables["COMPOSE_PROJECT_NAME"] = name
    place = SourceContext(directory, variables, interpolate=options.interpolate, fetch=options.fetch)
    merged = sources.combined(opened, place, problems)
    if not merged.value and not problems:
        raise StackFileError([Problem(where=Mark(str(paths[0]), 0, 0), what="the file is empty", fix="begin with `services:`")])
    reading = LoadContext(merged, directory, variables, name, consistent=options.consistency)
    reading.problems += problems
    if not options.interpolate:  # what variables stand for is not known: nothing can be said of a value
        if problems:
            raise StackFileError(problems)
        return Loaded(Stack(name=name), merged.value, (), directory, (), variables, notes=merged.notes)
    services, networks, volumes = _read(reading, options, variables)
    models = models_of(reading, services)
    granted = {("secret" if f.secret else "config", f.source) for s in services for f in s.container.files}
    needed = {("secret", key) for s in services for rule in s.ingress for key in rule.secrets}
    needed |= {("secret", key) for v in volumes if v.backup for key in v.backup.secrets}
    contents = contents_of(reading, merged.value, granted, needed)
    policy_of = policy.read(reading, merged.value)
    ingress.check_secrets(reading, services, contents)
    check_backups(reading, services, volumes, contents)
    warnings, differences = (tuple(sorted(found, key=lambda p: p.where)) for found in (reading.warnings, reading.differences))
    if reading.problems:
        raise StackFileError(reading.problems, warnings, differences)
    containers, providers = split_provided(services)
    stack = Stack(
        name=name,
        services=tuple(expand_pre_start(containers)),
        networks=networks,
        volumes=volumes,
        contents=contents,
        policy=policy_of,
        lock=lock.read(directory),
    )
    loaded = Loaded(stack, merged.value, warnings, directory, services, variables, (*providers, *models))
    default = tuple(str(p) for p in [directory / ".env"] if p.is_file())
    return msgspec.structs.replace(
        loaded,
        notes=merged.notes,
        differences=differences,
        tree=merged,
        opened=tuple(opened),
        env_files=tuple(str(Path(f).absolute()) for f in options.env_files) or default,
    )


def _project_name(
    options: Options, variables: Mapping[str, str], opened: Sequence[sources.File], directory: Path, problems: list[Problem]
) -> str:
    """-p, COMPOSE_PROJECT_NAME, `name:`, the folder's name: the first there is."""
    written, place = sources.name_of(opened, variables if options.interpolate else {})
    given = options.project_name or variables.get("COMPOSE_PROJECT_NAME", "") or written
    if given:
        if not isinstance(given, str) or not naming.NAME.match(given):
            where = place if given == written else Mark("-p" if options.project_name else "COMPOSE_PROJECT_NAME", 0, 0)
            problems.append(Problem(where=where, what=f"name {given!r} is not a project name", why=naming.NAME_RULE))
            return "invalid"
        return given
    name = naming.folder_name(directory)
    if not name:
        problems.append(
            Problem(
                where=Mark(str(directory), 0, 0), what="the folder's name makes no project name", fix="give one with -p NAME"
            )
        )
    return name


def _read(
    reading: LoadContext, options: Options, variables: Mapping[str, str]
) -> tuple[tuple[Service, ...], tuple[StackNetwork, ...], tuple[StackVolume, ...]]:
    """Services, those that no profile leaves out, with the networks and volumes that there are; cross-checked."""
    document = reading.tree.value
    validate.check(reading, document)
    bodies = reading.mapping(document.get("services"), ("services",))
    services = {}
    for name, body in bodies.items():
        if ("services", name) not in reading.bad:
            services[name] = service.read(reading, name, body)
    networks = networks_of(reading, document)
    volumes = volumes_of(reading, document)
    with_own_volumes(reading, services, volumes)
    wanted = {*options.profiles, *variables.get("COMPOSE_PROFILES", "").split(",")} - {""}

    def profiles_of(name: str) -> set[str]:
        """Those without one of which it is left out."""
        valid = reading.is_valid(("services", name, "profiles")) and "*" not in wanted
        return set(bodies[name].get("profiles") or ()) if valid else set()

    # who is named is there with its profiles, which what it depends on may have too
    named = {profile for name in options.named if name in services for profile in profiles_of(name)}

    def is_asked_for(name: str) -> bool:
        profiles = profiles_of(name)
        return not profiles or bool((wanted | named) & profiles)

    active = {name: s for name, s in services.items() if is_asked_for(name)}
    resolved = [s if s.provider else _attach(reading, s, networks, volumes, services) for s in active.values()]
    check_dependencies(reading, active, services)
    consistency.check(reading, {s.name: s for s in resolved}, networks, options.named)
    resolved = _checked_ports(reading, resolved)
    used = {a.network for s in resolved for a in s.container.attachments}
    wanted_networks = tuple(n for n in networks.values() if options.unused or n.name in used)
    for flaws in (reading.flaws.get(("networks", n.key), ()) for n in wanted_networks if n.name not in used):
        reading.problems += [Problem(where=reading.mark(("networks",)), what="networks", why=why) for why in flaws]
    mounted = {m.source for s in resolved for m in s.container.mounts}
    wanted_volumes = tuple(v for v in volumes.values() if options.unused or v.backup or v.name in mounted)
    return tuple(resolved), wanted_networks, wanted_volumes


def _attach(
    reading: LoadContext,
    one: Service,
    networks: dict[str, StackNetwork],
    volumes: dict[str, StackVolume],
    services: Mapping[str, Service],
) -> Service:
    """Put the real names of networks and volumes in; the default network where nothing else is said."""
    c = one.container
    path: Path_ = ("services", one.name)
    attachments = c.attachments
    if not attachments and c.network_mode in ("", "bridge"):
        networks.setdefault("default", StackNetwork(key="default", name=f"{reading.name}_default", where=one.where))
        attachments = (Attachment(network="default"),)
    kind, _, other = c.network_mode.partition(":")
    if kind == "service" and other not in services:
        reading.check((*path, "network_mode"), f"service {other!r} is not in the file")
    out = []
    for attachment in attachments:
        network = networks.get(attachment.network)
        if network is None and attachment.network.startswith(OUTSIDE):
            name = attachment.network.removeprefix(OUTSIDE)
            network = networks[attachment.network] = StackNetwork(
                key=attachment.network, name=name, external=True, where=str(reading.mark((*path, "network_mode")))
            )
        if network is None and attachment.network == "default":
            network = networks["default"] = StackNetwork(key="default", name=f"{reading.name}_default", where=one.where)
        if network is None:
            at = (*path, "networks", attachment.network)
            near = ", ".join(networks) or "none"
            reading.check(at, f"network {attachment.network!r} is not declared", f"declare it; there is: {near}")
            continue
        out.append(
            msgspec.structs.replace(
                bandwidth.resolved(reading, one, attachment, network),
                network=network.name,
                # the service's own name is what neighbours call it by
                aliases=tuple(dict.fromkeys((one.name, *attachment.aliases))),
            )
        )
    mounts, refusals = _mounts(reading, one, volumes)
    refusals += [flaw for attachment in attachments for flaw in reading.flaws.get(("networks", attachment.network), ())]
    _no_double_targets(reading, path, mounts)
    container = msgspec.structs.replace(
        c,
        attachments=tuple(out),
        mounts=tuple(mounts),
        blkio=block_io.by_mount(reading, one.name, c),
        network_mode="" if c.network_mode == "bridge" else c.network_mode,
    )
    return msgspec.structs.replace(one, container=container, problem="\n".join(refusals))


def _mounts(reading: LoadContext, one: Service, volumes: Mapping[str, StackVolume]) -> tuple[list[Mount], list[str]]:
    """The mounts of *one* with the real names of volumes, and why it cannot be started."""
    mounts: list[Mount] = []
    refusals = [one.problem] if one.problem else []
    path: Path_ = ("services", one.name)
    for number, mount in enumerate(one.container.mounts):
        if mount.kind == "volume" and mount.source:
            volume = volumes.get(mount.source)
            if volume is None:
                at = (*path, "volumes", number)
                reading.check(at, f"volume {mount.source!r} is not declared", f"add `volumes: {{{mount.source}: }}`")
                continue
            if volume.driver not in VOLUME_DRIVERS:
                refusals.append(
                    f"{volume.where}: volumes.{volume.key}.driver: there is no driver {volume.driver!r}: one of "
                    f"{', '.join(VOLUME_DRIVERS)}"
                )
            refusals += reading.flaws.get(("volumes", mount.source), ())
            mount = msgspec.structs.replace(mount, source=volume.name)
        mounts.append(mount)
    return mounts, refusals


def _no_double_targets(reading: LoadContext, path: Path_, mounts: Sequence[Mount]) -> None:
    seen: set[str] = set()
    for number, mount in enumerate(mounts):
        if mount.target in seen:
            reading.problem((*path, "volumes", number), f"target {mount.target} is mounted twice", "keep one of them")
        seen.add(mount.target)


def _checked_ports(reading: LoadContext, services: Sequence[Service]) -> list[Service]:
    """*services*, kept from starting where one host cannot publish what two of them ask for; replicas share a port, but not
    that of one address."""
    taken: dict[tuple[str, int, str], str] = {}
    out = []
    for one in services:
        refusals = [one.problem] if one.problem else []
        where = reading.mark(("services", one.name, "ports"))
        for port in one.container.ports:
            key = (port.host_ip, port.published, port.protocol)
            if not port.published:
                continue
            if key in taken:
                refusals.append(
                    f"{where}: services.{one.name}.ports: port {port.published}/{port.protocol} is published by "
                    f"{taken[key]} already"
                )
            elif one.replicas > 1 and port.host_ip and port.mode == "ingress":
                refusals.append(
                    f"{where}: services.{one.name}.ports: {one.replicas} replicas cannot share port "
                    f"{port.published} of one address: leave the address out, and any node answers for all"
                )
            taken[key] = one.name
        out.append(msgspec.structs.replace(one, problem="\n".join(refusals)))
    return out
