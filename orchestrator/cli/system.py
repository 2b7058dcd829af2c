"""`pystack system …` and `pystack version`"""

from __future__ import annotations

import json

import click

from orchestrator import __version__
from orchestrator.cli.client import Client
from orchestrator.errors import Unreachable


@click.group()
def system() -> None:
    """The server and its node."""


@system.command()
def info() -> None:
    """What the node is, as JSON."""
    click.echo(json.dumps(Client(start=True).engine("GET", "/info"), indent=2))


@system.command()
def shutdown() -> None:
    """End the server; containers run on."""
    Client().json("POST", "/v1/shutdown")


@system.command()
def openapi() -> None:
    """The REST API's OpenAPI document."""
    from orchestrator.server.api import ROUTES
    from orchestrator.server.openapi import document

    click.echo(json.dumps(document(ROUTES), indent=2))


@click.command()
def version() -> None:
    """Versions of the client and of the server."""
    click.echo(f"client {__version__}")
    try:
        found = Client().json("GET", "/v1/version")
        click.echo(f"server {found['version']} on {found['node']}")
    except Unreachable:
        click.echo("server: none answers")
