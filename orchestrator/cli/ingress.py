"""`pystack ingress …`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.client import Client
from orchestrator.cli.options import format_option

COLUMNS = ("host", "path", "stack", "service", "port", "tls", "tasks", "expires", "state")
FILE = click.Path(exists=True, dir_okay=False)
PORT = click.IntRange(1, 65535)


@click.group()
def ingress() -> None:
    """The way in: hosts and paths of stacks (x-ingress), answered on the nodes, with certificates."""


@ingress.command("up")
@click.option("--constraint", "constraints", multiple=True, metavar="TEXT", help="Nodes, as in deploy; all if not given.")
@click.option("--http-port", type=PORT, default=80, show_default=True)
@click.option("--https-port", type=PORT, default=443, show_default=True)
@click.option("--issuer", type=click.Choice(["acme", "internal"]), help="Who certifies; acme with --email or --acme.")
@click.option("--email", default="", help="The address that the certificate authority may write to.")
@click.option("--acme", "directory", default="", metavar="URL", help="The ACME directory; Let's Encrypt if not given.")
@click.option("--staging", is_flag=True, help="Let's Encrypt's staging: no limits, not trusted.")
@click.option("--acme-ca", type=FILE, help="PEM of the roots that the ACME server itself is trusted by.")
@click.option("--eab-key-id", default="", help="External account at the authority (RFC 8555): its key's name …")
@click.option("--eab-key", default="", metavar="SECRET", help="… and the secret that has it, in Base64url.")
@click.option("--dns-hook", default="", metavar="PROGRAM", help="Program of the servers: present|cleanup RECORD VALUE.")
@click.option(
    "--challenge",
    type=click.Choice(["http-01", "tls-alpn-01"]),
    default="http-01",
    show_default=True,
    help="How the authority finds that hosts are yours: at port 80, or at 443.",
)
@click.option("--haproxy/--no-haproxy", "gate", help="Debian's HAProxy beside it: rate limits, TCP by the name TLS asks for.")
@click.option("--haproxy-package", type=FILE, help="Its package, where it is neither installed here nor fetched by apt.")
@click.option("--count-requests/--no-count-requests", help="Metrics of requests by host and status; costs each some time.")
@click.option("--reset", is_flag=True, help="Options that are not given are as at first; without it they stay as they are.")
@click.option("--package", type=FILE, help="Debian's caddy, where it is neither installed here nor fetched by apt.")
def up(
    constraints: tuple[str, ...],
    http_port: int,
    https_port: int,
    issuer: str | None,
    email: str,
    directory: str,
    staging: bool,
    acme_ca: str | None,
    eab_key_id: str,
    eab_key: str,
    dns_hook: str,
    challenge: str,
    gate: bool,
    haproxy_package: str | None,
    count_requests: bool,
    reset: bool,
    package: str | None,
) -> None:
    """Run a proxy on the nodes, or change how they run. Its image is made here, of Debian's package."""
    from orchestrator.cli.output import Progress, consume_events
    from orchestrator.cli.system_image import load
    from orchestrator.ingress import haproxy
    from orchestrator.ingress.caddy import EMPTY
    from orchestrator.ingress.model import LETS_ENCRYPT, LETS_ENCRYPT_STAGING
    from orchestrator.ingress.package import gate_image, image

    if bool(eab_key_id) != bool(eab_key):
        raise click.UsageError("--eab-key-id and --eab-key belong together")
    if staging and directory:
        raise click.UsageError("--staging is a directory of its own: leave --acme out")
    client = Client(start=True)
    name, version, archive = image(EMPTY, package or "")
    load(client, name, archive)
    gate_name = ""
    if gate or haproxy_package:
        gate_name, archive = gate_image(haproxy.START, haproxy_package or "")
        load(client, gate_name, archive)
    settings = {
        "image": name,
        "version": version,
        "constraints": constraints,
        "http_port": http_port,
        "https_port": https_port,
        "issuer": issuer or ("acme" if email or directory or staging else "internal"),
        "email": email,
        "directory": directory or (LETS_ENCRYPT_STAGING if staging else LETS_ENCRYPT),
        "trusted": Path(acme_ca).read_text() if acme_ca else "",
        "eab_key_id": eab_key_id,
        "eab_key": eab_key,
        "dns_hook": dns_hook,
        "challenge": challenge,
        "gate": gate_name,
        "count_requests": count_requests,
    }
    kept = [] if reset else _not_given()
    consume_events(client.events(f"/v1/ingress?keep={','.join(kept)}", body=settings), Progress())


ISSUERS = ("issuer", "email", "directory", "trusted")
"""Settings that belong together: who gives one of them gives all."""


def _not_given() -> list[str]:
    """The settings of which the command line says nothing."""
    from click.core import ParameterSource

    context = click.get_current_context()

    def given(name: str) -> bool:
        return context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)

    alone = ("constraints", "http_port", "https_port", "eab_key_id", "eab_key", "dns_hook", "challenge", "count_requests")
    kept = [name for name in alone if not given(name)]
    if not any(map(given, ("issuer", "email", "directory", "staging", "acme_ca"))):
        kept += ISSUERS
    return kept if given("gate") or given("haproxy_package") else [*kept, "gate"]


def _overview() -> dict[str, Any]:
    found: dict[str, Any] = Client(start=True).json("GET", "/v1/ingress")
    return found


@ingress.command("ls")
@format_option
def ls(shape: str) -> None:
    """Hosts and paths that are answered, and what is wrong with them."""
    from orchestrator.cli.output import show

    show(_overview()["routes"], COLUMNS, shape)


@ingress.command("inspect")
def inspect() -> None:
    """Everything about the ingress, as JSON: settings, proxies, routes."""
    click.echo(json.dumps(_overview(), indent=2))


@ingress.command("ca")
def ca() -> None:
    """Print the certificate of the cluster's own authority, for clients to trust."""
    click.echo(Client(start=True).json("GET", "/v1/ingress/ca")["certificate"], nl=False)


@ingress.command("rm")
def rm() -> None:
    """Stop the proxies; certificates are kept."""
    from orchestrator.cli.output import Progress, consume_events

    client = Client(start=True)
    consume_events(client.events("/v1/ingress/down", body={}), Progress())
