"""Images of system stacks, which are made here and loaded into the server's node."""

from __future__ import annotations

import click

from orchestrator.cli.client import Client


def load(client: Client, name: str, archive: bytes) -> None:
    """Load *archive*, unless the server's node has an image called *name*."""
    known = {tag for i in client.engine("GET", "/images/json") for tag in i["RepoTags"] or ()}
    if name in known or f"docker.io/{name}" in known:
        return
    for line in client.lines("POST", f"{client.base}/images/load", body=iter([archive])):
        if line.get("stream"):
            click.echo(line["stream"], nl=False, err=True)
