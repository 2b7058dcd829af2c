"""`pystack compose config`: the project as `docker compose config` prints it, form and order included.

Source: docs.docker.com/reference/cli/docker/compose/config; the order of keys and the quotes are those that scripts see there.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.config import config as own
from orchestrator.cli.config import lines_of, narrowed, pin_images, variables_named
from orchestrator.cli.options import StackOptions, global_option, stack_options
from orchestrator.cli.output import table

if TYPE_CHECKING:
    from orchestrator.stackfile.interpolate import NamedVariable

LISTS = (
    "services",
    "images",
    "profiles",
    "environment",
    "hashed",
    "lock_image_digests",
)
"""Options that ask for something else than the project; pystack's own command answers them."""
FIRST = ("name", "services", "networks", "volumes", "secrets", "configs", "models")
ALWAYS = ("placement", "resources")
"""What a service's `deploy` has in JSON, though it says nothing."""
PORT = ("name", "mode", "host_ip", "target", "published", "protocol", "app_protocol")
MOUNT = ("type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs", "image")


def made() -> click.Command:
    """The command."""

    def run(stack: StackOptions, only: tuple[str, ...], filters: tuple[str, ...], **given: Any) -> None:
        if filters:
            if not given["services"]:
                raise click.UsageError("--filter goes with --services")
            return lines_of(_matching(stack, filters))
        if names := next((section for section in ("volumes", "networks", "models") if given[section]), ""):
            return lines_of(_document(stack, only, given).get(names) or ())
        if given["variables"]:
            return _variables(variables_named(stack, only), given["shape"])
        if given["quiet"] or any(given[name] for name in LISTS):
            assert own.callback
            return inspect.unwrap(own.callback)(stack, only=only, **given)  # type: ignore[no-any-return]
        text = rendered(_document(stack, only, given), given["shape"])
        if given["output"]:
            Path(given["output"]).write_text(text)
        else:
            click.echo(text, nl=False)

    form = click.Option(["--format", "shape"], type=click.Choice(["", "yaml", "json"]), default="")  # "": the verb's own
    criteria = click.Option(["--filter", "filters"], multiple=True, metavar="profile=NAME|label=KEY[=VALUE]")
    kept = [p for p in own.params if p.name != "shape"]
    return click.Command("config", callback=stack_options(run), params=[*kept, form, criteria], help=own.help)


def _matching(stack: StackOptions, filters: tuple[str, ...]) -> list[str]:
    """The services that all *filters* let through. Raises UsageError."""
    loaded = stack.load()
    found = loaded.document.get("services", {})
    active = {service.name: dict(service.container.labels) for service in loaded.services}
    for text in filters:
        kind, equals, value = text.partition("=")
        if not equals or kind not in ("profile", "label"):
            raise click.UsageError(f"--filter {text}: write profile=NAME or label=KEY[=VALUE]")
        key, exact, wanted = value.partition("=")
        if kind == "profile":
            active = {name: labels for name, labels in active.items() if value in (found[name].get("profiles") or ())}
        else:
            active = {name: labels for name, labels in active.items() if key in labels and (not exact or labels[key] == wanted)}
    return list(active)


def _variables(found: Iterable[NamedVariable], shape: str) -> None:
    """Variables that the file names, with the keys and heads of Docker Compose."""
    import yaml

    found = sorted(found, key=lambda v: v.name)
    rows = {
        v.name: {"Name": v.name, "DefaultValue": v.default, "PresenceValue": v.alternate, "Required": v.required} for v in found
    }
    if shape == "json":
        click.echo(json.dumps(rows, indent=4, ensure_ascii=False))
    elif shape == "yaml":
        document = {name: {key.lower(): value for key, value in row.items()} for name, row in rows.items()}
        click.echo(yaml.safe_dump(document, indent=4, sort_keys=False), nl=False)
    else:
        heads = {"NAME": "Name", "REQUIRED": "Required", "DEFAULT VALUE": "DefaultValue", "ALTERNATE VALUE": "PresenceValue"}
        shown = [
            {head: str(row[key]).lower() if key == "Required" else row[key] for head, key in heads.items()}
            for row in rows.values()
        ]
        table(shown, list(heads))


def _document(stack: StackOptions, only: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """What is printed, by the options of `config` that were *given*."""
    from orchestrator.stackfile.canonical import Shape, canonicalize
    from orchestrator.stackfile.outline import outline

    interpolate, implied, paths = (not given[f"no_{n}"] for n in ("interpolate", "normalize", "path_resolution"))
    loaded = stack.load(interpolate=interpolate, consistency=not given["no_consistency"], named=only)
    if interpolate:
        form = Shape(implied=implied, paths=paths, env_files=not given["no_env_resolution"], targets=True)
        document = canonicalize(loaded, form)
    else:
        document = outline(loaded, implied=implied, paths=paths)
    document = narrowed(document, loaded, only)
    if interpolate and not global_option("all_resources"):
        document = used(document)
    if given["resolve_image_digests"]:
        pin_images(document)
    return document


def used(document: dict[str, Any]) -> dict[str, Any]:
    """*document* without networks, volumes, configs, secrets and models that none of its services has."""
    services = document.get("services", {}).values()
    wanted: dict[str, set[str]] = {
        "networks": {n for s in services for n in s.get("networks") or ()},
        "volumes": {str(v.get("source")) for s in services for v in s.get("volumes") or () if v.get("type") == "volume"},
        "configs": {str(c["source"]) for s in services for c in s.get("configs") or ()},
        "secrets": {str(c["source"]) for s in services for c in (*(s.get("secrets") or ()), *_of_build(s))},
        "models": {m for s in services for m in s.get("models") or ()},
    }
    out = dict(document)
    for section, names in wanted.items():
        if section in out:
            out[section] = {k: v for k, v in out[section].items() if k in names}
            if not out[section]:
                del out[section]
    return out


def _of_build(service: dict[str, Any]) -> Iterable[dict[str, Any]]:
    build = service.get("build")
    return (build.get("secrets") or ()) if isinstance(build, dict) else ()


def rendered(document: dict[str, Any], shape: str) -> str:
    """*document* as YAML or JSON, its keys in Docker Compose's order."""
    ordered = {k: document[k] for k in (*FIRST, *(k for k in document if k not in FIRST)) if k in document}
    ordered["services"] = {name: _service(body) for name, body in ordered.get("services", {}).items()}
    if shape == "json":
        return json.dumps(_with_nulls(ordered), default=str, indent=2, ensure_ascii=False) + "\n"
    return _yaml(ordered)


def _service(body: dict[str, Any]) -> dict[str, Any]:
    out = {k: body[k] for k in ("profiles", *(k for k in body if k != "profiles")) if k in body}
    for key, order in (("ports", PORT), ("volumes", MOUNT)):
        if isinstance(out.get(key), list):
            out[key] = [_in_order(item, order) for item in out[key]]
    for key in ("configs", "secrets"):
        if isinstance(out.get(key), list):
            out[key] = [_with_octal_mode(item) for item in out[key]]
    if isinstance(out.get("extra_hosts"), list):
        out["extra_hosts"] = sorted(out["extra_hosts"])
    if isinstance(out.get("build"), dict):
        out["build"] = _build(out["build"])
    return out


def _build(body: dict[str, Any]) -> dict[str, Any]:
    out = dict(body)
    if isinstance(out.get("secrets"), list):
        out["secrets"] = [_with_octal_mode(item) for item in out["secrets"]]
    if isinstance(out.get("extra_hosts"), list):
        out["extra_hosts"] = sorted(out["extra_hosts"])
    return out


def _with_octal_mode(item: Any) -> Any:
    """Permission bits are octal digits in a text."""
    mode = item.get("mode") if isinstance(item, dict) else None
    return {**item, "mode": f"0{mode:o}"} if isinstance(mode, int) else item


def _in_order(item: Any, order: tuple[str, ...]) -> Any:
    if not isinstance(item, dict):
        return item
    return {k: item[k] for k in (*order, *(k for k in item if k not in order)) if k in item}


def _with_nulls(document: dict[str, Any]) -> dict[str, Any]:
    """What JSON always has there, though it says nothing."""
    services = {n: {**{"command": None, "entrypoint": None}, **body} for n, body in document["services"].items()}
    for name, body in services.items():
        if isinstance(body.get("deploy"), dict):
            services[name] = {**body, "deploy": {**body["deploy"], **{k: body["deploy"].get(k) or {} for k in ALWAYS}}}
    out = {**document, "services": services}
    if "networks" in out:
        out["networks"] = {n: {**body, "ipam": body.get("ipam") or {}} for n, body in out["networks"].items()}
    return out


def _yaml(document: dict[str, Any]) -> str:
    """YAML with lists set in, text that looks like something else in double quotes, and lines that are never folded."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            """Set lists in below their key."""
            del indentless
            super().increase_indent(flow, False)

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        plain = dumper.resolve(yaml.ScalarNode, value, (True, False)) == "tag:yaml.org,2002:str"  # type: ignore[no-untyped-call]
        style = "|" if "\n" in value else None if plain else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1 << 30))
