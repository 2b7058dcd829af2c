"""`pystack graph`"""

from __future__ import annotations

import click

from orchestrator.cli.options import StackOptions, stack_options
from orchestrator.errors import PystackError


@click.command()
@stack_options
@click.option(
    "--format", "shape", type=click.Choice(["mermaid", "dot", "svg"]), default="mermaid", help="The drawing's language."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, writable=True), help="A file; .svg, .dot and .mmd say the language."
)
@click.option("--nodes/--no-nodes", default=False, help="The nodes too on which tasks run now.")
def graph(stack: StackOptions, shape: str, output: str | None, nodes: bool) -> None:
    """Draw the stack: services, what they depend on, networks, volumes, published ports, and nodes."""
    from pathlib import Path

    from orchestrator.cli.drawing import WRITERS, drawing_of

    loaded = stack.load(quiet=True)
    where: dict[str, list[str]] = {}
    if nodes:
        where = _placed(loaded.stack.name)
    if output:
        shape = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid"}.get(Path(output).suffix, shape)
    text = "\n".join(WRITERS[shape](drawing_of(loaded.stack, where))) + "\n"
    if output:
        Path(output).write_text(text)
    else:
        click.echo(text, nl=False)


def _placed(name: str) -> dict[str, list[str]]:
    """The nodes of each service. Raises PystackError where nothing of the stack runs."""
    from orchestrator.cli.client import Client

    rows = Client().json("GET", f"/v1/stacks/{name}/tasks")
    if not rows:
        raise PystackError(f"nothing of {name} runs: `pystack up` first, or leave --nodes away")
    out: dict[str, list[str]] = {}
    for row in rows:
        if row["node"] and row["node"] not in out.setdefault(row["service"], []):
            out[row["service"]].append(row["node"])
    return out
