"""`pystack lock`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import StackOptions, stack_options
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from agent.contract.trust import RegistryImage


@click.command()
@stack_options
@click.option("--check", is_flag=True, help="Write nothing; fail where the file is not what it would become.")
def lock(stack: StackOptions, check: bool) -> None:
    """Write stack.lock beside the stack file: the content that each image has now, for every platform."""
    import msgspec

    from agent.contract.trust import Locked, RegistryImage
    from orchestrator.cli.client import Client
    from orchestrator.references import tagged
    from orchestrator.stackfile import lock as locks

    loaded = stack.load()
    names = sorted({name for s in loaded.stack.services for name in s.container.images})
    reply = Client(start=True).json("POST", "/v1/images/registry", body=msgspec.json.encode(names))
    found = msgspec.convert(reply, list[RegistryImage])
    if failures := [_failure(one) for one in found if one.error]:
        raise PystackError("\n".join(failures))
    entries = [Locked(image=one.name, digests=one.platforms) for one in found]
    path, text = locks.path_in(loaded.directory), locks.text_of(entries)
    before = {e.image: dict(e.digests) for e in loaded.stack.lock or ()}
    for entry in entries:
        if before.get(entry.image) != dict(entry.digests):
            word = "moved" if entry.image in before else "new"
            click.echo(f"{tagged(entry.image)}: {word}: {', '.join(f'{p} {d[:19]}…' for p, d in entry.digests)}")
    for image in sorted(before.keys() - {e.image for e in entries}):
        click.echo(f"{image}: no longer used")
    if path.exists() and path.read_text() == text:
        click.echo(f"{path}: unchanged")
    elif check:
        raise PystackError(f"{path} is not what the registries have now: `pystack lock`")
    else:
        path.write_text(text)
        click.echo(f"{path}: {len(entries)} image{'s' if len(entries) != 1 else ''}")


def _failure(one: RegistryImage) -> str:
    return f"image {one.name}: {one.error}"
