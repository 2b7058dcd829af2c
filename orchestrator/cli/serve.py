"""`pystack server`"""

from __future__ import annotations

import click


@click.command()
def server() -> None:
    """Run the server in the foreground: control plane and this host's agent in one process."""
    from orchestrator.server.embedded import main

    main()
