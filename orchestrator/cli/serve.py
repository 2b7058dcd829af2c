"""`pystack server`"""

from __future__ import annotations

import click

from orchestrator.cli import servers


@click.group(invoke_without_command=True)
@click.option("--store", envvar="PYSTACK_STORE", default="", metavar="URL", help="etcd://a,b,c/prefix; SQLite without it.")
@click.option("--ca", envvar="PYSTACK_STORE_CA", default="", help="PEM file of the CA of etcd's certificates.")
@click.option("--cert", envvar="PYSTACK_STORE_CERT", default="", help="PEM file of this server's certificate for etcd.")
@click.option("--key", envvar="PYSTACK_STORE_KEY", default="", help="PEM file of its key.")
@click.option(
    "--advertise",
    envvar="PYSTACK_ADVERTISE",
    default="",
    metavar="USER@HOST[:PORT]",
    help="How the other servers reach this host over SSH.",
)
@click.option(
    "--listen",
    envvar="PYSTACK_LISTEN",
    default="",
    metavar="tcp://ADDRESS[:PORT]",
    help="Answer there too, over TLS, to those with a certificate of the CA in PYSTACK_CERT_PATH.",
)
@click.option(
    "--web",
    envvar="PYSTACK_WEB",
    default="",
    metavar="https://ADDRESS[:PORT]",
    help="Answer there, over TLS, to those who show a token or sign in: the API, and the page at /ui.",
)
@click.option(
    "--listen-nodes",
    envvar="PYSTACK_LISTEN_NODES",
    default="",
    metavar="tcp://ADDRESS[:PORT]",
    help="Let machines dial there, over TLS, that join by a token (`pystack node token`); port 2377.",
)
@click.option(
    "--docker-socket",
    envvar="PYSTACK_DOCKER_SOCKET",
    default="",
    metavar="PATH",
    help="Where Docker's API is answered, if not beside the control socket.",
)
@click.pass_context
def server(
    context: click.Context,
    store: str,
    ca: str,
    cert: str,
    key: str,
    advertise: str,
    listen: str,
    web: str,
    listen_nodes: str,
    docker_socket: str,
) -> None:
    """Run the server in the foreground: control plane and this host's agent in one process.

    With --store, several servers share a cluster: one leads, the others wait to take over. --listen is TLS with certificates on
    both sides: ca.pem, cert.pem and key.pem in the folder PYSTACK_CERT_PATH, ~/.pystack by default; --web needs cert.pem and
    key.pem of it.

    With a command: several servers on an etcd that pystack manages itself, each on its own host."""
    if context.invoked_subcommand:
        return
    import os

    from orchestrator.cli.starting import require_runtime_folder, require_server_parts

    require_server_parts()
    require_runtime_folder()
    from orchestrator.embedded import main

    words = {
        "PYSTACK_STORE": store,
        "PYSTACK_STORE_CA": ca,
        "PYSTACK_STORE_CERT": cert,
        "PYSTACK_STORE_KEY": key,
        "PYSTACK_ADVERTISE": advertise,
        "PYSTACK_LISTEN": listen,
        "PYSTACK_WEB": web,
        "PYSTACK_LISTEN_NODES": listen_nodes,
        "PYSTACK_DOCKER_SOCKET": docker_socket,
    }
    os.environ.update({k: v for k, v in words.items() if v})
    main()


for command in (servers.init, servers.join, servers.ls, servers.rm):
    server.add_command(command)


@click.group(invoke_without_command=True)
@click.pass_context
def agent(context: click.Context) -> None:
    """Run this host's agent alone in the foreground, for a server somewhere else."""
    if context.invoked_subcommand is None:
        _run_agent()


@agent.command()
@click.option("--name", default="", help="Its name; else its host name.")
@click.option("--underlay", default="", help="The address under which the other nodes reach it.")
@click.argument("invitation", metavar="TOKEN@SERVER|FILE|-")
def join(name: str, underlay: str, invitation: str) -> None:
    """Make this machine a node, by a token of `pystack node token create`; a file that has it, or - for standard input.

    The machine dials the server and keeps the connection: no server has to reach it. Where no agent runs, this is it from then
    on, in the foreground."""
    _run_agent("join", "--name", name, "--underlay", underlay, "--", invitation)


def _run_agent(*arguments: str) -> None:
    import runpy
    import sys

    sys.argv = ["agent", *arguments]
    runpy.run_module("agent", run_name="__main__")
