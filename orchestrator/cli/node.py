"""`pystack node …`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import format_option, transport_option

if TYPE_CHECKING:
    from orchestrator.server.api.nodes import NodeRow


def labels(_: Any, __: Any, values: tuple[str, ...]) -> list[tuple[str, str]]:
    """Callback of click: KEY=VALUE options as pairs. Raises BadParameter for another form."""
    out = []
    for value in values:
        key, sep, word = value.partition("=")
        if not sep or not key:
            raise click.BadParameter(f"{value!r}: write KEY=VALUE")
        out.append((key, word))
    return out


@click.group()
def node() -> None:
    """The hosts of the cluster."""


@node.command()
@click.argument("targets", nargs=-1, required=True, metavar="[USER@]HOST[:PORT]…")
@click.option("--name", default="", help="Its name; else its host name.")
@click.option("--label", "wanted", multiple=True, callback=labels, metavar="K=V")
@click.option("--host-key", default="", metavar="SHA256:…", help="Accept this host key, where known_hosts has none.")
@click.option("--underlay", default="", help="The address under which the other nodes reach it.")
@transport_option("ssh", "etcd", help="etcd: it reads its manifest from there itself, with credentials of its own.")
def add(
    targets: tuple[str, ...], name: str, wanted: list[tuple[str, str]], host_key: str, underlay: str, transport: str | None
) -> None:
    """Install an agent over SSH and make the host a node; several hosts side by side."""
    from concurrent.futures import ThreadPoolExecutor

    from orchestrator.cli.client import Client
    from orchestrator.errors import PystackError

    if len(targets) > 1 and (name or underlay or host_key):
        raise click.UsageError("--name, --underlay and --host-key are of one host: add it alone")
    client = Client(start=True)
    client.json("GET", "/v1/version")

    def one(target: str) -> str:
        body = {
            "target": target,
            "name": name,
            "labels": wanted,
            "host_key": host_key,
            "underlay": underlay,
            "transport": transport or "ssh",
        }
        try:
            row: NodeRow = client.json("POST", "/v1/nodes", body=body)
        except PystackError as error:
            return str(error)
        click.echo(f"{row['name']} ({target}): {row['platform']}, {row['capacity']['cpus']:g} cores")
        return ""

    with ThreadPoolExecutor(min(20, len(targets))) as pool:
        failed = [reason for reason in pool.map(one, targets) if reason]
    if failed:
        raise PystackError("\n".join(failed))


@node.command()
@format_option
def ls(shape: str) -> None:
    """All nodes."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show
    from orchestrator.cli.rows import nodes

    rows = nodes(Client())
    columns = ("name", "address", "state", "availability", "labels", "cpus", "memory", "tasks", "version")
    show([_cells(row) for row in rows] if shape == "table" else rows, columns, shape)


def _cells(row: NodeRow) -> dict[str, object]:
    """*row* for a table."""
    from orchestrator.cli.output import bytes_text

    used, there = row["reserved"], row["capacity"]
    return {
        **row,
        "cpus": f"{used['cpus']:g}/{there['cpus']:g}",
        "memory": f"{bytes_text(used['memory'])}/{bytes_text(there['memory'])}",
        "state": f"{row['state']}: {row['error']}" if row["error"] else row["state"],
        "labels": [f"{k}={v}" for k, v in row["labels"].items()] + row["taints"],
    }


@node.command()
@click.argument("name")
def inspect(name: str) -> None:
    """Everything about one node, as JSON."""
    import json

    from orchestrator.cli.client import Client

    click.echo(json.dumps(Client().json("GET", f"/v1/nodes/{name}"), indent=2))


@node.command()
@click.argument("name")
@click.argument("wanted", nargs=-1, required=True, metavar="K=V|K-…")
def label(name: str, wanted: tuple[str, ...]) -> None:
    """Set labels; K- removes one. Tasks that are placed stay until the next `up`; those of mode global come at once."""
    from orchestrator.cli.client import Client

    unset = [w[:-1] for w in wanted if w.endswith("-") and "=" not in w]
    body = {"labels": labels(None, None, tuple(w for w in wanted if not w.endswith("-") or "=" in w)), "unset": unset}
    Client().json("PATCH", f"/v1/nodes/{name}", body=body)


@node.command()
@click.argument("name")
@click.option("--address", required=True, metavar="USER@HOST[:PORT]", help="How it is reached over SSH from now on.")
def update(name: str, address: str) -> None:
    """Reach a node that moved at its new address; its containers run on, and the others follow."""
    from orchestrator.cli.client import Client

    row = Client().json("PATCH", f"/v1/nodes/{name}", body={"address": address})
    click.echo(f"{row['name']}: {row['state']} at {row['address']}, {row['underlay']} for the others")


@node.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every node but the server's own, one after the other.")
def upgrade(names: tuple[str, ...], everything: bool) -> None:
    """Exchange the agents of nodes for the server's version, over SSH; no container is touched.

    One after the other: the first that does not come back ends it."""
    from orchestrator.cli.client import Client

    if bool(names) == everything:
        raise click.UsageError("name nodes, or say --all")
    client = Client()
    if everything:
        names = tuple(row["name"] for row in client.json("GET", "/v1/nodes") if row["address"] not in ("", "local"))
    for name in names:
        row = client.json("POST", f"/v1/nodes/{name}/upgrade")
        click.echo(f"{row['name']}: {row['version']}")


@node.command()
@click.argument("name")
@click.argument("wanted", nargs=-1, required=True, metavar="KEY[=VALUE]:EFFECT|KEY-…")
def taint(name: str, wanted: tuple[str, ...]) -> None:
    """Keep tasks off that do not tolerate it: NoSchedule new ones, NoExecute those that are there too. KEY- takes it off."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    body = {"taints": [w for w in wanted if not w.endswith("-")], "untaint": [w[:-1] for w in wanted if w.endswith("-")]}
    consume_events(Client().events(f"/v1/nodes/{name}/taint", repeat=True, body=body), Progress())


@node.command()
@click.argument("name")
def drain(name: str) -> None:
    """Move a node's tasks to others; it takes none until `activate`."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    consume_events(Client().events(f"/v1/nodes/{name}/drain", repeat=True), Progress())


@node.command()
@click.argument("name")
def activate(name: str) -> None:
    """Let a drained or paused node take tasks again."""
    from orchestrator.cli.client import Client

    Client().json("PATCH", f"/v1/nodes/{name}", body={"availability": "active"})


@node.command()
@click.argument("name")
def pause(name: str) -> None:
    """Leave a node what it has, and give it nothing more."""
    from orchestrator.cli.client import Client

    Client().json("PATCH", f"/v1/nodes/{name}", body={"availability": "pause"})


@node.command()
@click.argument("names", nargs=-1, required=True)
def rotate(names: tuple[str, ...]) -> None:
    """Have nodes that joined by a token exchange their keys and certificates now; they do so by themselves in time."""
    from orchestrator.cli.client import Client

    client = Client()
    for name in names:
        client.json("POST", f"/v1/nodes/{name}/rotate")
        click.echo(name)


@node.group()
def token() -> None:
    """What lets machines join by themselves: `pystack agent join`."""


@token.command("create")
@click.option("--name", default="", help="Its name; one is chosen if not given.")
@click.option("--uses", type=click.IntRange(min=1), default=1, show_default=True, help="How many machines may join with it.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="How long it holds.")
@click.option("--label", "wanted", multiple=True, callback=labels, metavar="K=V", help="Of each node that joins with it.")
def create_token(name: str, uses: int, hours: float, wanted: list[tuple[str, str]]) -> None:
    """Create a token, and print TOKEN@SERVER for `pystack agent join`; it is kept nowhere."""
    from orchestrator.cli.client import Client

    body = {"name": name, "uses": uses, "hours": hours, "labels": wanted}
    click.echo(Client(start=True).json("POST", "/v1/node-tokens", body=body)["join"])


@token.command("ls")
@format_option
def list_tokens(shape: str) -> None:
    """The tokens, and which nodes joined with them."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    rows = Client(start=True).json("GET", "/v1/node-tokens")
    if shape == "table":
        rows = [
            {**row, "labels": [f"{k}={v}" for k, v in row["labels"].items()], "state": row["problem"] or "open"} for row in rows
        ]
    show(rows, ("name", "uses", "labels", "expires", "nodes", "state"), shape)


@token.command("rm")
@click.argument("names", nargs=-1, required=True)
def remove_tokens(names: tuple[str, ...]) -> None:
    """Remove tokens: nobody joins with them from now on; nodes that did stay."""
    from orchestrator.cli.client import Client

    client = Client(start=True)
    for name in names:
        client.json("DELETE", f"/v1/node-tokens/{name}")
        click.echo(name)


@node.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Even with tasks on it.")
def rm(names: tuple[str, ...], force: bool) -> None:
    """Let nodes go; what runs there of ours is removed where the node is reached."""
    from orchestrator.cli.client import Client

    client = Client()
    for name in names:
        client.json("DELETE", f"/v1/nodes/{name}", query={"force": int(force)})
        click.echo(name)
