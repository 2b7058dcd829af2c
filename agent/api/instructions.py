"""Dockerfile instructions that change an image's configuration, as `commit` and `import` take them.

Source: Dockerfile reference; Docker Engine API v1.48, ImageCommit (`changes`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from agent.contract.printable import quoted
from agent.errors import BadRequestError
from agent.images.types import HealthConfig, RunConfig

Fields = dict[str, Any]
UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def nanoseconds(text: str) -> int:
    """Of a duration as Go writes it, `1m30s`. Raises BadRequestError."""
    found = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)", text)
    if not found or "".join(n + u for n, u in found) != text:
        raise BadRequestError(f"duration {text!r}: it is written like 1m30s")
    return int(sum(float(number) * UNITS[unit] for number, unit in found))


def _command(rest: str) -> tuple[str, ...]:
    """In exec form (a JSON list), or as a line for the shell."""
    if rest.startswith("["):
        try:
            words = json.loads(rest)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(w, str) for w in words):
            return tuple(words)
    return ("/bin/sh", "-c", rest)


def _pairs(rest: str) -> list[tuple[str, str]]:
    """`KEY=VALUE KEY="V A L U E"`, or `KEY the rest of the line`."""
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise BadRequestError(f"change {rest!r}: {error}") from None
    if words and "=" not in words[0]:
        key, _, value = rest.partition(" ")
        return [(key, value.strip())]
    if bad := next((w for w in words if "=" not in w), ""):
        raise BadRequestError(f"change {rest!r}: {bad!r} has no =")
    return [(key, value) for key, _, value in (w.partition("=") for w in words)]


def _list(rest: str) -> list[str]:
    return list(_command(rest)) if rest.startswith("[") else rest.split()


def _env(fields: Fields, rest: str) -> None:
    fields["env"] = (*fields.get("env", ()), *(f"{k}={v}" for k, v in _pairs(rest)))


def _label(fields: Fields, rest: str) -> None:
    fields.setdefault("labels", {}).update(_pairs(rest))


def _expose(fields: Fields, rest: str) -> None:
    for word in rest.split():
        if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?", word):
            raise BadRequestError(f"EXPOSE {word}: it is written like 80, 80/udp or 8000-8010")
        span, _, protocol = word.partition("/")
        first, _, last = span.partition("-")
        if not 0 < int(first) <= int(last or first) < 65536:
            raise BadRequestError(f"EXPOSE {word}: ports are from 1 to 65535")
        fields.setdefault("exposed_ports", {}).update(
            {f"{port}/{protocol or 'tcp'}": {} for port in range(int(first), int(last or first) + 1)}
        )


def _volume(fields: Fields, rest: str) -> None:
    fields.setdefault("volumes", {}).update({path: {} for path in _list(rest)})


def _healthcheck(fields: Fields, rest: str) -> None:
    options: Fields = {}
    names = {"interval": "interval", "timeout": "timeout", "start-period": "start_period", "start-interval": "start_interval"}
    while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
        if match[1] == "retries" and re.fullmatch(r"[0-9]{1,9}", match[2]):
            options["retries"] = int(match[2])
        elif match[1] in names:
            options[names[match[1]]] = nanoseconds(match[2])
        else:
            raise BadRequestError(f"HEALTHCHECK {match[0].strip()}: no such option")
        rest = rest[match.end() :]
    word, _, command = rest.partition(" ")
    if word.upper() not in ("CMD", "NONE"):
        raise BadRequestError(f"HEALTHCHECK {rest}: CMD and NONE are known")
    words = _command(command.strip())
    shell = ("CMD-SHELL", command.strip())
    test = ("NONE",) if word.upper() == "NONE" else ("CMD", *words) if command.strip().startswith("[") else shell
    fields["healthcheck"] = HealthConfig(test=test, **options)


def _words(name: str) -> Callable[[Fields, str], None]:
    def put(fields: Fields, rest: str) -> None:
        fields[name] = _command(rest)

    return put


def _text(name: str) -> Callable[[Fields, str], None]:
    def put(fields: Fields, rest: str) -> None:
        fields[name] = rest

    return put


def _on_build(fields: Fields, rest: str) -> None:
    fields["on_build"] = (*fields.get("on_build", ()), rest)


INSTRUCTIONS: dict[str, Callable[[Fields, str], None]] = {
    "CMD": _words("cmd"),
    "ENTRYPOINT": _words("entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _text("stop_signal"),
    "USER": _text("user"),
    "VOLUME": _volume,
    "WORKDIR": _text("working_dir"),
}


def changes(lines: Iterable[str]) -> RunConfig:
    """The configuration that *lines* set. Raises BadRequestError for an instruction that sets none."""
    fields: Fields = {}
    for line in lines:
        for one in filter(str.strip, line.splitlines()):
            word, _, rest = one.strip().partition(" ")
            if word.upper() not in INSTRUCTIONS:
                raise BadRequestError(f"{quoted(word.lower())} is not a valid change command")
            if not rest.strip():
                raise BadRequestError(f"{word.upper()} requires at least one argument")
            INSTRUCTIONS[word.upper()](fields, rest.strip())
    return RunConfig(**fields)
