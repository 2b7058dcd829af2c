"""Converts `docker run` command lines to services. Source: docker-run(1), podman-run(1)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

from agent.contract.options import OPTIONS, Kind
from orchestrator.convert.document import Document, escape_dollars
from orchestrator.errors import PystackError

Body = dict[str, Any]
Take = Callable[[Document, Body, str], None]
"""Takes the value of an option into the body of a service, or into the document."""
PROGRAMS = ("docker", "podman", "nerdctl", "pystack")


def put(key: str) -> Take:
    """Sets *key* to the value."""

    def take(document: Document, body: Body, value: str) -> None:
        del document
        body[key] = escape_dollars(value)

    return take


def add(key: str) -> Take:
    """Appends the value to the list at *key*, once."""

    def take(document: Document, body: Body, value: str) -> None:
        del document
        there = body.setdefault(key, [])
        if escape_dollars(value) not in there:
            there.append(escape_dollars(value))

    return take


def yes(key: str) -> Take:
    """Sets *key* to true, unless the value is false."""

    def take(document: Document, body: Body, value: str) -> None:
        del document
        if value != "false":
            body[key] = True

    return take


def pair(key: str, *, sep: str = "=") -> Take:
    """Adds NAME=VALUE to the mapping at *key*."""

    def take(document: Document, body: Body, value: str) -> None:
        del document
        name, found, text = value.partition(sep)
        body.setdefault(key, {})[name] = escape_dollars(text) if found else None if key == "environment" else ""

    return take


def health(key: str) -> Take:
    """Sets *key* of `healthcheck`."""

    def take(document: Document, body: Body, value: str) -> None:
        del document
        body.setdefault("healthcheck", {})[key] = int(value) if key == "retries" else escape_dollars(value)

    return take


def deep(*path: str) -> Take:
    """Sets the key at *path*."""

    def take(document: Document, body: Body, value: str) -> None:
        del document
        at = body
        for part in path[:-1]:
            at = at.setdefault(part, {})
        at[path[-1]] = escape_dollars(value)

    return take


def nothing(document: Document, body: Body, value: str) -> None:
    """For options that only concern the command line itself."""


def without(why: str) -> Take:
    """Warns that the option has no counterpart."""

    def take(document: Document, body: Body, value: str) -> None:
        del body
        document.warn(f"{why}{f': {value}' if value else ''}")

    return take


def volume(document: Document, body: Body, value: str) -> None:
    """--volume [SOURCE:]TARGET[:MODE]"""
    source, colon, _ = value.partition(":")
    if colon and not source.startswith(("/", ".", "~")):
        document.volumes[source] = {"name": source}
    body.setdefault("volumes", []).append(escape_dollars(value))


def mount(document: Document, body: Body, value: str) -> None:
    """--mount type=…,source=…,target=…"""
    fields = dict(part.partition("=")[::2] for part in value.split(","))
    alias = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
    fields = {alias.get(k, k): v for k, v in fields.items()}
    entry: Body = {"type": fields.pop("type", "volume"), "target": fields.pop("target", "")}
    if source := fields.pop("source", ""):
        entry["source"] = source
        if entry["type"] == "volume":
            document.volumes[source] = {"name": source}
    if "readonly" in fields:
        entry["read_only"] = fields.pop("readonly") in ("", "1", "true")
    if "bind-propagation" in fields:
        entry["bind"] = {"propagation": fields.pop("bind-propagation")}
    if "volume-nocopy" in fields:
        entry["volume"] = {"nocopy": fields.pop("volume-nocopy") in ("", "1", "true")}
    if "volume-subpath" in fields:
        entry.setdefault("volume", {})["subpath"] = fields.pop("volume-subpath")
    for key, inner in (("tmpfs-size", "size"), ("tmpfs-mode", "mode")):
        if key in fields:
            entry.setdefault("tmpfs", {})[inner] = fields.pop(key)
    for rest in fields:
        document.warn(f"--mount has {rest}, which has no counterpart")
    body.setdefault("volumes", []).append(entry)


def network(document: Document, body: Body, value: str) -> None:
    """--network NAME, or name=NAME,…"""
    name = dict(p.partition("=")[::2] for p in value.split(",")).get("name") or value.split(",")[0]
    if name in ("host", "none") or name.startswith("container:"):
        body["network_mode"] = name
    elif name not in ("bridge", "default"):
        document.networks[name] = {"external": True}
        document.warn(f"network {name} must exist: `pystack network create {name}`")
        body.setdefault("networks", {})[name] = {}


def on_network(key: str, *, many: bool = False) -> Take:
    """Sets *key* of the attachment to the first network; with *many*, appends to it."""

    def take(document: Document, body: Body, value: str) -> None:
        body.setdefault(" network", {})
        if many:
            body[" network"].setdefault(key, []).append(value)
        else:
            body[" network"][key] = value

    return take


def link(document: Document, body: Body, value: str) -> None:
    """--link: to a service of the same conversion, or to a container outside the stack."""
    name = value.partition(":")[0]
    known = next((s for s, b in document.services.items() if name in (s, b.get("container_name"))), "")
    if known:
        body.setdefault("links", []).append(value if known == name else f"{known}:{value.partition(':')[2] or name}")
    else:
        body.setdefault("external_links", []).append(value)


def ulimit(document: Document, body: Body, value: str) -> None:
    """--ulimit NAME=SOFT[:HARD]"""
    name, _, limits = value.partition("=")
    soft, _, hard = limits.partition(":")
    body.setdefault("ulimits", {})[name] = {"soft": int(soft), "hard": int(hard or soft)}


def gpus(document: Document, body: Body, value: str) -> None:
    """--gpus all, or a number of them."""
    count: Any = "all" if value == "all" else int(value) if value.isdecimal() else value
    body["gpus"] = "all" if count == "all" else [{"capabilities": ["gpu"], "count": count}]


def stop_timeout(document: Document, body: Body, value: str) -> None:
    """--stop-timeout SECONDS"""
    body["stop_grace_period"] = f"{value}s"


def entrypoint(document: Document, body: Body, value: str) -> None:
    """--entrypoint: one word; "" removes that of the image."""
    body["entrypoint"] = [escape_dollars(value)] if value else []


def blkio(key: str) -> Take:
    """Sets *key* of `blkio_config`, for a device PATH:NUMBER; a value without a path is the weight."""

    def take(document: Document, body: Body, value: str) -> None:
        config = body.setdefault("blkio_config", {})
        path, colon, number = value.partition(":")
        if not colon:
            config["weight"] = int(value)
        elif key == "weight_device":
            config.setdefault(key, []).append({"path": path, "weight": int(number)})
        else:
            config.setdefault(key, []).append({"path": path, "rate": number})

    return take


_OF_KIND: dict[Kind, Callable[[str], Take]] = {
    Kind.FLAG: yes,
    Kind.TEXT: put,
    Kind.WHOLE: put,
    Kind.SIZE: put,
    Kind.WORDS: add,
    Kind.WORD_OR_WORDS: add,
    Kind.PAIRS: pair,
}
_PLAIN = {o.flag: (o.kind, _OF_KIND[o.kind](o.key)) for o in OPTIONS if o.flag and o.key}
FLAGS: dict[str, Take] = {
    **{flag: take for flag, (kind, take) in _PLAIN.items() if kind is Kind.FLAG},
    "--detach": nothing,
    "--rm": nothing,
    "--sig-proxy": nothing,
    "--quiet": nothing,
    "--disable-content-trust": nothing,
    "--publish-all": without("--publish-all has no counterpart: name the ports with ports:"),
    "--no-healthcheck": lambda d, b, v: b.setdefault("healthcheck", {}).update(disable=True),
    "--use-api-socket": yes("use_api_socket"),
    "--replace": nothing,
}
VALUES: dict[str, Take] = {
    **{flag: take for flag, (kind, take) in _PLAIN.items() if kind is not Kind.FLAG},
    "--name": put("container_name"),
    "--publish": add("ports"),
    "--volume": volume,
    "--mount": mount,
    "--tmpfs": add("tmpfs"),
    "--env": pair("environment"),
    "--env-file": add("env_file"),
    "--label": pair("labels"),
    "--label-file": add("label_file"),
    "--network": network,
    "--network-alias": on_network("aliases", many=True),
    "--ip": on_network("ipv4_address"),
    "--ip6": on_network("ipv6_address"),
    "--link-local-ip": on_network("link_local_ips", many=True),
    "--mac-address": put("mac_address"),
    "--link": link,
    "--dns-option": add("dns_opt"),
    "--dns-opt": add("dns_opt"),
    "--add-host": add("extra_hosts"),
    "--entrypoint": entrypoint,
    "--group-add": add("group_add"),
    "--restart": put("restart"),
    "--stop-timeout": stop_timeout,
    "--health-cmd": health("test"),
    "--health-interval": health("interval"),
    "--health-retries": health("retries"),
    "--health-timeout": health("timeout"),
    "--health-start-period": health("start_period"),
    "--health-start-interval": health("start_interval"),
    "--memory-swap": put("memswap_limit"),
    "--memory-reservation": put("mem_reservation"),
    "--memory-swappiness": put("mem_swappiness"),
    "--cpus": put("cpus"),
    "--cpu-shares": put("cpu_shares"),
    "--cpu-period": put("cpu_period"),
    "--cpu-quota": put("cpu_quota"),
    "--cpu-rt-period": put("cpu_rt_period"),
    "--cpu-rt-runtime": put("cpu_rt_runtime"),
    "--pids-limit": put("pids_limit"),
    "--cpu-count": put("cpu_count"),
    "--cpu-percent": put("cpu_percent"),
    "--shm-size": put("shm_size"),
    "--ulimit": ulimit,
    "--device": add("devices"),
    "--security-opt": add("security_opt"),
    "--log-driver": deep("logging", "driver"),
    "--ipc": put("ipc"),
    "--pid": put("pid"),
    "--userns": put("userns_mode"),
    "--cgroupns": put("cgroup"),
    "--runtime": put("runtime"),
    "--platform": put("platform"),
    "--pull": put("pull_policy"),
    "--gpus": gpus,
    "--storage-opt": pair("storage_opt"),
    "--expose": add("expose"),
    "--isolation": put("isolation"),
    "--blkio-weight": blkio("weight"),
    "--blkio-weight-device": blkio("weight_device"),
    "--device-read-bps": blkio("device_read_bps"),
    "--device-read-iops": blkio("device_read_iops"),
    "--device-write-bps": blkio("device_write_bps"),
    "--device-write-iops": blkio("device_write_iops"),
    "--log-opt": lambda d, b, v: b.setdefault("logging", {}).setdefault("options", {}).update([v.partition("=")[::2]]),
    "--attach": nothing,
    "--detach-keys": nothing,
    "--cidfile": without("--cidfile has no counterpart"),
    "--cpuset-mems": without("--cpuset-mems has no counterpart"),
    "--kernel-memory": without("--kernel-memory has no counterpart"),
    "--volume-driver": without("--volume-driver has no counterpart: name it with volumes: … driver:"),
    "--ip-masq": without("--ip-masq has no counterpart"),
}
SHORT = {
    **{o.short: o.flag for o in OPTIONS if o.short},
    "-d": "--detach",
    "-P": "--publish-all",
    "-q": "--quiet",
    "-p": "--publish",
    "-v": "--volume",
    "-e": "--env",
    "-l": "--label",
    "-c": "--cpu-shares",
    "-a": "--attach",
    "--net": "--network",
    "--net-alias": "--network-alias",
    "--dns-opt": "--dns-option",
    "--userns-mode": "--userns",
}
"""Other names of an option."""


def commands(text: str) -> list[list[str]]:
    """The words of each `docker run` command in a script, from the first option on; other lines are ignored. Raises
    PystackError for a line that the shell cannot split."""
    joined = re.sub(r"\\\r?\n", " ", text)
    out = []
    for line in joined.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise PystackError(f"{line.strip()[:60]}: cannot be split into words: {error}") from None
        while words and (words[0] in ("sudo", "exec") or re.fullmatch(r"\w+=.*", words[0])):
            words = words[1:]
        if len(words) > 2 and words[0].rpartition("/")[2] in PROGRAMS:
            start = 2 if words[1] == "container" else 1
            if words[start] in ("run", "create"):
                out.append(words[start + 1 :])
    return out


def service_of(document: Document, words: list[str]) -> str:
    """Convert one command, given by its *words*; returns the name of the service. Raises PystackError for an option that docker
    does not have."""
    body: Body = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        _option(document, body, word, rest)
    if not rest:
        raise PystackError(f"docker run {' '.join(words)[:60]}: the command names no image")
    image = rest.pop(0)
    base = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    name = document.unique_service_name(body.get("container_name", base))
    attached = body.pop(" network", None)
    if attached:
        networks = body.setdefault("networks", {"default": {}})
        first = next(iter(networks))
        networks[first] = {**networks[first], **attached}
    body["image"] = escape_dollars(image)
    if rest:
        body["command"] = [escape_dollars(w) for w in rest]
    order = ("image", "container_name", "entrypoint", "command")
    document.services[name] = {k: body[k] for k in (*order, *sorted(body.keys() - set(order))) if k in body}
    return name


def _option(document: Document, body: Body, word: str, rest: list[str]) -> None:
    name, eq, value = word.partition("=")
    if not word.startswith("--") and len(word) > 2 and not (eq and len(name) == 2):
        first = SHORT.get(word[:2], "")
        if first in FLAGS:  # -it is -i -t
            _option(document, body, word[:2], rest)
            return _option(document, body, f"-{word[2:]}", rest)
        name, eq, value = word[:2], "=", word[2:].removeprefix("=")
    name = SHORT.get(name, name)
    if name in FLAGS:
        return FLAGS[name](document, body, value)
    if name not in VALUES:
        import difflib

        near = difflib.get_close_matches(name, [*FLAGS, *VALUES], 1)
        raise PystackError(f"docker run has no option {name}{f': did you mean {near[0]}?' if near else ''}")
    if not eq:
        if not rest:
            raise PystackError(f"{name} needs a value")
        value = rest.pop(0)
    VALUES[name](document, body, value)
