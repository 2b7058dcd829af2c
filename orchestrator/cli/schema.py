"""`pystack schema`"""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--table", is_flag=True, help="Every key and what becomes of it, as Markdown.")
def schema(table: bool) -> None:
    """Print the JSON Schema of stack files, for editors."""
    from orchestrator.cli.compose.reference import table as verbs
    from orchestrator.stackfile.keys import markdown
    from orchestrator.stackfile.schema import document

    click.echo(markdown() + verbs() if table else json.dumps(document(), indent=2), nl=not table)
