"""The verbs whose options, output or behaviour under `pystack compose` are others than pystack's own.

Source: docs.docker.com/reference/cli/docker/compose; keys of JSON as Docker Compose prints them, one object a line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import click

from agent.contract.ages import human_duration
from agent.contract.project_labels import COMPOSE
from orchestrator import __version__
from orchestrator.cli.options import StackOptions, Timestamp, global_option, is_set, stack_options
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.server.api.stacks import TaskRow

Row = dict[str, Any]


def version_words() -> str:
    """The version line, in the form of `docker compose version`: scripts read it."""
    return f"Docker Compose version v{COMPOSE} (pystack {__version__})"


def _json(value: Any) -> str:
    """*value* on one line, as programs in Go write it: scripts look for parts of it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def printed(rows: list[Row], shape: str, columns: dict[str, str]) -> None:
    """*rows* as a table of *columns* (head → key), as JSON, or by a template. Raises UsageError."""
    from orchestrator.cli.output import show, table

    if shape == "json":
        for row in rows:
            click.echo(_json(row))
    elif shape in ("", "table", "pretty"):
        table([{head: row[key] for head, key in columns.items()} for row in rows], list(columns))
    else:
        show(rows, (), shape)


# --- up ------------------------------------------------------------------------------------------------------------------


def _up() -> click.Command:
    from orchestrator.cli.attach_options import Attach
    from orchestrator.cli.compose_progress import say
    from orchestrator.cli.up import bring_up
    from orchestrator.cli.up import up as own

    def run(
        stack: StackOptions,
        services: tuple[str, ...],
        detach: bool,
        attach: tuple[str, ...],
        attach_dependencies: bool,
        on_exit: bool,
        on_failure: bool,
        exit_code_from: str,
        no_attach: tuple[str, ...],
        wait: bool,
        wait_timeout: float | None,
        timeout: float | None,
        menu: bool | None,
        **given: Any,
    ) -> None:
        ends = "any" if on_exit or exit_code_from else "failure" if on_failure else "all"
        away = detach or wait or given["no_start"]
        if detach and (ends != "all" or attach or attach_dependencies or given["watch"]):
            raise click.UsageError("--detach cannot be combined with what is for an attached `up`")
        style = {"prefix": not given.pop("no_log_prefix"), "colour": not given.pop("no_color")}
        style["timestamps"] = given.pop("timestamps")
        keys = is_set("COMPOSE_MENU") if menu is None else menu
        attached = None if away else Attach(ends, exit_code_from, attach, no_attach, style, timeout, given["watch"], keys)
        alone = bool(given["no_deps"])
        before = _running(stack, services, alone=alone) if away else {}
        bring_up(
            stack,
            services,
            attached,
            dependencies=attach_dependencies,
            wait=wait,
            begun=not wait,
            timeout=wait_timeout,
            message="",
            strict=False,
            dry_run=False,
            progress="auto",
            **given,
        )
        for name, began in (_running(stack, services, alone=alone) if before and not global_option("dry_run") else {}).items():
            if before.get(name) == began:
                say("Container", name, "Running")

    others = ("menu", "attach", "wait", "timeout", "message", "strict", "progress", "dry_run")
    kept = [p for p in own.params if p.name not in others]
    more = [
        click.Option(["--attach"], multiple=True, metavar="SERVICE"),
        click.Option(["--wait"], is_flag=True),
        click.Option(["--wait-timeout"], type=float),
        click.Option(["-t", "--timeout"], type=float),
        click.Option(["--menu/--no-menu"], default=None),
    ]
    return click.Command("up", callback=stack_options(run), params=[*kept, *more], help=own.help)


def _running(stack: StackOptions, services: tuple[str, ...], *, alone: bool) -> dict[str, tuple[str, str]]:
    """The containers of *services*, or of all, and unless *alone* of those that they need, that run: ID and since when, by
    name."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.rows import tasks
    from orchestrator.stackfile.graph import needed

    client = Client(start=True)
    rows = [row for row in tasks(client, stack.name()) if row["state"] == "running"]
    wanted: Collection[str] = services
    if services and rows and not alone:
        wanted = needed(stack.load(quiet=True, named=services).stack.services, services)
    running = (row for row in rows if not services or row["service"] in wanted)
    return {row["container_name"]: (row["id"], row["started"]) for row in running}


# --- looking -------------------------------------------------------------------------------------------------------------


def _publishers(ports: list[str]) -> list[Row]:
    out = []
    for text in ports:
        outside, _, inside = text.partition("->")
        host, _, published = outside.rpartition(":")
        target, _, protocol = inside.partition("/")
        out.append(
            {
                "URL": "0.0.0.0" if host == "*" else host,
                "TargetPort": int(target),
                "PublishedPort": int(published),
                "Protocol": protocol,
            }
        )
    return out


STATES = {
    "failed": "exited",
    "stopping": "running",
    "starting": "created",
    "pulling": "created",
    "pending": "created",
    "waiting": "created",
    "unknown": "dead",
}


SHOWN = 20
"""So many characters of a command are shown, if not all are asked for."""


def _local_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def container_row(client: Client, row: TaskRow, *, whole: bool = False) -> Row:
    """A task in the words of `docker compose ps --format json`; *whole*: nothing is cut short."""
    seen: Row = {}
    if row["id"] and row["state"] != "unknown":
        filters = json.dumps({"id": [row["id"]]})
        found = client.at(row["node"]).engine("GET", "/containers/json", query={"all": 1, "filters": filters})
        seen = found[0] if found else {}
    labels = seen.get("Labels", {})
    command = seen.get("Command", "")
    began = int(seen.get("Created", 0))
    ports = row["ports"] if row["state"] in ("running", "paused", "restarting", "stopping") else []
    name = seen.get("Names", [f"/{row['task']}"])[0].lstrip("/")
    return {
        "Command": json.dumps(command if whole or len(command) <= SHOWN else command[: SHOWN - 1] + "…", ensure_ascii=False),
        "CreatedAt": _local_time(began) if began else "",
        "ExitCode": row["exit_code"] or 0,
        "Health": row["health"],
        "ID": row["id"][:12],
        "Image": row["image"],
        "Labels": ",".join(f"{k}={v}" for k, v in sorted(labels.items())),
        "LocalVolumes": str(sum(m.get("Driver") == "local" for m in seen.get("Mounts", []))),
        "Mounts": ",".join(m.get("Name") or m.get("Source", "") for m in seen.get("Mounts", [])),
        "Name": name,
        "Names": name,
        "Networks": ",".join(row["addresses"]),
        "Ports": ", ".join(ports),
        "Project": row["stack"],
        "Publishers": _publishers(ports),
        "RunningFor": f"{human_duration(time.time() - began)} ago" if began else "",
        "Service": row["service"],
        "Size": "0B",
        "State": STATES.get(row["state"], row["state"]),
        "Status": seen.get("Status", row["state"]),
    }


@click.command()
@stack_options
@click.option("-a", "--all", "everything", is_flag=True, help="Those that do not run, and those of `run`, too.")
@click.option("--filter", "filters", multiple=True, metavar="status=STATE")
@click.option("--format", "shape", default="", help="table, json, or a Go template.")
@click.option("--no-trunc", is_flag=True)
@click.option("--orphans/--no-orphans", default=True)
@click.option("-q", "--quiet", is_flag=True, help="Only container IDs.")
@click.option("--services", "names", is_flag=True, help="Only names of services.")
@click.option("--status", multiple=True, metavar="STATE")
@click.argument("services", nargs=-1)
def ps(
    stack: StackOptions,
    everything: bool,
    filters: tuple[str, ...],
    shape: str,
    no_trunc: bool,
    orphans: bool,
    quiet: bool,
    names: bool,
    status: tuple[str, ...],
    services: tuple[str, ...],
) -> None:
    """The containers of the project."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.filters import states_of
    from orchestrator.cli.rows import tasks

    client, name, wanted = Client(start=True), stack.name(), status + states_of(filters)
    rows = tasks(client, name, oneoff=everything)
    stack.check_services(tuple(set(services) - {row["service"] for row in rows}))
    if not orphans:
        loaded = stack.load(quiet=True)
        mine = {*(s.name for s in loaded.stack.services), *loaded.left_out}
        rows = [row for row in rows if row["service"] in mine]
    rows = [row for row in rows if row["id"] and (not services or row["service"] in services)]
    shown = sorted((container_row(client, row, whole=no_trunc) for row in rows), key=lambda row: str(row["Name"]))
    if wanted:
        shown = [row for row in shown if row["State"] in wanted]
    elif not everything:
        shown = [row for row in shown if row["State"] in ("running", "paused", "restarting")]
    if quiet or names:
        full = {row["id"][:12]: row["id"] for row in rows}
        for word in dict.fromkeys(row["Service"] if names else full[row["ID"]] for row in shown):
            click.echo(word)
        return
    printed(
        shown,
        shape or _form_of_ps(),
        {
            "NAME": "Name",
            "IMAGE": "Image",
            "COMMAND": "Command",
            "SERVICE": "Service",
            "CREATED": "RunningFor",
            "STATUS": "Status",
            "PORTS": "Ports",
        },
    )


def _form_of_ps() -> str:
    """The `psFormat` of the docker command's own configuration, "" without. Source: docs.docker.com/reference/cli/docker."""
    import os
    from pathlib import Path

    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    return str(found.get("psFormat", "")) if isinstance(found, dict) else ""


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Those of which nothing runs too.")
@click.option("--filter", "filters", multiple=True, metavar="name=PART")
@click.option("--format", "shape", default="table")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
def ls(everything: bool, filters: tuple[str, ...], shape: str, quiet: bool) -> None:
    """The projects that run."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.filters import name_parts_of
    from orchestrator.cli.rows import stacks, tasks

    parts = name_parts_of(filters)
    client, rows = Client(start=True), []
    files = _config_files(client)
    for one in stacks(client):
        states: dict[str, int] = {}
        for task in (row for row in tasks(client, one["stack"]) if row["id"]):
            word = STATES.get(task["state"], task["state"])
            states[word] = states.get(word, 0) + 1
        if (states if everything else states.get("running")) and all(part in one["stack"] for part in parts):
            status = ", ".join(f"{state}({count})" for state, count in sorted(states.items()))
            rows.append({"Name": one["stack"], "Status": status, "ConfigFiles": files.get(one["stack"], "")})
    if quiet:
        for row in rows:
            click.echo(row["Name"])
    elif shape == "json":
        click.echo(_json(rows))
    else:
        printed(rows, shape, {"NAME": "Name", "STATUS": "Status", "CONFIG FILES": "ConfigFiles"})


def _config_files(client: Client) -> dict[str, str]:
    """The files of each project, as its containers' labels have them."""
    from orchestrator.cli.rows import ready_nodes

    out: dict[str, str] = {}
    query = {"all": 1, "filters": json.dumps({"label": [CONFIG_FILES]})}
    for node in ready_nodes(client).values():
        for one in node.engine("GET", "/containers/json", query=query):
            out.setdefault(one["Labels"]["com.docker.compose.project"], one["Labels"][CONFIG_FILES])
    return out


CONFIG_FILES = "com.docker.compose.project.config_files"


@click.command()
@stack_options
@click.option("--format", "shape", default="table")
@click.option("-q", "--quiet", is_flag=True, help="Only IDs.")
@click.argument("services", nargs=-1)
def images(stack: StackOptions, shape: str, quiet: bool, services: tuple[str, ...]) -> None:
    """Images that the project's containers are made of."""
    from orchestrator.cli.client import Client, name_in_path
    from orchestrator.cli.output import decimal_text
    from orchestrator.cli.rows import tasks

    client, rows = Client(start=True), []
    for row in tasks(client, stack.name(), oneoff=True):
        if not row["id"] or (services and row["service"] not in services):
            continue
        seen = client.at(row["node"]).engine("GET", f"/images/{name_in_path(row['image'])}/json")
        tagged = ":" in row["image"].rpartition("/")[2]
        repository, _, tag = row["image"].rpartition(":") if tagged else (row["image"], "", "latest")
        rows.append(
            {
                "ID": seen["Id"],
                "ContainerName": row["container_name"],
                "Repository": repository,
                "Tag": tag,
                "Size": seen["Size"],
                "Platform": f"{seen['Os']}/{seen['Architecture']}",
                "Created": seen.get("Created", ""),
            }
        )
    if quiet:
        for ident in dict.fromkeys(row["ID"].removeprefix("sha256:") for row in rows):
            click.echo(ident)
    elif shape == "json":
        click.echo(_json(rows))
    else:
        shown = [
            row
            | {
                "ID": row["ID"].removeprefix("sha256:")[:12],
                "Size": decimal_text(row["Size"]),
                "Created": _ago(row["Created"]),
            }
            for row in rows
        ]
        printed(
            shown,
            shape,
            {
                "CONTAINER": "ContainerName",
                "REPOSITORY": "Repository",
                "TAG": "Tag",
                "PLATFORM": "Platform",
                "IMAGE ID": "ID",
                "SIZE": "Size",
                "CREATED": "Created",
            },
        )


def _ago(stamp: str) -> str:
    """How long ago the RFC 3339 time *stamp* was; N/A for an image without one."""
    import datetime

    if not stamp or stamp.startswith("0001-"):
        return "N/A"
    then = datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
    return f"{human_duration(time.time() - then)} ago"


@click.command()
@stack_options
@click.option("--json", "as_json", is_flag=True)
@click.option("--since", type=Timestamp(), default="", help="What happened since then, too.")
@click.option("--until", type=Timestamp(), default="", help="End with what happens then.")
@click.argument("services", nargs=-1)
def events(stack: StackOptions, as_json: bool, since: str, until: str, services: tuple[str, ...]) -> None:
    """What happens to the project's containers on all nodes, as it comes."""
    from orchestrator.cli.client import Client

    client, name = Client(start=True), stack.name()
    stack.check_services(services)
    query = {"filters": json.dumps({"type": ["container"], "label": [f"com.docker.compose.project={name}"]})}
    query |= {key: given for key, given in (("since", since), ("until", until)) if given}
    for event in _of_all_nodes(client, query):
        attributes = event["Actor"]["Attributes"]
        if services and attributes.get("com.docker.compose.service") not in services:
            continue
        when = event["timeNano"]
        row = {
            "time": _stamp(when),
            "type": "container",
            "action": event["Action"],
            "id": event["Actor"]["ID"],
            "service": attributes.get("com.docker.compose.service", ""),
            "attributes": {k: v for k, v in attributes.items() if not k.startswith("com.docker.compose.")},
        }
        if as_json:
            click.echo(_json(row))
        else:
            shown = ", ".join(f"{k}={v}" for k, v in sorted(row["attributes"].items()))
            click.echo(f"{row['time'].replace('T', ' ')} container {row['action']} {row['id']} ({shown})")


def _of_all_nodes(client: Client, query: dict[str, str]) -> Iterator[Row]:
    """Events of every node that is ready: those of the past in the order of time, what comes as it comes."""
    import queue
    import threading

    arrived: queue.SimpleQueue[Row | PystackError | None] = queue.SimpleQueue()

    def read(node: str) -> None:
        at = client.at(node)
        try:
            for event in at.lines("GET", f"{at.base}/events", query=query):
                arrived.put(event)
        except PystackError as error:
            arrived.put(error)
        arrived.put(None)

    nodes = [row["name"] for row in client.json("GET", "/v1/nodes") if row["state"] == "ready"]
    for node in nodes:
        threading.Thread(target=read, args=(node,), daemon=True).start()
    is_past = "until" in query and float(query["until"]) <= time.time()
    found, open_streams = [], len(nodes)
    while open_streams:
        event = arrived.get()
        if isinstance(event, PystackError):
            click.echo(f"warning: {event}", err=True)
        elif event is None:
            open_streams -= 1
        elif is_past:
            found.append(event)
        else:
            yield event
    yield from sorted(found, key=lambda event: int(event["timeNano"]))


def _stamp(nanoseconds: int) -> str:
    from agent.contract.times import timestamp

    return timestamp(nanoseconds / 1e9)


@click.command()
@stack_options
@click.option("--index", default=0)
@click.option("--protocol", type=click.Choice(["tcp", "udp"]), default="tcp")
@click.argument("service")
@click.argument("private_port", type=int)
def port(stack: StackOptions, index: int, protocol: str, service: str, private_port: int) -> None:
    """Where a port is published."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.tasks import published

    first = published(Client(start=True), stack, service, index, private_port, protocol)[0]
    click.echo(f"{first['host_ip']}:{first['host_port']}")


@click.command()
@click.option("-f", "--format", "shape", type=click.Choice(["pretty", "json"]), default="pretty")
@click.option("--short", is_flag=True)
def version(shape: str, short: bool) -> None:
    """The version of Docker Compose whose command lines these are."""
    if short:
        click.echo(COMPOSE)
    elif shape == "json":
        click.echo(_json({"version": f"v{COMPOSE}"}))
    else:
        click.echo(version_words())


@click.command()
@stack_options
@click.argument("services", nargs=-1)
def top(stack: StackOptions, services: tuple[str, ...]) -> None:
    """Processes of the project's containers."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import table
    from orchestrator.cli.selection import chosen

    client = Client(start=True)
    rows: list[Row] = []
    titles: list[str] = []
    for row in chosen(client, stack, services):
        if row["state"] == "running":
            found = client.at(row["node"]).engine("GET", f"/containers/{row['id']}/top")
            titles = found["Titles"]
            rows += [
                {"SERVICE": row["service"], "#": row["index"], **dict(zip(titles, p, strict=False))} for p in found["Processes"]
            ]
    if rows:
        table(rows, ["SERVICE", "#", *titles])


def _stats() -> click.Command:
    from orchestrator.cli.tasks import stats as own

    def run(stack: StackOptions, shape: str, no_stream: bool, no_trunc: bool, services: tuple[str, ...], **given: Any) -> None:
        from orchestrator.cli.client import Client
        from orchestrator.cli.selection import chosen
        from orchestrator.cli.tasks import used_by

        client = Client(start=True)
        running = [row for row in chosen(client, stack, services) if row["state"] == "running"]
        targets = [(row["container_name"], client.at(row["node"]), row["id"]) for row in running]
        while True:
            rows = [_usage(one[2], row, whole=no_trunc) for one, row in zip(targets, used_by(targets), strict=True)]
            printed(rows, shape, STATS)
            if no_stream or not sys.stdout.isatty():
                return
            click.clear()

    return click.Command("stats", callback=stack_options(run), params=list(own.params), help=own.help)


STATS = {
    "CONTAINER ID": "ID",
    "NAME": "Name",
    "CPU %": "CPUPerc",
    "MEM USAGE / LIMIT": "MemUsage",
    "MEM %": "MemPerc",
    "NET I/O": "NetIO",
    "BLOCK I/O": "BlockIO",
    "PIDS": "PIDs",
}


def _usage(ident: str, row: Row, *, whole: bool) -> Row:
    """What a container uses, in the words of `docker stats`."""
    from orchestrator.cli.output import binary_text, decimal_text

    share = 100 * row["memory"] / row["memory_limit"] if row["memory_limit"] else 0.0
    return {
        "BlockIO": f"{decimal_text(row['read'])} / {decimal_text(row['written'])}",
        "CPUPerc": f"{row['cpu_percent']:.2f}%",
        "Container": ident if whole else ident[:12],
        "ID": ident if whole else ident[:12],
        "MemPerc": f"{share:.2f}%",
        "MemUsage": f"{binary_text(row['memory'])} / {binary_text(row['memory_limit'])}",
        "Name": row["task"],
        "NetIO": f"{decimal_text(row['received'])} / {decimal_text(row['sent'])}",
        "PIDs": str(row["pids"]),
    }


@click.command()
@stack_options
@click.option("--format", "shape", default="table")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.argument("services", nargs=-1)
def volumes(stack: StackOptions, shape: str, quiet: bool, services: tuple[str, ...]) -> None:
    """The project's volumes."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.volumes import volume_rows

    rows = [
        {
            "Availability": "N/A",
            "Driver": v["driver"],
            "Group": "N/A",
            "Labels": ",".join(f"{k}={w}" for k, w in sorted(v["labels"].items())),
            "Links": "N/A",
            "Mountpoint": v["mountpoint"],
            "Name": v["name"],
            "Scope": "local",
            "Size": "N/A",
            "Status": "N/A",
        }
        for v in volume_rows(Client(start=True), stack.name(), services)
        if services or "com.docker.volume.anonymous" not in v["labels"]
    ]
    if quiet:
        for row in rows:
            click.echo(row["Name"])
    else:
        printed(rows, shape, {"DRIVER": "Driver", "VOLUME NAME": "Name"})


@click.command()
@stack_options
@click.option("-f", "--follow", is_flag=True)
@click.option("--index", "replica", default=0)
@click.option("--no-color", is_flag=True)
@click.option("--no-log-prefix", is_flag=True)
@click.option("--since", type=Timestamp(), default="")
@click.option("-n", "--tail", default="all")
@click.option("-t", "--timestamps", is_flag=True)
@click.option("--until", type=Timestamp(), default="")
@click.argument("services", nargs=-1)
def logs(stack: StackOptions, services: tuple[str, ...], no_log_prefix: bool, no_color: bool, **given: Any) -> None:
    """Output of the project's containers."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.logs import LogOptions, follow_stack

    options = LogOptions(prefix=not no_log_prefix, colour=not no_color, project=stack.name(), **given)
    follow_stack(Client(start=True), stack.name(), services, options)


def _config() -> click.Command:
    from orchestrator.cli.compose.config import made

    return made()


class _Lazy(dict[str, Any]):
    """Commands, those that are made from pystack's own when they are asked for."""

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key, default)
        return found() if found in (_up, _config, _stats) else found


OWN: dict[str, Any] = _Lazy(
    up=_up,
    config=_config,
    ps=ps,
    ls=ls,
    images=images,
    events=events,
    top=top,
    stats=_stats,
    version=version,
    volumes=volumes,
    logs=logs,
    port=port,
)
