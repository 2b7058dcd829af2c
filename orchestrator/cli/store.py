"""`pystack store …`"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from orchestrator.errors import PystackError


@click.group()
def store() -> None:
    """Where the servers keep the state: back it up, restore it, take it from SQLite to etcd or back."""


def _tls(command: click.decorators.FC) -> click.decorators.FC:
    for name, text in (("key", "its key"), ("cert", "a certificate for etcd"), ("ca", "the CA of etcd's certificates")):
        variable = f"PYSTACK_STORE_{name.upper()}"
        command = click.option(f"--{name}", envvar=variable, default="", help=f"PEM file of {text}.")(command)
    return command


@store.command()
@click.argument("file", type=click.Path(dir_okay=False))
def backup(file: str) -> None:
    """Write all that the server knows to FILE, as of one revision. The server runs on."""
    from orchestrator.cli.client import Client
    from orchestrator.store.transfer import read

    raw = Client().request("GET", "/v1/store").read()
    count = len(read(raw.splitlines(keepends=True), "the server's answer"))
    path, temporary = Path(file), Path(f"{file}.tmp")
    temporary.touch(mode=0o600)
    temporary.write_bytes(raw)
    temporary.replace(path)
    click.echo(f"{count} entries in {file}")


@store.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("target")
@_tls
def restore(file: str, target: str, ca: str, cert: str, key: str) -> None:
    """Fill the empty store TARGET (a store.db, or etcd://…) from the backup FILE. No server may run on it."""
    from orchestrator.store.transfer import fill, open_store, read

    with Path(file).open("rb") as lines:
        entries = read(lines, file)

    async def body() -> int:
        opened = await open_store(target, ca=ca, cert=cert, key=key)
        try:
            return await fill(opened, entries)
        finally:
            await opened.close()

    click.echo(f"{asyncio.run(body())} entries in {target}")


@store.command()
@click.argument("source")
@click.argument("target")
@_tls
def migrate(source: str, target: str, ca: str, cert: str, key: str) -> None:
    """Copy the store SOURCE to the empty store TARGET, and compare all of it. No server may run on either."""
    from orchestrator.store.transfer import as_puts, fill, open_store

    if "://" not in source and not Path(source).exists():
        raise PystackError(f"{source} does not exist: an embedded store is the file store.db in a server's state folder")

    async def body() -> int:
        first = await open_store(source, ca=ca, cert=cert, key=key)
        try:
            second = await open_store(target, ca=ca, cert=cert, key=key)
            try:
                return await fill(second, as_puts(await first.scan("")))
            finally:
                await second.close()
        finally:
            await first.close()

    count = asyncio.run(body())
    click.echo(f"{count} entries, the same in both" + (f"; start the server with --store {target}" if "://" in target else ""))


@store.command()
@click.option("--force-new", is_flag=True, help="Go on with this host's member of etcd alone. There is no other way.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def recover(force_new: bool, yes: bool) -> None:
    """Go on after etcd lost its quorum for good, on the host of the member that has most.

    Says what is lost by that, and asks. The other servers then join again, with `pystack server join --replace`."""
    from orchestrator.cli import service
    from orchestrator.managed import recovering
    from orchestrator.managed.settings import MemberFolder, own_places

    if not force_new:
        raise click.UsageError("say --force-new: the members that are gone can never come back after that")
    root, control_socket = own_places()
    folder = MemberFolder(root)
    with service.stopped("pystack") as units:
        loss = recovering.assess(folder, control_socket)
        click.echo(loss.words())
        if not yes and not click.confirm(f"Go on with {loss.settings.name} alone?"):
            raise PystackError("nothing was changed")
        recovering.force_new(folder, loss.settings)
    click.echo(
        f"{loss.settings.name} is the only member now{units.advice()}; on each other host:\n"
        f"  pystack server join {loss.settings.advertise} --advertise USER@ITS-ADDRESS --replace"
    )
