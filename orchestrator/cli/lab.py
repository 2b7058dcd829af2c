"""`pystack lab …`"""

from __future__ import annotations

import os

import click

from orchestrator.cli.options import format_option, transport_option

name_option = click.option("--name", default="lab", help="Which lab.")


@click.group()
def lab() -> None:
    """Machines made of namespaces, to try pystack out and to test it."""


@lab.command()
@name_option
@click.option("--nodes", default=1)
@click.option("--label", "wanted", multiple=True, metavar="NODE:K=V")
@click.option("--servers", default=1, help="How many of the nodes have a server.")
@click.option("--store", type=click.Choice(("sqlite", "etcd")), default="sqlite", help="Where the servers keep the state.")
@click.option("--disk", default="", metavar="SIZE", help="A disk for each node, such as 1g, that `fault fill-disk` fills.")
@transport_option(
    "ssh",
    "etcd",
    "local",
    help="How manifests reach the nodes: over SSH, read from etcd by themselves, or, with one node, in place.",
)
def up(name: str, nodes: int, wanted: tuple[str, ...], servers: int, store: str, disk: str, transport: str | None) -> None:
    """Make a lab; returns when it is ready."""
    from orchestrator.lab import up as labs
    from orchestrator.stackfile.units import parse_bytes

    labels: dict[str, dict[str, str]] = {}
    for item in wanted:
        node, colon, pair = item.partition(":")
        key, sep, value = pair.partition("=")
        if not (colon and sep and key):
            raise click.UsageError(f"--label {item!r}: write NODE:KEY=VALUE")
        labels.setdefault(node, {})[key] = value
    if transport == "local" and nodes > 1:
        raise click.UsageError("--transport local: with one node alone")
    if transport == "etcd" and store != "etcd":
        raise click.UsageError("--transport etcd needs --store etcd")
    try:
        size = parse_bytes(disk) if disk else 0
    except ValueError as error:
        raise click.UsageError(f"--disk {disk}: {error}") from None
    made = labs.up(
        name, max(nodes, servers), labels, servers=servers, etcd=store == "etcd", readers=transport == "etcd", disk_size=size
    )
    click.echo(
        f"lab {name}: {', '.join(m for m in made.machines if m != 'switch')}; "
        f'use it with: eval "$(pystack lab env --name {name})"'
    )


@lab.command()
@name_option
@click.option("--all", "everything", is_flag=True)
def down(name: str, everything: bool) -> None:
    """Take a lab away; nothing of it stays."""
    from orchestrator.lab import lab as labs
    from orchestrator.lab.down import down as remove

    for one in labs.names() if everything else [name]:
        remove(one)


@lab.command()
@name_option
def env(name: str) -> None:
    """Variables that point this shell at the lab."""
    from orchestrator.lab import lab as labs

    found = labs.find(name)
    sockets = ",".join(f"unix://{found.socket(m.name)}" for m in found.servers)
    click.echo(f"export PYSTACK_HOST={sockets} PYSTACK_ROOT={found.directory / 'n1'}")


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@click.argument("machine")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, machine: str, command: tuple[str, ...]) -> None:
    """Run a command on a machine of the lab."""
    from orchestrator.lab import cgroups
    from orchestrator.lab import lab as labs

    arguments = labs.enter(labs.find(name), machine)
    cgroups.enter(name, machine)
    words = [word for index, word in enumerate(command) if not (index == 0 and word == "--")]
    arguments = [*arguments, *words]
    os.execvp(arguments[0], arguments)


@lab.command()
@name_option
@click.argument("target", metavar="NODE:PORT")
@click.argument("local", type=int, default=0, required=False)
def forward(name: str, target: str, local: int) -> None:
    """Make a node's port answer on 127.0.0.1."""
    from orchestrator.lab.forward import forward as forward_port
    from orchestrator.lab.lab import find

    node, _, port = target.partition(":")
    if not port.isdecimal():
        raise click.UsageError(f"{target!r}: write NODE:PORT")
    click.echo(f"127.0.0.1:{forward_port(find(name), node, int(port), local)}")


@lab.command()
@name_option
@click.argument("kind")
@click.argument("targets", nargs=-1)
def fault(name: str, kind: str, targets: tuple[str, ...]) -> None:
    """cut, heal, partition, kill, pause, resume, crash or boot machines, or fill-disk.

    `partition n1,n2 n3` parts them into groups; `kill n2 agent`; `kill leader` kills the server that leads, and prints its
    machine; `fill-disk n2 4096` leaves that many bytes free; `heal` alone heals all.
    """
    from orchestrator.lab.fault import fault as inject
    from orchestrator.lab.lab import find

    if not targets and kind != "heal":
        raise click.UsageError(f"{kind} what? name a machine")
    hit = inject(find(name), kind, *targets)
    if "leader" in targets:
        click.echo(hit)


@lab.command()
@name_option
@format_option
def status(name: str, shape: str) -> None:
    """Machines of a lab."""
    from orchestrator.cli.output import show
    from orchestrator.lab import lab as labs

    rows = [
        {"machine": m.name, "role": m.role, "address": m.address, "state": "up" if m.alive() else "down"}
        for m in labs.find(name).machines.values()
        if m.role != "switch"
    ]
    show(rows, ("machine", "role", "address", "state"), shape)


@lab.command()
@format_option
def ls(shape: str) -> None:
    """All labs."""
    from orchestrator.cli.output import show
    from orchestrator.lab import lab as labs

    rows = [{"name": n, "machines": [m for m in labs.find(n).machines if m != "switch"]} for n in labs.names()]
    show(rows, ("name", "machines"), shape)
