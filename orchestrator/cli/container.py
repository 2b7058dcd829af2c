"""`pystack container …`: single containers, outside any stack."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import click

from orchestrator.cli import plain_options
from orchestrator.cli.client import Client, name_in_path
from orchestrator.cli.options import Timestamp, format_option
from orchestrator.errors import PystackError, RefusedError


@click.group()
def container() -> None:
    """Single containers, outside any stack."""


@container.command("run", context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Print the ID and return.")
@click.option("--rm", "remove", is_flag=True, help="Remove it when it ends.")
@click.option("--name", default="")
@click.option("-e", "--env", multiple=True)
@click.option("-p", "--publish", multiple=True, metavar="[IP:][PORT:]PORT[/PROTO]")
@click.option("-v", "--volume", multiple=True, metavar="SOURCE:TARGET[:ro]")
@click.option("--entrypoint", default=None)
@click.option("--network", default="")
@click.option("--cpus", type=float, default=0.0)
@click.option("--pids-limit", type=int, default=0)
@click.option("--restart", default="no")
@click.option("-l", "--label", multiple=True)
@click.option("--device", multiple=True, metavar="DEVICE[:TARGET[:rwm]]", help="A device node, or VENDOR/CLASS=NAME.")
@click.option("--gpus", default="", metavar="N|all|device=ID,…")
@click.option("--tmpfs", multiple=True, metavar="TARGET[:OPTIONS]")
@click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]")
@click.option("--security-opt", multiple=True)
@click.option("--userns", type=click.Choice(["host", "auto", "private"]), help="auto: a user namespace of its own.")
@click.option("--add-host", multiple=True, metavar="NAME:ADDRESS")
@click.option("--shm-size", default="")
@click.option("--pull", type=click.Choice(["always", "missing", "never"]), default="missing")
@plain_options.options
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(image: str, command: tuple[str, ...], **given: Any) -> None:
    """Run a container: pull the image if it is missing, create, start; without -d, follow it to its end."""
    client = Client(start=True)
    ident = _create(client, image, _document(image, command, given), given["name"], given["pull"])
    from orchestrator.cli.run import begin, follow

    if given["detach"]:
        begin(client, ident)
        click.echo(ident)
        return
    raise SystemExit(follow(client, ident, tty=given["tty"], stdin=given["stdin_open"], removed=given["remove"]))


def _create(client: Client, image: str, document: dict[str, Any], name: str, policy: str) -> str:
    """A new container's ID; its image is pulled where the policy says so."""

    def create() -> str:
        return str(client.engine("POST", "/containers/create", query={"name": name} if name else None, body=document)["Id"])

    if policy == "always":
        _fetch(client, image)
    try:
        return create()
    except RefusedError as error:
        if error.status != 404 or policy != "missing" or _is_there(client, image):
            raise
    _fetch(client, image)
    return create()


def _is_there(client: Client, image: str) -> bool:
    try:
        client.engine("GET", f"/images/{name_in_path(image)}/json")
    except RefusedError as error:
        if error.status == 404:
            return False
        raise
    return True


def _fetch(client: Client, image: str) -> None:
    from orchestrator.cli.image import fetch
    from orchestrator.cli.output import Progress

    fetch(client, image, Progress())


def _document(image: str, command: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """The Engine API's create request."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in given["publish"]:
        match = re.fullmatch(r"(?:(\[[^]]+\]|\d+(?:\.\d+){3}):)?(?:(\d*):)?(\d+)(?:/(tcp|udp|sctp))?", text)
        if not match:
            raise click.UsageError(f"--publish {text}: write [IP:][PORT:]PORT[/PROTO]")
        key = f"{match[3]}/{match[4] or 'tcp'}"
        host = {"HostIp": (match[1] or "").strip("[]"), "HostPort": match[2] or ""}
        bindings.setdefault(key, []).append(host)
    requests = [_gpus(given["gpus"])] if given["gpus"] else []
    requests += [{"Driver": "cdi", "DeviceIDs": [d]} for d in given["device"] if not d.startswith("/")]
    policy, _, count = given["restart"].partition(":")
    return {
        **plain_options.config(given),
        "Image": image,
        "Cmd": list(command) or None,
        "Env": list(given["env"]),
        "StdinOnce": given["stdin_open"] and not given["detach"],
        "Entrypoint": [given["entrypoint"]] if given["entrypoint"] else None,
        "Labels": dict(label.partition("=")[::2] for label in given["label"]),
        "HostConfig": {
            **plain_options.host_config(given),
            "Binds": list(given["volume"]),
            "PortBindings": bindings,
            "NetworkMode": given["network"],
            "ShmSize": plain_options.size("--shm-size", given["shm_size"]),
            "NanoCpus": int(given["cpus"] * 1e9),
            "PidsLimit": given["pids_limit"],
            "RestartPolicy": {"Name": policy, "MaximumRetryCount": int(count or 0)},
            "AutoRemove": given["remove"],
            "SecurityOpt": list(given["security_opt"]),
            "UsernsMode": given["userns"] or "",
            "DeviceRequests": requests,
            "Devices": [_device(d) for d in given["device"] if d.startswith("/")],
            "Tmpfs": dict(t.partition(":")[::2] for t in given["tmpfs"]),
            "ExtraHosts": list(given["add_host"]),
            "Ulimits": [_ulimit(u) for u in given["ulimit"]],
        },
    }


def _device(text: str) -> dict[str, str]:
    source, _, rest = text.partition(":")
    target, _, permissions = rest.partition(":")
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": permissions or "rwm"}


def _gpus(text: str) -> dict[str, Any]:
    """Source: docker-run(1), --gpus."""
    if text.startswith("device="):
        return {"DeviceIDs": text.removeprefix("device=").split(","), "Capabilities": [["gpu"]]}
    if text != "all" and not text.isdecimal():
        raise click.UsageError(f"--gpus {text}: a number, all, or device=ID,…")
    return {"Count": -1 if text == "all" else int(text), "Capabilities": [["gpu"]]}


def _ulimit(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"([a-z]+)=(-?\d+)(?::(-?\d+))?", text)
    if not match:
        raise click.UsageError(f"--ulimit {text}: write NAME=SOFT[:HARD]")
    return {"Name": match[1], "Soft": int(match[2]), "Hard": int(match[3] or match[2])}


@container.command()
@format_option
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped ones too.")
@click.option("-q", "--quiet", is_flag=True)
def ls(shape: str, everything: bool, quiet: bool) -> None:
    """List containers."""
    from orchestrator.cli.output import show

    found = Client(start=True).engine("GET", "/containers/json", query={"all": int(everything)})
    if quiet:
        click.echo("\n".join(c["Id"] for c in found))
        return
    rows = [
        {
            "id": c["Id"],
            "name": c["Names"][0][1:],
            "image": c["Image"],
            "state": c["State"],
            "status": c["Status"],
            "ports": [f"{p['IP']}:{p['PublicPort']}->{p['PrivatePort']}/{p['Type']}" for p in c["Ports"]],
        }
        for c in found
    ]
    if shape == "table":
        rows = [row | {"id": row["id"][:12]} for row in rows]
    show(rows, ("id", "name", "image", "status", "ports"), shape)


@container.command()
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...]) -> None:
    """Everything about containers, as JSON."""
    client = Client(start=True)
    click.echo(json.dumps([client.engine("GET", f"/containers/{n}/json") for n in names], indent=2))


@container.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True)
@click.option("-n", "--tail", default="all")
@click.option("--since", type=Timestamp(), default="", help="How long ago (10m), RFC 3339 time, or seconds since the epoch.")
@click.option("--until", type=Timestamp(), default="", help="The same.")
@click.option("-t", "--timestamps", is_flag=True)
def logs(name: str, follow: bool, tail: str, since: str, until: str, timestamps: bool) -> None:
    """Output of a container."""
    from orchestrator.cli.logs import read

    query = {"follow": int(follow), "tail": tail, "since": since, "until": until, "timestamps": int(timestamps)}
    for stream, text in read(Client(start=True), name, **query):
        out = sys.stderr.buffer if stream == 2 else sys.stdout.buffer
        out.write(text)
        out.flush()


@container.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-t", "--tty", is_flag=True)
@click.option("-i", "--interactive", is_flag=True)
@click.option("-u", "--user", default="")
@click.option("-w", "--workdir", default="")
@click.option("-e", "--env", multiple=True)
@click.option("-d", "--detach", is_flag=True)
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    tty: bool,
    interactive: bool,
    user: str,
    workdir: str,
    env: tuple[str, ...],
    detach: bool,
    name: str,
    command: tuple[str, ...],
) -> None:
    """Run a command inside a container."""
    from orchestrator.cli import execute

    wanted = {"Cmd": list(command), "User": user, "WorkingDir": workdir, "Env": list(env)}
    if tty and not sys.stdin.isatty():
        raise PystackError("-t needs a terminal on standard input")
    raise SystemExit(execute.run(Client(start=True), name, wanted, tty=tty, stdin=interactive, detach=detach))


def _each(names: tuple[str, ...], verb: str, **query: Any) -> None:
    client = Client(start=True)
    given = {k: v for k, v in query.items() if v is not None}
    for name in names:
        client.engine("POST", f"/containers/{name}/{verb}", query=given or None)
        click.echo(name)


grace_option = click.option("-t", "--time", "grace", type=float, default=None, help="Seconds until SIGKILL.")


@container.command()
@click.argument("names", nargs=-1, required=True)
@grace_option
def stop(names: tuple[str, ...], grace: float | None) -> None:
    """Stop containers."""
    _each(names, "stop", t=grace)


@container.command()
@click.argument("names", nargs=-1, required=True)
def start(names: tuple[str, ...]) -> None:
    """Start containers."""
    _each(names, "start")


@container.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-m", "--memory", default="")
@click.option("--memory-swap", default="")
@click.option("--memory-reservation", default="")
@click.option("--cpus", type=float, default=0.0)
@click.option("--cpu-burst", type=int, default=0, help="Microseconds of its quota that it may save up.")
@click.option("--cpu-period", type=int, default=0, help="The CFS period, in microseconds.")
@click.option("--cpu-quota", type=int, default=0, help="The CFS quota, in microseconds.")
@click.option("--cpu-rt-period", type=int, default=0, help="The real-time period, in microseconds.")
@click.option("--cpu-rt-runtime", type=int, default=0, help="The real-time budget, in microseconds.")
@click.option("--cpu-shares", type=int, default=0, help="Its weight where CPUs are short.")
@click.option("--cpuset-cpus", default="")
@click.option("--cpuset-mems", default="", help="The NUMA nodes that its memory is of.")
@click.option("--pids-limit", type=int, default=0)
@click.option("--hugepages", multiple=True, metavar="SIZE=LIMIT", help="Memory in huge pages of a size, such as 2MB=64m.")
@click.option("--blkio-weight", type=int, default=0, help="Its weight for disks, 10 to 1000.")
@click.option("--blkio-weight-device", multiple=True, metavar="PATH:WEIGHT", help="Its weight for one disk.")
@click.option("--device-read-bps", multiple=True, metavar="PATH:RATE", help="Bytes read a second; 0 takes the limit away.")
@click.option("--device-read-iops", multiple=True, metavar="PATH:RATE", help="Reads a second.")
@click.option("--device-write-bps", multiple=True, metavar="PATH:RATE", help="Bytes written a second.")
@click.option("--device-write-iops", multiple=True, metavar="PATH:RATE", help="Writes a second.")
@click.option("--restart", default="")
@click.option(
    "--bandwidth",
    multiple=True,
    metavar="[NETWORK:]ingress=RATE,egress=RATE,burst=SIZE",
    help="What it may receive and send, such as 20mbit, or unlimited; of all its networks where none is named.",
)
def update(names: tuple[str, ...], **given: Any) -> None:
    """Change limits and the restart policy of containers while they run."""
    client = Client()
    policy, _, count = given["restart"].partition(":")
    sizes = {"Memory": "memory", "MemorySwap": "memory_swap", "MemoryReservation": "memory_reservation"}
    asked: dict[str, Any] = {
        key: plain_options.size(f"--{option.replace('_', '-')}", given[option])
        for key, option in sizes.items()
        if given[option]
    }
    asked |= {"NanoCpus": int(given["cpus"] * 1e9)} | {key: given[option] for option, key in _PLAIN_LIMITS.items()}
    asked |= {key: [_rate(option, amount, text) for text in given[option]] for option, (key, amount) in _RATES.items()}
    asked |= {"HugepageLimits": dict(text.partition("=")[::2] for text in given["hugepages"])}
    asked |= {"RestartPolicy": {"Name": policy, "MaximumRetryCount": int(count or 0)} if policy else None}
    asked |= {"Bandwidth": [_bandwidth(text) for text in given["bandwidth"]]}
    body = {key: value for key, value in asked.items() if value}
    if not body:
        raise click.UsageError("say what is to change: --memory, --cpus, --bandwidth …")
    for name in names:
        found = client.engine("POST", f"/containers/{name_in_path(name)}/update", body=body)
        for warning in found.get("Warnings") or ():
            click.echo(f"{name}: {warning}", err=True)
        click.echo(name)


_PLAIN_LIMITS = {
    "cpu_burst": "CpuBurst",
    "cpu_period": "CpuPeriod",
    "cpu_quota": "CpuQuota",
    "cpu_rt_period": "CpuRealtimePeriod",
    "cpu_rt_runtime": "CpuRealtimeRuntime",
    "cpu_shares": "CpuShares",
    "cpuset_cpus": "CpusetCpus",
    "cpuset_mems": "CpusetMems",
    "pids_limit": "PidsLimit",
    "blkio_weight": "BlkioWeight",
}
"""Options of `update` whose value is that of the Engine API's field."""
_RATES = {
    "blkio_weight_device": ("BlkioWeightDevice", "Weight"),
    "device_read_bps": ("BlkioDeviceReadBps", "Rate"),
    "device_read_iops": ("BlkioDeviceReadIOps", "Rate"),
    "device_write_bps": ("BlkioDeviceWriteBps", "Rate"),
    "device_write_iops": ("BlkioDeviceWriteIOps", "Rate"),
}
"""Options of `update` for one disk, with the field of the Engine API and what its number is called there."""


def _rate(option: str, amount: str, text: str) -> dict[str, Any]:
    """An entry of the update request for PATH:NUMBER. Raises click.UsageError."""
    path, colon, number = text.rpartition(":")
    if not colon or not path:
        raise click.UsageError(f"--{option.replace('_', '-')} {text}: write PATH:NUMBER")
    flag = f"--{option.replace('_', '-')}"
    return {"Path": path, amount: 0 if number == "0" else plain_options.size(flag, number)}


def _bandwidth(text: str) -> dict[str, Any]:
    """An entry of the update request of `--bandwidth`."""
    from agent.contract.bandwidth import parse_rate
    from orchestrator.stackfile.units import parse_bytes

    network, _, rates = text.rpartition(":")
    found: dict[str, Any] = {"Network": network} if network else {}
    for word in rates.split(","):
        key, _, value = word.partition("=")
        if key not in ("ingress", "egress", "burst") or not value:
            raise click.UsageError(f"--bandwidth {text}: write ingress=20mbit,egress=10mbit,burst=256k")
        try:
            found[key.capitalize()] = parse_bytes(value) if key == "burst" else f"{parse_rate(value) or 'unlimited'}"
        except ValueError as error:
            raise click.UsageError(f"--bandwidth {text}: {key}: {error}") from None
    return found


@container.command()
@click.argument("names", nargs=-1, required=True)
@grace_option
def restart(names: tuple[str, ...], grace: float | None) -> None:
    """Restart containers."""
    _each(names, "restart", t=grace)


@container.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-s", "--signal", "number", default="SIGKILL")
def kill(names: tuple[str, ...], number: str) -> None:
    """Send containers a signal."""
    _each(names, "kill", signal=number)


@container.command()
@click.argument("names", nargs=-1, required=True)
def pause(names: tuple[str, ...]) -> None:
    """Freeze containers."""
    _each(names, "pause")


@container.command()
@click.argument("names", nargs=-1, required=True)
def unpause(names: tuple[str, ...]) -> None:
    """Let frozen containers run."""
    _each(names, "unpause")


@container.command()
@click.argument("names", nargs=-1, required=True)
def wait(names: tuple[str, ...]) -> None:
    """Wait for containers to end, and print their exit codes."""
    client = Client(start=True)
    for name in names:
        click.echo(client.engine("POST", f"/containers/{name_in_path(name)}/wait")["StatusCode"])


@container.command()
@click.argument("name")
@format_option
def top(name: str, shape: str) -> None:
    """Processes of a container, as the host sees them."""
    from orchestrator.cli.output import show

    found = Client().engine("GET", f"/containers/{name}/top")
    titles = [title.lower() for title in found["Titles"]]
    show([dict(zip(titles, line, strict=False)) for line in found["Processes"]], titles, shape)


@container.command()
@click.argument("names", nargs=-1)
@format_option
@click.option("--no-stream", is_flag=True, help="Once, instead of again and again.")
def stats(names: tuple[str, ...], shape: str, no_stream: bool) -> None:
    """CPU, memory, network and disk that containers use."""
    from orchestrator.cli.tasks import show_usage

    client = Client()
    targets = [(name, client, name) for name in names] or [
        (found["Names"][0].lstrip("/"), client, found["Id"]) for found in client.engine("GET", "/containers/json")
    ]
    show_usage(targets, shape, once=no_stream or shape != "table" or not sys.stdout.isatty())


@container.command()
@click.argument("name")
@click.option("--no-stdin", is_flag=True)
def attach(name: str, no_stdin: bool) -> None:
    """Lend a container's own process this terminal; end with its exit status."""
    from orchestrator.cli.tasks import attach_to

    raise SystemExit(attach_to(Client(), name, stdin=not no_stdin))


@container.command()
@click.argument("source", metavar="[NAME:]SOURCE")
@click.argument("target", metavar="[NAME:]TARGET")
def cp(source: str, target: str) -> None:
    """Copy files into or out of a container; `-` is a tar on standard input or output."""
    from orchestrator.cli import copy

    client = Client()
    copy.copy(lambda name: [(client, name)], source, target)


@container.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Running ones too.")
@click.option("-v", "--volumes", is_flag=True, help="Anonymous volumes too.")
def rm(names: tuple[str, ...], force: bool, volumes: bool) -> None:
    """Remove containers."""
    client = Client(start=True)
    for name in names:
        client.json("DELETE", f"{client.base}/containers/{name}", query={"force": int(force), "v": int(volumes)})
        click.echo(name)
