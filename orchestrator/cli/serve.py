"""`pystack server`"""

from __future__ import annotations

import click


@click.command()
def server() -> None:
    """Run the server in the foreground: control plane and this host's agent in one process."""
    from orchestrator.server.embedded import main

    main()


@click.command()
def agent() -> None:
    """Run this host's agent alone in the foreground, for a server somewhere else."""
    import runpy

    runpy.run_module("agent", run_name="__main__")
