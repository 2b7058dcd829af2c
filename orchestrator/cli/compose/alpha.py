"""`pystack compose alpha`: the verbs that Docker Compose had there first, and the drawing that it still has there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import StackOptions, stack_options

if TYPE_CHECKING:
    from orchestrator.stackfile.model import Service, Stack


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def dry_run(context: click.Context, words: tuple[str, ...]) -> None:
    """Show what the verb behind it would do."""
    from orchestrator.cli.compose import Group, pretending

    group = next(c for c in _above(context) if isinstance(c.command, Group))
    command = group.command
    assert isinstance(command, Group)
    name, found, rest = command.resolve_command(group, list(words))
    assert found
    assert name
    pretending(context, name)
    with found.make_context(name, rest, parent=group) as inner:
        found.invoke(inner)


def _above(context: click.Context) -> Iterator[click.Context]:
    while context.parent:
        context = context.parent
        yield context


@click.command()
@stack_options
@click.option("--image", is_flag=True, help="Name the images.")
@click.option("--indentation-size", type=click.IntRange(0), default=1, help="Tabs or spaces before a line.")
@click.option("--networks", is_flag=True, help="Name the networks.")
@click.option("--ports", is_flag=True, help="Name the ports.")
@click.option("--spaces", is_flag=True, help="Spaces before a line, not tabs.")
def viz(stack: StackOptions, image: bool, indentation_size: int, networks: bool, ports: bool, spaces: bool) -> None:
    """The services and what they depend on, in the language of Graphviz."""
    indent = (" " if spaces else "\t") * indentation_size
    extras = tuple(name for name, wanted in (("image", image), ("networks", networks), ("ports", ports)) if wanted)
    click.echo("\n".join(drawn(stack.load(quiet=True).stack, extras, indent)))


def drawn(stack: Stack, extras: Sequence[str], indent: str) -> Iterator[str]:
    """The lines of a graph of *stack*; *extras* are what a service says of itself besides its name: networks, ports, image.
    Source: graphviz.org, "DOT Language"."""
    from orchestrator.cli.drawing import quoted

    yield f"digraph {quoted(stack.name)} {{"
    yield f"{indent}layout=dot;"
    for service in stack.services:
        label = "\n".join([service.name, *(line for extra in extras for line in _details(service, extra))])
        yield f"{indent}{quoted(service.name)} [style=filled, shape=box, label={quoted(label)}];"
    for service in stack.services:
        for target in dict.fromkeys(dependency.service for dependency in service.depends_on):
            yield f"{indent}{quoted(service.name)} -> {quoted(target)};"
    yield "}"


def _details(service: Service, extra: str) -> Iterator[str]:
    container = service.container
    if extra == "image":
        yield f"Image: {container.image}"
    elif extra == "networks":
        yield from ("Networks:", *(attachment.network for attachment in container.attachments))
    elif container.ports:
        yield from ("Ports:", *(f"{port.published or ''}:{port.target}/{port.protocol}" for port in container.ports))


VERBS = {"dry-run": dry_run, "viz": viz}
