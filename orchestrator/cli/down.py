"""`pystack down`"""

from __future__ import annotations

import click

from orchestrator.cli.options import StackOptions, stack_options


@click.command()
@stack_options
@click.option("-v", "--volumes", is_flag=True, help="Remove the stack's volumes, with their data.")
@click.option("--rmi", type=click.Choice(["all", "local"]), help="Remove images: all, or those that were built.")
@click.option("--progress", type=click.Choice(["auto", "plain", "json", "quiet"]), default="auto")
def down(stack: StackOptions, volumes: bool, rmi: str | None, progress: str) -> None:
    """Stop and remove the stack, in reverse order. Volumes stay unless -v is given."""
    from orchestrator.cli.client import Client, name_in_path
    from orchestrator.cli.output import Progress
    from orchestrator.errors import Refused

    client = Client(start=True)
    name = stack.name()
    shown = Progress(progress)
    images: list[str] = []
    if rmi:
        try:
            services = client.json("GET", f"/v1/stacks/{name}")["stack"].get("services", [])
        except Refused:
            services = []
        images = [s["container"]["image"] for s in services if rmi == "all" or "build" in s]
    for event in client.lines("POST", f"/v1/stacks/{name}/down", body={"volumes": volumes}):
        shown.event(event)
    for image in dict.fromkeys(images):
        try:
            client.json("DELETE", f"{client.base}/images/{name_in_path(image)}")
            click.echo(f"remove image {image}", err=True)
        except Refused as error:
            click.echo(f"image {image} stays: {error}", err=True)
