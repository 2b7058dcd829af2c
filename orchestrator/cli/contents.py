"""`pystack secret …` and `pystack configs …`: those that stacks call external."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.client import Client
from orchestrator.cli.options import format_option
from orchestrator.errors import PystackError


def _verbs(group: click.Group, kind: str) -> None:
    """The verbs are the same for both kinds."""

    @group.command("create")
    @click.option("--replace", is_flag=True, help="Give one that is there new content; the next `up` rolls its users.")
    @click.argument("name")
    @click.argument("file", default="-", metavar="[FILE]")
    def create(replace: bool, name: str, file: str) -> None:
        client = Client(start=True)
        made = client.json("PUT", f"/v1/{kind}s/{name}", query={"replace": int(replace)}, body=_content(file))
        click.echo(made["name"])

    @group.command("ls")
    @format_option
    def ls(shape: str) -> None:
        from orchestrator.cli.output import show

        show(Client(start=True).json("GET", f"/v1/{kind}s"), ("name", "created", "updated", "stacks"), shape)

    @group.command("inspect")
    @click.argument("names", nargs=-1, required=True)
    def inspect(names: tuple[str, ...]) -> None:
        client = Client(start=True)
        click.echo(json.dumps([client.json("GET", f"/v1/{kind}s/{n}") for n in names], indent=2))

    @group.command("rm")
    @click.argument("names", nargs=-1, required=True)
    def rm(names: tuple[str, ...]) -> None:
        client = Client(start=True)
        for name in names:
            client.json("DELETE", f"/v1/{kind}s/{name}")
            click.echo(name)

    create.help = f"Make a {kind} of what FILE, or standard input, contains."
    ls.help = f"List {kind}s that were made by hand."
    inspect.help = f"What is known of {kind}s{' but their content' if kind == 'secret' else ''}, as JSON."
    rm.help = f"Remove {kind}s that no stack uses."


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise PystackError(f"{file} cannot be read: {error.strerror}") from error


@click.group()
def secret() -> None:
    """Secrets for stacks: sealed in the store and on the way, in the clear only in a node's memory."""


@click.group()
def configs() -> None:
    """Configs for stacks."""


_GROUPS: tuple[tuple[Any, str], ...] = ((secret, "secret"), (configs, "config"))
for _group, _kind in _GROUPS:
    _verbs(_group, _kind)
