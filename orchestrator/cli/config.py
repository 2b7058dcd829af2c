"""`pystack config`"""

from __future__ import annotations

import hashlib
import json

import click

from orchestrator.cli.options import StackOptions, stack_options


@click.command()
@stack_options
@click.option("--format", "shape", type=click.Choice(["yaml", "json"]), default="yaml")
@click.option("--services", is_flag=True, help="Names of services, one a line.")
@click.option("--volumes", is_flag=True, help="Names of volumes, one a line.")
@click.option("--images", is_flag=True, help="Names of images, one a line.")
@click.option("--hash", "hashed", is_flag=True, help="Each service with a hash of what it says.")
@click.option("--no-interpolate", is_flag=True, help="Leave variables as they are.")
@click.option("--no-consistency", is_flag=True, help="Check only the form, not what refers to what.")
@click.option("-q", "--quiet", is_flag=True, help="Only check.")
@click.option("--strict", is_flag=True, help="Refuse keys that have no effect.")
def config(
    stack: StackOptions, shape: str, services: bool, volumes: bool, images: bool, hashed: bool, no_interpolate: bool,
    no_consistency: bool, quiet: bool, strict: bool,
) -> None:
    """Show the stack file in its normal form: merged, variables put in, every key written out."""
    loaded = stack.load(strict=strict, interpolate=not no_interpolate, consistency=not no_consistency)
    if quiet:
        return
    if services:
        click.echo("\n".join(s.name for s in loaded.stack.services))
    elif volumes:
        click.echo("\n".join(v.key for v in loaded.stack.volumes))
    elif images:
        click.echo("\n".join(dict.fromkeys(s.container.image for s in loaded.stack.services)))
    elif hashed:
        for name, body in loaded.document.get("services", {}).items():
            raw = json.dumps(body, sort_keys=True, default=str).encode()
            click.echo(f"{name} {hashlib.sha256(raw).hexdigest()}")
    else:
        document = {"name": loaded.stack.name, **{k: v for k, v in loaded.document.items() if k != "name"}}
        if not (no_interpolate or no_consistency):
            from orchestrator.stackfile.normal import normal

            document = normal(loaded)
        if shape == "json":
            click.echo(json.dumps(document, default=str, indent=2))
        else:
            import yaml

            click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
