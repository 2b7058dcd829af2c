"""`pystack build`, and the building that `up` does."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from orchestrator.cli.options import StackOptions, stack_options

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.stackfile.model import Build, Service, Stack


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@click.option("--no-cache", is_flag=True)
@click.option("--pull", is_flag=True, help="Fetch newer base images.")
@click.option("--build-arg", multiple=True, metavar="K=V")
@click.option("--progress", type=click.Choice(["auto", "plain", "json", "quiet"]), default="auto")
@click.option("--push", is_flag=True, help="Send them to their registries then.")
@click.option("--with-dependencies", is_flag=True, help="Those that the services need too.")
@click.option("-q", "--quiet", is_flag=True, help="No word of it.")
def build(
    stack: StackOptions,
    services: tuple[str, ...],
    no_cache: bool,
    pull: bool,
    build_arg: tuple[str, ...],
    progress: str,
    push: bool,
    with_dependencies: bool,
    quiet: bool,
) -> None:
    """Build the images of services that have `build:`."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.errors import require_services
    from orchestrator.stackfile.graph import needed

    loaded = stack.load(named=services)
    client = Client(start=True)
    require_services(services, loaded.stack.name, (s.name for s in loaded.stack.services))
    if with_dependencies and services:
        services = tuple(needed(loaded.stack.services, services))
    extra = dict(arg.partition("=")[::2] for arg in build_arg)
    build_services(
        client,
        loaded.stack,
        services,
        always=True,
        progress=Progress("quiet" if quiet else progress),
        options=BuildOptions(no_cache, pull, extra),
    )
    if push:
        from orchestrator.cli.export import push_images

        push_images(client, loaded.stack, services, quiet=quiet)


class BuildOptions(NamedTuple):
    """Options of `build`: *args* are laid over the build arguments of each service."""

    no_cache: bool = False
    pull: bool = False
    args: Mapping[str, str] = {}


def build_services(
    client: Client,
    stack: Stack,
    services: tuple[str, ...],
    *,
    always: bool,
    progress: Progress,
    options: BuildOptions = BuildOptions(),
) -> None:
    """Build what has `build:`, all of it or where the image is missing. Raises RefusedError with the builder's words."""
    from orchestrator.cli.client import name_in_path
    from orchestrator.errors import RefusedError

    for service in _in_order(stack, services):
        assert service.build
        if not always and service.container.pull_policy != "build":
            try:
                client.engine("GET", f"/images/{name_in_path(service.container.image)}/json")
                continue
            except RefusedError:
                pass
        build_one(client, stack, service, progress, options)


def _in_order(stack: Stack, chosen: tuple[str, ...]) -> list[Service]:
    """What is to be built: *chosen*, or all, each after those whose images it is built from. Raises PystackError."""
    from orchestrator.errors import PystackError

    there = {s.name: s for s in stack.services if s.build}
    out: dict[str, Service] = {}

    def add(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise PystackError(f"{there[name].where}: images are built from each other: {' → '.join((*trail, name))}")
        one = there[name]
        assert one.build
        for other in one.build.after:
            if other not in there:
                at = f"{one.where}: services.{name}.build.additional_contexts"
                raise PystackError(f"{at}: service {other!r} has no build: of its own")
            add(other, (*trail, name))
        out[name] = one

    for name in there:
        if not chosen or name in chosen:
            add(name, ())
    return list(out.values())


def _provided(stack: Stack, build_options: Build) -> tuple[dict[str, str], dict[str, bytes], dict[str, Path]]:
    """Of a build: its further contexts as the node names them, contents that go along, and folders that do."""
    from agent.contract.container import BUILD_EXTRAS
    from orchestrator.errors import PystackError
    from orchestrator.stackfile.remote import is_remote

    images = {s.name: s.container.image for s in stack.services}
    contexts, folders, files = {}, {}, {}
    for number, (name, value) in enumerate(build_options.contexts):
        if value.startswith("service:"):
            contexts[name] = f"docker-image://{images[value[8:]]}"
        elif is_remote(value):
            contexts[name] = value
        else:
            folders[f"{BUILD_EXTRAS}/context-{number}"] = Path(value)
            contexts[name] = f"{BUILD_EXTRAS}/context-{number}"
    for secret in build_options.secrets:
        try:
            content = Path(secret.file).read_bytes() if secret.file else os.environb[secret.environment.encode()]
        except (OSError, KeyError) as error:
            whence = secret.file or f"variable {secret.environment}"
            raise PystackError(f"build secret {secret.id}: {whence} cannot be read: {error}") from None
        files[f"{BUILD_EXTRAS}/secrets/{secret.id}"] = content
    return contexts, files, folders


def _dockerfile(service: Service, build_options: Build) -> tuple[str, dict[str, bytes]]:
    """What the node is told of the Dockerfile, and what is sent for that: one that is no file of the context goes beside it.

    Raises PystackError."""
    from agent.contract.container import BUILD_EXTRAS
    from orchestrator.errors import PystackError

    where = f"{service.where}: services.{service.name}.build"
    if not build_options.remote and not Path(build_options.context).is_dir():
        raise PystackError(f"{where}: folder {build_options.context} does not exist")
    beside = f"{BUILD_EXTRAS}/Dockerfile"
    if build_options.dockerfile_inline:
        return beside, {beside: build_options.dockerfile_inline.encode()}
    if build_options.remote:
        return build_options.dockerfile, {}
    path = Path(build_options.context, build_options.dockerfile)
    if not path.is_file():
        raise PystackError(f"{where}: {path} does not exist")
    if path.resolve().is_relative_to(Path(build_options.context).resolve()):
        absolute = Path(build_options.dockerfile).is_absolute()
        return os.path.relpath(path, build_options.context) if absolute else build_options.dockerfile, {}
    ignore = path.with_name(f"{path.name}.dockerignore")
    return beside, {beside: path.read_bytes(), **({f"{beside}.dockerignore": ignore.read_bytes()} if ignore.is_file() else {})}


def build_one(client: Client, stack: Stack, service: Service, progress: Progress, options: BuildOptions) -> None:
    """Build the image of *service*.

    Raises PystackError if its folder or Dockerfile does not exist, RefusedError with the builder's words."""
    from orchestrator.cli.context import pack
    from orchestrator.cli.sending import send

    build_options = service.build
    assert build_options is not None
    contexts, files, folders = _provided(stack, build_options)
    dockerfile, own = _dockerfile(service, build_options)
    files |= own
    context = None if build_options.remote else Path(build_options.context)
    sent = send(client, context, dockerfile) if context else ""
    for where, folder in list(folders.items()):
        if known := send(client, folder, ""):
            contexts |= {name: f"sent:{known}" for name, value in contexts.items() if value == where}
            del folders[where]
    query: dict[str, Any] = {
        "dockerfile": dockerfile,
        "t": [service.container.image, *build_options.tags],
        "buildargs": json.dumps(dict(build_options.args) | dict(options.args)),
        "target": build_options.target,
        "labels": json.dumps(dict(build_options.labels)),
        "nocache": int(options.no_cache or build_options.no_cache),
        "nocachefilter": json.dumps(build_options.no_cache_filter),
        "entitlements": json.dumps(build_options.entitlements),
        "remote": build_options.context if build_options.remote else "",
        "sent": sent,
        "pull": int(options.pull or build_options.pull),
        "networkmode": build_options.network,
        "platform": build_options.platform,
        "shmsize": build_options.shm_size,
        "extrahosts": [f"{k}:{v}" for k, v in build_options.extra_hosts],
        "contexts": json.dumps(contexts),
        "ulimits": json.dumps([{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in build_options.ulimits]),
        "privileged": int(build_options.privileged),
    }
    body = pack(None if sent else context, dockerfile, files, folders)
    if progress.mode == "plain":
        click.echo(f"build {service.container.image}", err=True)
    for event in client.lines("POST", f"{client.base}/build", query=query, body=body):
        if progress.mode == "json":
            click.echo(json.dumps({"event": "build", "service": service.name, **event}))
        elif progress.mode != "quiet" and event.get("stream"):
            click.echo(f"{service.name}: {event['stream']}", nl=False, err=True)
