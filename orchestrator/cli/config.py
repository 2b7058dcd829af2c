"""`pystack config`"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, stack_options
from orchestrator.errors import require_services

if TYPE_CHECKING:
    from orchestrator.stackfile.interpolate import NamedVariable
    from orchestrator.stackfile.load import Loaded


@click.command()
@stack_options
@click.option("--format", "shape", type=click.Choice(["yaml", "json"]), default="yaml")
@click.option("--services", is_flag=True, help="Names of services, one a line.")
@click.option("--volumes", is_flag=True, help="Names of volumes, one a line.")
@click.option("--images", is_flag=True, help="Names of images, one a line.")
@click.option("--networks", is_flag=True, help="Names of networks, one a line.")
@click.option("--profiles", is_flag=True, help="Names of profiles, one a line.")
@click.option("--variables", is_flag=True, help="Variables that the file names, with their defaults.")
@click.option("--environment", is_flag=True, help="Variables that the file can name, with their values.")
@click.option(
    "--hash",
    "hashed",
    is_flag=False,
    flag_value="*",
    metavar="[SERVICE[,SERVICE…]|*]",
    help="Each service with a hash of its definition.",
)
@click.option("--models", is_flag=True, help="Names of models, one a line.")
@click.option("--lock-image-digests", is_flag=True, help="A file for -f that pins each image to what its registry has.")
@click.option("--resolve-image-digests", is_flag=True, help="Show each image pinned to what its registry has.")
@click.option("--no-env-resolution", is_flag=True, hidden=True)  # files of variables are read in any case
@click.option("--no-path-resolution", is_flag=True, hidden=True)  # paths are shown whole
@click.option("--no-normalize", is_flag=True, help="As the file has it, merged, without what is implied.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write it to a file.")
@click.option("--no-interpolate", is_flag=True, help="Leave variables as they are.")
@click.option("--no-consistency", is_flag=True, help="Check only the form, not what refers to what.")
@click.option("-q", "--quiet", is_flag=True, help="Only check.")
@click.option("--strict", is_flag=True, help="Refuse keys that have no effect.")
@click.argument("only", nargs=-1, metavar="[SERVICE]…")
def config(
    stack: StackOptions,
    shape: str,
    services: bool,
    volumes: bool,
    images: bool,
    networks: bool,
    profiles: bool,
    variables: bool,
    environment: bool,
    hashed: str | None,
    output: str | None,
    no_interpolate: bool,
    no_consistency: bool,
    quiet: bool,
    strict: bool,
    models: bool,
    lock_image_digests: bool,
    resolve_image_digests: bool,
    no_normalize: bool,
    only: tuple[str, ...],
    **of_compose: bool,
) -> None:
    """Show the stack file in its normal form: merged, variables put in, every key written out.

    With services named, only these services and what they need."""
    del of_compose
    if hashed and hashed != "*":
        only = (*only, *hashed.split(","))
    if variables or environment:
        return _variables(stack, shape, only, values=environment)
    loaded = stack.load(strict=strict, interpolate=not no_interpolate, consistency=not no_consistency)
    if quiet:
        return
    bodies = loaded.document.get("services", {})
    require_services(only, loaded.stack.name, bodies)
    if services:
        lines_of(_services(loaded, interpolated=not no_interpolate))
    elif volumes:
        lines_of(loaded.document.get("volumes") or ())
    elif models:
        lines_of(loaded.document.get("models") or ())
    elif lock_image_digests:
        click.echo(lock_file(loaded, only), nl=False)
    elif networks:
        lines_of((loaded.document.get("networks") or ()) if no_interpolate else (n.key for n in loaded.stack.networks))
    elif images:
        for image in _images(loaded, only, interpolated=not no_interpolate):
            click.echo(image)
    elif profiles:
        lines_of(sorted({p for s in bodies.values() for p in s.get("profiles") or ()}))
    elif hashed:
        lines_of(f"{n} {_hash(bodies[n])}" for n in sorted(only or _services(loaded, interpolated=not no_interpolate)))
    else:
        written_out = not (no_interpolate or no_consistency or no_normalize)
        text = rendered(loaded, shape, only, canonical=written_out, pinned=resolve_image_digests)
        if output:
            Path(output).write_text(text)
        else:
            click.echo(text, nl=False)


def _services(loaded: Loaded, *, interpolated: bool) -> Iterable[str]:
    """The services that are active, each after what it needs; without interpolation all, as the file has them."""
    from orchestrator.stackfile.graph import dependencies_first

    return dependencies_first({s.name: s for s in loaded.services}) if interpolated else loaded.document.get("services", {})


def _images(loaded: Loaded, only: tuple[str, ...], *, interpolated: bool) -> Iterator[str]:
    """The images of the services *only*, or of all, one for each; without interpolation as the file names them."""
    if interpolated:
        given = {s.name: s.container.image for s in loaded.services}
    else:
        bodies = loaded.document.get("services", {})
        given = {n: b.get("image") or f"{loaded.stack.name}-{n}" for n, b in bodies.items()}
    return (image for name, image in given.items() if not only or name in only)


def lock_file(loaded: Loaded, only: tuple[str, ...]) -> str:
    """A stack file that pins the images of the services *only*, or of all. Raises RefusedError if a registry lacks one."""
    import yaml

    pinned = _pinned({s.name: s.container.image for s in loaded.services if not only or s.name in only})
    return str(yaml.safe_dump({"services": {name: {"image": image} for name, image in pinned.items()}}))


def _hash(body: Any) -> str:
    """SHA-256 of a service's *body*, as hex digits."""
    import hashlib

    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()


def rendered(loaded: Loaded, shape: str, only: tuple[str, ...], *, canonical: bool, pinned: bool) -> str:
    """The document in the *shape* yaml or json, with the services *only* and what they need, or all; *canonical* with every key
    written out, *pinned* with the digests of its images. Raises RefusedError if a registry does not have one."""
    document = {"name": loaded.stack.name, **{k: v for k, v in loaded.document.items() if k != "name"}}
    if canonical:
        from orchestrator.stackfile.canonical import canonicalize

        document = canonicalize(loaded)
    document = narrowed(document, loaded, only)
    if pinned:
        pin_images(document)
    if shape == "json":
        return json.dumps(document, default=str, indent=2) + "\n"
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def narrowed(document: dict[str, Any], loaded: Loaded, only: tuple[str, ...]) -> dict[str, Any]:
    """*document* with the services *only* and what they need, or all. Raises NoSuchServiceError."""
    require_services(only, loaded.stack.name, loaded.document.get("services", {}))
    return _part(document, only) if only else document


def pin_images(document: dict[str, Any]) -> None:
    """Put the digest that its registry has to each image of *document*. Raises RefusedError if a registry does not have one."""
    given = {n: b["image"] for n, b in document.get("services", {}).items() if b.get("image")}
    for name, image in _pinned(given).items():
        document["services"][name] = {**document["services"][name], "image": image}


def _pinned(images: dict[str, str]) -> dict[str, str]:
    """Each image with the digest that its registry has for it; one that has a digest stays as it is. Raises RefusedError."""
    from orchestrator.cli.client import Client, name_in_path

    client, out = Client(start=True), dict[str, str]()
    for service, image in images.items():
        if "@" in image:
            out[service] = image
            continue
        found = client.engine("GET", f"/distribution/{name_in_path(image)}/json")
        out[service] = f"{image}@{found['Descriptor']['digest']}"
    return out


def lines_of(names: Iterable[str]) -> None:
    """Print *names*, each once, one a line."""
    for name in dict.fromkeys(names):
        click.echo(name)


def _part(document: dict[str, Any], only: tuple[str, ...]) -> dict[str, Any]:
    """*document* with the services *only*, and those that they depend on."""
    from orchestrator.stackfile.graph import reached

    there = document.get("services", {})
    wanted = reached({name: body.get("depends_on") or () for name, body in there.items()}, only)
    return {**document, "services": {k: v for k, v in there.items() if k in wanted}}


def _variables(stack: StackOptions, shape: str, only: tuple[str, ...], *, values: bool) -> None:
    """What the file can name, with values; or what it does name, with defaults, for *only* some services."""
    from orchestrator.stackfile import naming
    from orchestrator.stackfile.host_paths import absolute_path
    from orchestrator.stackfile.variables import variables_of

    options = stack.options()
    start = absolute_path(options.project_directory or ".")
    if values:
        near = variables_of(start, options.env_files, os.environ)
        directory = naming.stack_files(options.files, near, start, options.names)[0].parent
        known = {**variables_of(directory, options.env_files, os.environ, start), "COMPOSE_PROJECT_NAME": stack.name()}
        for key, value in sorted(known.items()):
            click.echo(f"{key}={value}")
        return
    found = variables_named(stack, only)
    rows = [{"name": n.name, "required": n.required, "default": n.default, "alternate": n.alternate} for n in found]
    if shape == "json":
        click.echo(json.dumps({row["name"]: row for row in rows}))
    else:
        from orchestrator.cli.output import show

        show(rows, ("name", "required", "default", "alternate"), "table")


def variables_named(stack: StackOptions, only: tuple[str, ...]) -> list[NamedVariable]:
    """The variables that the file names, or its services *only*, each as it is first named."""
    from orchestrator.stackfile.interpolate import named

    document = stack.load(interpolate=False, consistency=False, quiet=True).document
    if only:
        document = _part(document, only)
    found: dict[str, NamedVariable] = {}
    for text in _texts(document):
        for one in named(text):
            found.setdefault(one.name, one)
    return list(found.values())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
