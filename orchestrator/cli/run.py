"""`pystack run`: one container of a service, with a command of its own; and a container followed from its first byte."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, is_compose, stack_options
from orchestrator.cli.up import no_build_option, pull_option
from orchestrator.errors import PystackError, RefusedError, require_services

if TYPE_CHECKING:
    from agent.contract.container import Container, Mount, Port
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.stackfile.load import Loaded
    from orchestrator.stackfile.model import Service


def begin(client: Client, ident: str) -> None:
    """Start the created container *ident*; where that fails it goes, unless it went by itself. Raises RefusedError."""
    try:
        client.engine("POST", f"/containers/{ident}/start")
    except RefusedError:
        with contextlib.suppress(RefusedError):
            client.engine("DELETE", f"/containers/{ident}", query={"force": 1, "v": 1})
        raise


def follow(client: Client, ident: str, *, tty: bool, stdin: bool, removed: bool = False) -> int:
    """Start the created container *ident* with this process's streams lent to it; its exit status, once it ended or, where it
    is to be *removed* then, once it is gone.

    Attached and waited for before it starts, so that no byte and no end is missed. Interrupted, it is stopped."""
    from orchestrator.cli.execute import is_left, raw_terminal, relay, resizer

    condition = {"condition": "removed" if removed else "next-exit"}
    end = client.request("POST", f"{client.base}/containers/{ident}/wait", query=condition)
    connection = client.hijack(f"{client.base}/containers/{ident}/attach", {})
    begin(client, ident)
    resize = resizer(client, ident)
    try:
        with raw_terminal(resize) if tty and sys.stdin.isatty() else contextlib.nullcontext():
            if tty and sys.stdout.isatty():
                resize()
            relay(connection, tty=tty, stdin=stdin)
        if tty and is_left(client, ident):
            return 0
        return int(json.loads(end.read())["StatusCode"])
    except KeyboardInterrupt:
        with contextlib.suppress(RefusedError):
            client.engine("POST", f"/containers/{ident}/stop")
        return 130


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@stack_options
@click.option("--rm", "remove", is_flag=True, help="Remove it when it ends.")
@click.option("-d", "--detach", is_flag=True, help="Print its name and return.")
@click.option("-T", "--no-tty", is_flag=True, help="No terminal, even where there is one.")
@click.option("-t", "--tty", is_flag=True, hidden=True)  # there is one where there is a terminal
@click.option("-i", "--interactive/--no-interactive", default=True, help="Pass standard input on.")
@click.option("--no-deps", is_flag=True, help="Do not start what the service depends on.")
@click.option("-P", "--service-ports", is_flag=True, help="Publish the service's ports.")
@click.option("--use-aliases", is_flag=True, help="Answer to the service's names.")
@click.option("--build", is_flag=True, help="Build its image even where it is there.")
@click.option("--publish", multiple=True, metavar="PORT", help="Publish this port, in the form of `ports:`.")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE")
@click.option("--cap-add", multiple=True, metavar="CAPABILITY")
@click.option("--cap-drop", multiple=True, metavar="CAPABILITY")
@pull_option
@no_build_option
@click.option("-q", "--quiet", is_flag=True, help="No word of what else is done.")
@click.option("--quiet-build", is_flag=True, help="No word of building.")
@click.option("--quiet-pull", is_flag=True, help="No word of pulling.")
@click.option("--remove-orphans", is_flag=True, help="Remove what belongs to no service of the file, and one-offs that ended.")
@click.option("--name", default="", help="Name of the container.")
@click.option("--entrypoint", default=None)
@click.option("-e", "--env", multiple=True)
@click.option("--env-from-file", multiple=True, type=click.Path(dir_okay=False, exists=True), help="Variables from a file.")
@click.option("-u", "--user", default="")
@click.option("-w", "--workdir", default="")
@click.option("-v", "--volume", multiple=True, metavar="SOURCE:TARGET[:ro]")
@click.argument("service")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    stack: StackOptions,
    service: str,
    command: tuple[str, ...],
    remove: bool,
    detach: bool,
    no_tty: bool,
    interactive: bool,
    no_deps: bool,
    name: str,
    **given: Any,
) -> None:
    """Run a command in a new container of a service; its exit status is this one's."""
    import msgspec

    from agent.contract.task import Task
    from orchestrator.cli.client import Client
    from orchestrator.cli.execute import is_left
    from orchestrator.cli.output import Progress
    from orchestrator.cli.project_files import with_project_labels

    loaded = stack.load(named=(service,))
    loaded = msgspec.structs.replace(loaded, stack=with_project_labels(loaded))
    wanted = _service(loaded, service)
    if given["publish"] and given["service_ports"]:
        raise click.UsageError("--service-ports and --publish exclude each other")
    del given["tty"]
    quiet = any([given.pop("quiet"), given.pop("quiet_build")])
    client, shown = Client(start=True), Progress("quiet" if quiet else "auto", quiet_pull=given.pop("quiet_pull"))
    needs = () if no_deps else tuple(d.service for d in wanted.depends_on)
    if loaded.providers:
        from orchestrator.cli.providers import start_providers

        loaded = msgspec.structs.replace(start_providers(loaded, (service,)), providers=())
        wanted = _service(loaded, service)
    making = {key: given.pop(key) for key in ("build", "no_build", "pull", "remove_orphans")}
    prepare(client, loaded, shown, service, needs, **making)
    tty = not (no_tty or detach) and sys.stdin.isatty() and sys.stdout.isatty()
    container = one_off(wanted, command, loaded.environment, tty=tty, stdin=interactive and not detach, **given)
    slug = os.urandom(32).hex()
    container = msgspec.structs.replace(container, origin=(*container.origin, ("com.docker.compose.slug", slug)))
    name = name or f"{loaded.stack.name}-{service}-run-{slug[:12]}"
    route = f"/v1/stacks/{loaded.stack.name}/oneoff"
    requested = {"name": name, "service": service, "container": msgspec.to_builtins(container)}
    oneoff = msgspec.convert(client.json("POST", route, body=requested), Task)
    at, ident = client.at(oneoff.node), ""
    try:
        query = {"name": name, "stack": loaded.stack.name, "service": service, "auto_remove": int(remove)}
        ident = at.engine("POST", "/pystack/containers", query=query, body=msgspec.json.encode(oneoff.container))["Id"]
        if detach:
            at.engine("POST", f"/containers/{ident}/start")
            click.echo(ident if is_compose() else name)
            return
        code = follow(at, ident, tty=tty, stdin=interactive, removed=remove)
    finally:
        if remove and not detach and not (tty and ident and is_left(at, ident)):
            client.json("DELETE", f"{route}/{name}")
    raise SystemExit(code)


def _service(loaded: Loaded, name: str) -> Service:
    """The service *name* of the stack. Raises NoSuchServiceError."""
    services = {s.name: s for s in loaded.stack.services}
    require_services([name], loaded.stack.name, services)
    return services[name]


def prepare(
    client: Client, loaded: Loaded, shown: Progress, service: str, needs: tuple[str, ...], *, pull: str | None, **options: Any
) -> None:
    """Bring up what *service* *needs*, as its conditions ask; then its image, networks and volumes, but none of its tasks."""
    from orchestrator.cli.apply import apply

    known = {s.name for s in loaded.stack.services}
    if there := tuple(name for name in needs if name in known):
        apply(client, loaded, shown, services=there, wait=False, conditions_of=service, **options)
    apply(client, loaded, shown, services=(service,), no_tasks=True, no_deps=True, pull=pull or "", **options)


def one_off(
    service: Service,
    command: tuple[str, ...],
    environment: Mapping[str, str],
    *,
    tty: bool,
    stdin: bool,
    **given: Any,
) -> Container:
    """The service's container as `run` has it: no addresses, names and ports of the service's own, no restarts. *given* are the
    options of `run`; variables that are given without a value are those of *environment*."""
    import shlex

    import msgspec

    c = service.container
    user, workdir, entrypoint = given["user"], given["workdir"], given["entrypoint"]
    attachments = tuple(
        msgspec.structs.replace(a, ipv4="", ipv6="", mac="", aliases=(*a.aliases, service.name) if given["use_aliases"] else ())
        for a in c.attachments
    )
    variables = {**dict(c.environment), **_variables(given["env_from_file"], given["env"], environment)}
    replaced = entrypoint is not None
    return msgspec.structs.replace(
        c,
        tty=tty,
        stdin_open=stdin,
        stdin_once=stdin,
        restart="no",
        attachments=attachments,
        environment=tuple(variables.items()),
        mounts=_mounts(c.mounts, given["volume"]),
        user=user or c.user,
        working_dir=workdir or c.working_dir,
        ports=(*c.ports, *(r.port for r in service.port_ranges)) if given["service_ports"] else _ports(given["publish"]),
        # another entrypoint has no use for the arguments of the first. Source: docker compose run
        command=command or (() if replaced else c.command),
        entrypoint=tuple(shlex.split(entrypoint)) if replaced else c.entrypoint,
        labels=tuple((dict(c.labels) | dict(label.partition("=")[::2] for label in given["label"])).items()),
        cap_add=(*(a for a in c.cap_add if a not in given["cap_drop"]), *given["cap_add"]),
        cap_drop=(*(d for d in c.cap_drop if d not in given["cap_add"]), *given["cap_drop"]),
    )


def _variables(files: Sequence[str], pairs: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """What --env-from-file and -e say, the latter over the former. Raises PystackError."""
    from pathlib import Path

    from orchestrator.stackfile import envfile

    out: dict[str, str] = {}
    for file in files:
        try:
            read = envfile.read(Path(file), environment)
            out |= {key: environment.get(key, "") if value is None else value for key, value in read.items()}
        except (OSError, ValueError) as error:
            raise PystackError(f"--env-from-file {file}: {error}") from None
    for pair in pairs:
        key, sep, value = pair.partition("=")
        out[key] = value if sep else environment.get(key, "")
    return out


def _mounts(own: Sequence[Mount], texts: Sequence[str]) -> tuple[Mount, ...]:
    """Those of the service, and those of --volume, which take the place of others with their target."""
    from orchestrator.stackfile.host_paths import absolute_path
    from orchestrator.stackfile.mounts import split_mount

    try:
        more = [split_mount(text, lambda path: str(absolute_path(path)))[0] for text in texts]
    except ValueError as error:
        raise click.UsageError(f"--volume: {error}") from None
    return (*(m for m in own if m.target not in {n.target for n in more}), *more)


def _ports(texts: Sequence[str]) -> tuple[Port, ...]:
    from agent.contract.container import Port
    from orchestrator.stackfile.port_text import read_ports

    try:
        return tuple(
            Port(target=p.target, published=p.first, protocol=p.protocol, host_ip=p.host_ip, mode="host")
            for text in texts
            for p in read_ports(text)
        )
    except ValueError as error:
        raise click.UsageError(f"--publish: {error}") from None
