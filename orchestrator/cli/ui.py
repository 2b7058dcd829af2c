"""`pystack ui`"""

from __future__ import annotations

import click


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port of 127.0.0.1; a free one if not given.")
@click.option("--no-open", is_flag=True, help="Print the address, and open no browser.")
def ui(port: int, no_open: bool) -> None:
    """The page of the cluster, in a browser: at an address of this machine alone, for as long as this runs.

    The address that is printed signs in once, within two minutes, as the user of the socket; others sign in with a name
    and a password. Wherever PYSTACK_HOST leads, the page comes from there."""
    import socket
    import sys
    import threading

    from orchestrator.cli.client import Client
    from orchestrator.errors import PystackError

    client = Client(start=True)
    code = client.json("POST", "/v1/session/link", body={})["code"]
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise PystackError(f"127.0.0.1:{port}: {error.strerror}: choose another --port") from None
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/ui/"
    click.echo(f"{address}#code={code}")
    print("ctrl-C ends it", file=sys.stderr)
    if not no_open and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(f"{address}#code={code}")
    while True:
        near, _ = listening.accept()
        threading.Thread(target=_carry, args=(Client(), near), daemon=True).start()


def _carry(client: object, near: object) -> None:
    import contextlib
    import socket
    import sys
    import threading

    from orchestrator.cli.client import Client
    from orchestrator.errors import PystackError

    assert isinstance(client, Client)
    assert isinstance(near, socket.socket)
    try:
        far = client.hijack("/v1/session/connection", {})
    except PystackError as error:
        print(f"pystack: {error}", file=sys.stderr)
        near.close()
        return

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    outward = threading.Thread(target=copy, args=(near, far), daemon=True)
    outward.start()
    copy(far, near)
    outward.join()
    near.close()
    far.close()
