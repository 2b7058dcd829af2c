"""One build: what the node is asked for, what is sent for it, and what comes back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from orchestrator.cli.compose_progress import say
from orchestrator.cli.options import is_compose
from orchestrator.cli.registry_login import headers_for_build

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.stackfile.model import Build, Service, Stack


CPU_PERIOD = 100_000
"""Microseconds, in which a RUN has its share of the CPUs."""


class BuildOptions(NamedTuple):
    """Options of `build`: *args* are laid over the build arguments of each service, the rest goes before what the file says.
    *outputs*, *cache_from* and *cache_to* are written as `type=KIND,NAME=VALUE…`; *ssh* as NAME or NAME=SOCKET."""

    no_cache: bool = False
    pull: bool = False
    args: Mapping[str, str] = {}
    outputs: tuple[str, ...] = ()
    push: bool = False
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    provenance: str = ""
    sbom: str = ""
    annotations: Mapping[str, str] = {}
    ssh: tuple[str, ...] = ()
    node: str = ""


def _provided(stack: Stack, service: Service, build_options: Build) -> tuple[dict[str, str], dict[str, bytes], dict[str, Path]]:
    """Of the build of *service*: its further contexts as the node names them, contents that go along, and folders that do.

    Raises PystackError."""
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
        elif not Path(value).is_dir():
            at = f"{service.where}: services.{service.name}.build.additional_contexts.{name}"
            raise PystackError(f"{at}: folder {value} does not exist")
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
    """The Dockerfile in the request to the node, and what is sent for it: one that is not a file of the context goes beside it.

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
    from agent.contract.project_labels import project_labels
    from orchestrator.cli.build_node import node_of
    from orchestrator.cli.context import pack
    from orchestrator.cli.sending import send
    from orchestrator.cli.ssh_agent import lent

    build_options = service.build
    assert build_options is not None
    wanted = options.node or service.build_node
    node = node_of(client, wanted, service.where) if wanted else ""
    at = client.at(node) if node else client
    contexts, files, folders = _provided(stack, service, build_options)
    dockerfile, own = _dockerfile(service, build_options)
    files |= own
    context = None if build_options.remote else Path(build_options.context)
    sent = send(at, context, dockerfile) if context else ""
    for where, folder in list(folders.items()):
        if known := send(at, folder, ""):
            contexts |= {name: f"sent:{known}" for name, value in contexts.items() if value == where}
            del folders[where]
    query = _query(service, build_options, options) | {
        "labels": json.dumps(dict(build_options.labels) | project_labels("service", stack.name, service.name)),
        "dockerfile": dockerfile,
        "sent": sent,
        "contexts": json.dumps(contexts),
        "cachefrom": json.dumps(_caches(at, (*options.cache_from, *build_options.cache_from))),
    }
    body = pack(None if sent else context, dockerfile, files, folders)
    if progress.mode == "plain" and not is_compose():
        click.echo(f"build {service.container.image}", err=True)
    elif is_compose() and progress.mode != "quiet":
        say("Image", service.container.image, "Building")
    agents = {**dict(build_options.ssh), **dict(text.partition("=")[::2] for text in options.ssh)}
    with lent(at, agents) as doors:
        query["agents"] = json.dumps(doors)
        for event in at.lines("POST", f"{at.base}/build", query=query, body=body, headers=headers_for_build()):
            _show_event(at, service, event, progress)
    if is_compose() and progress.mode != "quiet":
        say("Image", service.container.image, "Built")
    if node and not options.outputs:
        client.json("POST", f"/v1/nodes/{node}/ship", body={"image": service.container.image})


def _query(service: Service, build: Build, options: BuildOptions) -> dict[str, Any]:
    """What the node is asked for, but for where files come from."""
    from orchestrator.cli.receiving import specs

    attests = {"provenance": options.provenance or build.provenance, "sbom": options.sbom or build.sbom}
    return {
        "t": [service.container.image, *build.tags],
        "buildargs": json.dumps(dict(build.args) | dict(options.args)),
        "target": build.target,
        "nocache": int(options.no_cache or build.no_cache),
        "nocachefilter": json.dumps(build.no_cache_filter),
        "entitlements": json.dumps(build.entitlements),
        "remote": build.context if build.remote else "",
        "pull": int(options.pull or build.pull),
        "networkmode": build.network,
        "platform": ",".join(build.platforms),
        "shmsize": build.shm_size,
        "extrahosts": [f"{k}:{v}" for k, v in build.extra_hosts],
        "ulimits": json.dumps([{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in build.ulimits]),
        "privileged": int(build.privileged),
        "memory": service.build_limits.memory,
        "cpuperiod": CPU_PERIOD if service.build_limits.cpus else 0,
        "cpuquota": round(service.build_limits.cpus * CPU_PERIOD),
        "timeout": f"{service.build_limits.timeout_s:.3f}",
        "cacheto": json.dumps((*options.cache_to, *build.cache_to)),
        "attests": json.dumps({name: text for name, text in attests.items() if text}),
        "outputs": json.dumps(
            specs(
                options.outputs,
                push=options.push,
                names=(service.container.image, *build.tags),
                annotations=options.annotations,
            )
        ),
    }


def _caches(client: Client, given: tuple[str, ...]) -> list[str]:
    """Where steps are taken from, a folder of this host by the name under which it is sent; one that is not there yet has
    none."""
    from orchestrator.cli.receiving import pairs
    from orchestrator.cli.sending import send

    found = []
    for text in given:
        kind, attributes = pairs(text, "cache_from")
        if kind == "local":
            folder = Path(attributes.get("src", ""))
            if not attributes.get("src") or not folder.is_dir():
                click.echo(f"cache_from: {text}: there is no such folder yet", err=True)
                continue
            found.append(f"type=local,src=sent:{send(client, folder, '')}")
        else:
            found.append(text if "=" in text else f"type=registry,ref={text}")
    return found


def _show_event(client: Client, service: Service, event: dict[str, Any], progress: Progress) -> None:
    """Show a line of the build, and fetch what it has for us."""
    from orchestrator.cli.receiving import fetch

    aux = event.get("aux")
    if isinstance(aux, dict) and isinstance(aux.get("Output"), dict):
        fetch(client, aux["Output"])
    elif progress.mode == "json":
        click.echo(json.dumps({"event": "build", "service": service.name, **event}))
    elif progress.mode != "quiet" and event.get("stream"):
        # Docker Compose's goes to the standard output, but for that of `run`, where the command's own output is
        out = is_compose() and click.get_current_context().info_name != "run"
        click.echo(f"{service.name}: {event['stream']}", nl=False, err=not out)
