"""`pystack port-forward`"""

from __future__ import annotations

import contextlib
import socket
import threading

import click

from orchestrator.cli.client import Client
from orchestrator.cli.options import StackOptions, stack_options
from orchestrator.errors import PystackError


@click.command("port-forward")
@stack_options
@click.option("--index", default=1, help="Which replica.")
@click.option("--address", default="127.0.0.1", help="Where to listen here.")
@click.argument("service")
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]PORT…")
def port_forward(stack: StackOptions, index: int, address: str, service: str, ports: tuple[str, ...]) -> None:
    """Make ports of a task answer here, published or not, whichever node it is on; until interrupted."""
    from orchestrator.cli.selection import only

    client = Client()
    row = only(client, stack, service, index)
    listeners = []
    for text in ports:
        local, _, inside = text.rpartition(":")
        if not inside.isdecimal() or (local and not local.isdecimal()):
            raise click.UsageError(f"{text!r}: write LOCAL:PORT or PORT")
        try:
            listener = socket.create_server((address, int(local or inside)))
        except OSError as error:
            reason = f"port {local or inside} on {address}: {error.strerror}"
            raise PystackError(f"{reason}: choose another, LOCAL:{inside}") from None
        click.echo(f"{address}:{listener.getsockname()[1]} → {row['task']}:{inside}")
        listeners.append((listener, int(inside)))
    at = client.at(row["node"])
    threads = [
        threading.Thread(target=_accept, args=(listener, at, row["id"], port), daemon=True) for listener, port in listeners
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _accept(listener: socket.socket, client: Client, container: str, port: int) -> None:
    while True:
        near, _ = listener.accept()
        threading.Thread(target=_relay, args=(near, client, container, port), daemon=True).start()


def _relay(near: socket.socket, client: Client, container: str, port: int) -> None:
    with near:
        try:
            far = client.hijack(f"{client.base}/pystack/containers/{container}/dial?port={port}", {})
        except PystackError as error:
            click.echo(f"port {port}: {error}", err=True)
            return
        with far:
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
