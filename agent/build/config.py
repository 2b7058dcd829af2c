"""What instructions make of an image's configuration, a JSON document as Docker writes it.

Pure: each function gives a new document. Source: Docker Image Specification v1.2; Dockerfile reference.
"""

from __future__ import annotations

import copy
import posixpath
import re
import signal as signals
from collections.abc import Callable, Mapping
from typing import Any

from agent.build import instructions as steps
from agent.build.words import WordError
from agent.contract.printable import quoted

Document = dict[str, Any]
DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SIGNALS = {
    *(one.name.removeprefix("SIG") for one in signals.Signals),
    *("CLD", "IOT", "POLL", "STKFLT", "UNUSED"),
    *(f"RTMIN+{number}" for number in range(1, 16)),
    *(f"RTMAX-{number}" for number in range(1, 15)),
}
"""Names of signals, as moby/sys has them for Linux."""


def empty(architecture: str, variant: str = "") -> Document:
    """The image that `FROM scratch` is."""
    return {
        "architecture": architecture,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "config": {"Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    }


def environment(document: Document) -> dict[str, str]:
    """The variables of the configuration."""
    return dict(pair.partition("=")[::2] for pair in document["config"].get("Env") or ())


def with_path(document: Document, base: str) -> Document:
    """*document* with a PATH, which the first step on an image called *base* gives it where it has none, as Docker does."""
    if not base or "PATH" in environment(document):
        return document
    return put(document, "Env", [*(document["config"].get("Env") or ()), f"PATH={DEFAULT_PATH}"])


def workdir(document: Document) -> str:
    """The working directory, "/" if none is set."""
    return document["config"].get("WorkingDir") or "/"


def absolute(document: Document, path: str) -> str:
    """*path* as it is meant in the working directory of the image; a slash at its end stays."""
    ends = path.endswith(("/", "/.")) or path in (".", "..")
    joined = posixpath.normpath(posixpath.join(workdir(document), path))
    joined = "/" + joined.lstrip("/")
    return f"{joined.rstrip('/')}/" if ends else joined


def shell(document: Document) -> list[str]:
    """The words before a command in shell form."""
    return list(document["config"].get("Shell") or DEFAULT_SHELL)


def command(document: Document, given: steps.Command) -> list[str]:
    """The words of a command; a line for a shell is given to the image's."""
    return [*shell(document), *given.words] if given.shell else list(given.words)


def put(document: Document, name: str, value: object) -> Document:
    """*document* with another *name* in its configuration; None takes it out."""
    out = copy.copy(document)
    out["config"] = {k: v for k, v in {**document["config"], name: value}.items() if v is not None}
    return out


def recorded(document: Document, by: str, *, created: str, empty_layer: bool, comment: str = "") -> Document:
    """*document* with one step more in its history."""
    entry: Document = {"created": created, "created_by": by}
    entry |= {"comment": comment} if comment else {}
    entry |= {"empty_layer": True} if empty_layer else {}
    return {**document, "history": [*(document.get("history") or ()), entry]}


Expand = Callable[[str], str]


def _env(document: Document, step: steps.Env, expand: Expand) -> Document:
    known = environment(document)
    new = {expand(key): expand(value) for key, value in step.pairs}
    return put(document, "Env", [f"{k}={v}" for k, v in {**known, **new}.items()])


def _label(document: Document, step: steps.Label, expand: Expand) -> Document:
    new = {expand(key): expand(value) for key, value in step.pairs}
    return put(document, "Labels", {**(document["config"].get("Labels") or {}), **new})


def _maintainer(document: Document, step: steps.Maintainer, expand: Expand) -> Document:
    return {**document, "author": step.name}


def _cmd(document: Document, step: steps.Cmd, expand: Expand) -> Document:
    return put(document, "Cmd", command(document, step.command))


def _entrypoint(document: Document, step: steps.Entrypoint, expand: Expand) -> Document:
    return put(document, "Entrypoint", command(document, step.command))


def ports(words: list[str]) -> dict[str, Any]:
    """`80`, `80/udp`, `8000-8010` as a configuration has them. Raises WordError."""
    out: dict[str, Any] = {}
    for word in words:
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([A-Za-z]+))?", word)
        kind = (match[3] or "tcp").lower() if match else ""
        if not match or kind not in ("tcp", "udp", "sctp"):
            raise WordError(f"invalid containerPort: {quoted(word)}: it is written like 80, 80/udp or 8000-8010")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 < first <= last < 65536:
            raise WordError(f"invalid containerPort: {quoted(word)}: ports are from 1 to 65535")
        out |= {f"{port}/{kind}": {} for port in range(first, last + 1)}
    return out


def _volume(document: Document, step: steps.Volume, expand: Expand) -> Document:
    paths: Document = {path: {} for text in step.paths if (path := expand(text).strip())}
    return put(document, "Volumes", {**(document["config"].get("Volumes") or {}), **paths})


def _user(document: Document, step: steps.User, expand: Expand) -> Document:
    return put(document, "User", expand(step.name))


def _stop_signal(document: Document, step: steps.StopSignal, expand: Expand) -> Document:
    signal = expand(step.signal)
    if signal.upper().removeprefix("SIG") not in SIGNALS and not re.fullmatch(r"0*[1-9][0-9]?", signal):
        raise WordError(f"invalid signal: {quoted(signal)}")
    return put(document, "StopSignal", signal)


def _shell(document: Document, step: steps.Shell, expand: Expand) -> Document:
    return put(document, "Shell", list(step.words))


def _on_build(document: Document, step: steps.OnBuild, expand: Expand) -> Document:
    return put(document, "OnBuild", [*(document["config"].get("OnBuild") or ()), step.text])


def _healthcheck(document: Document, step: steps.Healthcheck, expand: Expand) -> Document:
    spans = {
        "Interval": step.interval,
        "Timeout": step.timeout,
        "StartPeriod": step.start_period,
        "StartInterval": step.start_interval,
        "Retries": step.retries,
    }
    return put(document, "Healthcheck", {"Test": list(step.test), **{k: v for k, v in spans.items() if v}})


CHANGES: Mapping[type[steps.Step], Callable[[Document, Any, Expand], Document]] = {
    steps.Env: _env,
    steps.Label: _label,
    steps.Maintainer: _maintainer,
    steps.Cmd: _cmd,
    steps.Entrypoint: _entrypoint,
    steps.Volume: _volume,
    steps.User: _user,
    steps.StopSignal: _stop_signal,
    steps.Shell: _shell,
    steps.OnBuild: _on_build,
    steps.Healthcheck: _healthcheck,
}
"""Instructions that change the configuration and nothing else; EXPOSE and WORKDIR are `ports` and the job's."""


def expose(document: Document, words: list[str]) -> Document:
    """*document* with the ports *words* (80, 80/udp, 8000-8010) exposed too. Raises WordError."""
    return put(document, "ExposedPorts", {**(document["config"].get("ExposedPorts") or {}), **ports(words)})
