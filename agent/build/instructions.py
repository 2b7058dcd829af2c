"""Each instruction with its parts: one struct a kind, one function that reads it, one row in READERS.

Pure; variables are put in later, where their values are known. Source: Dockerfile reference, one section an instruction.
"""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Callable
from difflib import get_close_matches

import msgspec

from agent.build.dockerfile import HEREDOC, Dockerfile, Heredoc, Instruction, raw_words
from agent.build.errors import DockerfileError, raise_together
from agent.contract.printable import quoted


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """*at* is where it stands."""

    at: Instruction


class From(Step, frozen=True, kw_only=True):
    """FROM: *image* is an image, a stage or `scratch`; *name* that of the stage."""

    image: str
    platform: str = ""
    name: str = ""


class Arg(Step, frozen=True, kw_only=True):
    """ARG: names with their defaults, None if there is none."""

    pairs: tuple[tuple[str, str | None], ...]


class Env(Step, frozen=True, kw_only=True):
    """ENV: variables and their values."""

    pairs: tuple[tuple[str, str], ...]


class Label(Step, frozen=True, kw_only=True):
    """LABEL: labels and their values."""

    pairs: tuple[tuple[str, str], ...]


class Maintainer(Step, frozen=True, kw_only=True):
    """MAINTAINER, which is a label by now."""

    name: str


class Command(msgspec.Struct, frozen=True):
    """Words to execute, or, in *shell* form, one line for a shell."""

    words: tuple[str, ...]
    shell: bool


class RunMount(msgspec.Struct, frozen=True, kw_only=True):
    """`RUN --mount`. *mode*, *uid*, *gid* and *size* as they were written, "" if they were not."""

    kind: str = "bind"
    target: str = ""
    source: str = ""
    origin: str = ""
    id: str = ""
    sharing: str = "shared"
    read_only: bool | None = None
    required: bool = False
    env: str = ""
    mode: str = ""
    uid: str = ""
    gid: str = ""
    size: str = ""

    @property
    def name(self) -> str:
        """What the client calls the secret or the SSH agent that is meant."""
        if self.kind == "ssh":
            return self.id or "default"
        return self.id or posixpath.basename(self.target) or self.env


class Run(Step, frozen=True, kw_only=True):
    """RUN; *network* is default, none or host, *security* sandbox or insecure."""

    command: Command
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"


class Copy(Step, frozen=True, kw_only=True):
    """COPY and ADD; *inline* are sources that are heredocs. *unpack*: None as the kind of source has it."""

    sources: tuple[str, ...]
    goal: str
    origin: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    inline: tuple[Heredoc, ...] = ()
    add: bool = False
    checksum: str = ""
    keep_git: bool = False
    unpack: bool | None = None


class Cmd(Step, frozen=True, kw_only=True):
    """CMD."""

    command: Command


class Entrypoint(Step, frozen=True, kw_only=True):
    """ENTRYPOINT."""

    command: Command


class Expose(Step, frozen=True, kw_only=True):
    """EXPOSE: ports as they were written, variables not put in yet."""

    ports: str


class Volume(Step, frozen=True, kw_only=True):
    """VOLUME."""

    paths: tuple[str, ...]


class User(Step, frozen=True, kw_only=True):
    """USER: a name or number, with a group or not."""

    name: str


class Workdir(Step, frozen=True, kw_only=True):
    """WORKDIR: relative to the last one, or absolute."""

    path: str


class StopSignal(Step, frozen=True, kw_only=True):
    """STOPSIGNAL."""

    signal: str


class Shell(Step, frozen=True, kw_only=True):
    """SHELL: the words before a command in shell form."""

    words: tuple[str, ...]


class OnBuild(Step, frozen=True, kw_only=True):
    """ONBUILD: the instruction that a build on this image carries out."""

    text: str


class Healthcheck(Step, frozen=True, kw_only=True):
    """*test* as in the configuration of an image; durations in nanoseconds, 0 if not given."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class _InvalidError(ValueError):
    """Why an instruction cannot be read."""


UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_LINK_FLAGS = ("link", "parents", "keep-git-dir", "unpack")
_FLAGS = {
    "FROM": ("platform",),
    "RUN": ("mount", "network", "security"),
    "COPY": ("from", "chown", "chmod", "link", "parents", "exclude"),
    "ADD": ("chown", "chmod", "link", "keep-git-dir", "checksum", "exclude", "unpack"),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
}
_REPEATED = ("mount", "exclude")
_NOT_PUT_OFF = ("ONBUILD", "FROM", "MAINTAINER")
_NAME = re.compile(r"[a-z][a-z0-9._-]*\Z")


def read(file: Dockerfile) -> list[Step]:
    """All instructions of *file*. Raises DockerfileError."""
    found, mistakes = [], []
    for at in file.instructions:
        try:
            found.append(read_one(file, at))
        except DockerfileError as error:
            mistakes.append(error)
    raise_together(mistakes)
    return found


def read_one(file: Dockerfile, at: Instruction) -> Step:
    """Raises DockerfileError."""
    reader = READERS.get(at.word)
    if reader is None:
        close = get_close_matches(at.word, READERS, 1, 0.7)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise file.error(at, f"unknown instruction: {quoted(at.word)}{hint}")
    try:
        flags = _flags(at)
        if not at.rest.strip():
            raise _InvalidError(f"{at.word} requires at least one argument")
        return reader(at, flags, file.escape)
    except _InvalidError as error:
        raise file.error(at, str(error)) from None


class _Flags(dict[str, list[str]]):
    def one(self, name: str, default: str = "") -> str:
        return self.get(name, [default])[-1]

    def truth(self, name: str) -> bool | None:
        if name not in self:
            return None
        word = self.one(name).lower()
        if word in ("true", "1", "t"):
            return True
        if word in ("false", "0", "f"):
            return False
        raise _InvalidError(f"--{name}={quoted(word)}: expecting boolean value for flag {name}")


def _flags(at: Instruction) -> _Flags:
    known = _FLAGS.get(at.word, ())
    out = _Flags()
    for name, value in at.flags:
        if name not in known:
            close = get_close_matches(name, known, 1, 0.6)
            hint = f" (did you mean --{close[0]}?)" if close else ""
            raise _InvalidError(
                f"unknown flag: --{quoted(name)}{hint}" if known else f"{at.word} has no flags: --{quoted(name)}"
            )
        if value is None:
            if name not in _LINK_FLAGS:
                raise _InvalidError(f"missing a value on flag: --{name}")
            value = "true"
        if name in out and name not in _REPEATED:
            raise _InvalidError(f"duplicate flag specified: --{name}")
        out.setdefault(name, []).append(value)
    return out


def _json(rest: str) -> tuple[str, ...] | None:
    """The strings of a JSON list, None if *rest* is not such a list."""
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        if any("\0" in w or any(0xD800 <= ord(c) < 0xE000 for c in w) for w in words):
            raise _InvalidError("a zero byte or half a character in a JSON text")
        return tuple(words)
    return None


def _command(rest: str) -> Command:
    words = _json(rest)
    return Command((rest,), True) if words is None else Command(words, False)


def _words(rest: str) -> tuple[str, ...]:
    words = _json(rest)
    return tuple(rest.split()) if words is None else words


def _pairs(rest: str, escape: str, word: str) -> tuple[tuple[str, str], ...]:
    """`NAME=VALUE …`, quotes kept; or `NAME the rest`."""
    words = raw_words(rest, escape)
    if "=" not in words[0]:
        key, *behind = re.split(r"\s+", rest, maxsplit=1)
        if not behind:
            raise _InvalidError(f"{word} must have two arguments")
        return ((key, behind[0]),)
    out: list[tuple[str, str]] = []
    for text in words:
        name, equals, value = text.partition("=")
        if not equals:
            raise _InvalidError(f"Syntax error - can't find = in {quoted(text)!r}. Must be of the form: name=value")
        if not name:
            raise _InvalidError(f"{word} names can not be blank")
        out.append((name, value))
    return tuple(out)


def _from(at: Instruction, flags: _Flags, escape: str) -> Step:
    words = at.rest.split()
    name = ""
    if len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
        if not _NAME.match(name):
            raise _InvalidError(
                f"invalid name for build stage: {quoted(words[2])!r}, name can't start with a number or contain symbols"
            )
    elif len(words) != 1:
        raise _InvalidError("FROM requires either one or three arguments: FROM IMAGE [AS NAME]")
    return From(at=at, image=words[0], platform=flags.one("platform"), name=name)


def _arg(at: Instruction, flags: _Flags, escape: str) -> Step:
    out: list[tuple[str, str | None]] = []
    for word in raw_words(at.rest, escape):
        name, equals, value = word.partition("=")
        if not name:
            raise _InvalidError("ARG names can not be blank")
        out.append((name, value if equals else None))
    return Arg(at=at, pairs=tuple(out))


def _run(at: Instruction, flags: _Flags, escape: str) -> Step:
    network, security = flags.one("network", "default"), flags.one("security", "sandbox")
    if network not in ("default", "none", "host"):
        raise _InvalidError(f"invalid network mode {quoted(network)!r}: default, none and host are known")
    if security not in ("sandbox", "insecure"):
        raise _InvalidError(f"invalid security {quoted(security)!r}: sandbox and insecure are known")
    mounts = tuple(_mount(text) for text in flags.get("mount", ()))
    return Run(at=at, command=_command(at.rest), mounts=mounts, network=network, security=security)


_MOUNT_KEYS = {
    "type": "kind",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "source": "source",
    "src": "source",
    "from": "origin",
    "id": "id",
    "sharing": "sharing",
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "size": "size",
    "env": "env",
}


def _mount(text: str) -> RunMount:
    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error:
        raise _InvalidError(f"--mount={quoted(text)}: it is not a list with commas") from None
    given: dict[str, str] = {}
    access: bool | None = None
    required = False
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if key in ("ro", "readonly", "rw", "readwrite", "required"):
            truth = {"": True, "true": True, "1": True, "false": False, "0": False}.get(value.lower())
            if truth is None:
                raise _InvalidError(f"invalid value for {key}: {quoted(value)}")
            if key == "required":
                required = truth
            else:
                access = truth if key in ("ro", "readonly") else not truth
        elif key not in _MOUNT_KEYS:
            close = get_close_matches(key, (*_MOUNT_KEYS, "readonly", "required"), 1, 0.6)
            raise _InvalidError(
                f"unexpected key {quoted(key)!r} in --mount" + (f" (did you mean {close[0]}?)" if close else "")
            )
        elif not equals:
            raise _InvalidError(f"invalid field {quoted(field)!r} in --mount must be a key=value pair")
        else:
            given[_MOUNT_KEYS[key]] = value
    mount = RunMount(**given, read_only=access, required=required)
    _check_mount(mount)
    return mount


def _check_mount(mount: RunMount) -> None:
    if mount.kind not in ("bind", "cache", "tmpfs", "secret", "ssh"):
        raise _InvalidError(f"unsupported mount type {quoted(mount.kind)!r}: bind, cache, tmpfs, secret and ssh are known")
    if mount.sharing not in ("shared", "private", "locked"):
        raise _InvalidError(f"unsupported sharing value {quoted(mount.sharing)!r}: shared, private and locked are known")
    if mount.kind in ("bind", "cache", "tmpfs") and not mount.target:
        raise _InvalidError(f"--mount=type={mount.kind} needs a target")
    if "$" in mount.origin:
        raise _InvalidError("'from' doesn't support variable expansion, define alias stage instead")
    if mount.origin and mount.kind not in ("bind", "cache"):
        raise _InvalidError(f"--mount=type={mount.kind} has no from")


def _copy(at: Instruction, flags: _Flags, escape: str) -> Step:
    listed = _json(at.rest)
    words = (raw_words(at.rest, escape) if at.heredocs else at.rest.split()) if listed is None else listed
    if len(words) < 2:
        raise _InvalidError(
            f"{at.word} requires at least two arguments, but only one was provided. Destination could not be determined"
        )
    inline = tuple(at.heredocs)
    sources = tuple(w for w in words[:-1] if not (inline and listed is None and HEREDOC.match(w)))
    goal = words[-1]
    if len(words) > 2 and not goal.endswith("/") and goal not in (".", "..") and not goal.endswith(("/.", "/..")):
        raise _InvalidError(
            f"When using {at.word} with more than one source file, the destination must be a directory and end with a /"
        )
    if "$" in flags.one("from"):
        raise _InvalidError(
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope "
            "as a workaround"
        )
    return Copy(
        at=at,
        sources=sources,
        goal=goal,
        origin=flags.one("from"),
        chown=flags.one("chown"),
        chmod=flags.one("chmod"),
        link=bool(flags.truth("link")),
        parents=bool(flags.truth("parents")),
        excludes=tuple(flags.get("exclude", ())),
        inline=inline,
        add=at.word == "ADD",
        checksum=flags.one("checksum"),
        keep_git=bool(flags.truth("keep-git-dir")),
        unpack=flags.truth("unpack"),
    )


def _shell(at: Instruction, flags: _Flags, escape: str) -> Step:
    words = _json(at.rest)
    if not words:
        raise _InvalidError("SHELL requires the arguments to be in JSON form")
    return Shell(at=at, words=words)


def _on_build(at: Instruction, flags: _Flags, escape: str) -> Step:
    assert at.inner
    if at.inner.word in _NOT_PUT_OFF:
        raise _InvalidError(
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
            if at.inner.word == "ONBUILD"
            else f"{at.inner.word} isn't allowed as an ONBUILD trigger"
        )
    if at.inner.word not in READERS:
        raise _InvalidError(f"unknown instruction: {quoted(at.inner.word)}")
    text = at.rest + "".join(f"\n{doc.content}{doc.name}" for doc in at.inner.heredocs)
    READERS[at.inner.word](at.inner, _flags(at.inner), escape)  # its faults are reported now, not in the image that inherits it
    return OnBuild(at=at, text=text)


def nanoseconds(text: str, name: str) -> int:
    """Of a duration as Go writes it, `1m30s`."""
    found = re.findall(r"([0-9]{1,12}(?:\.[0-9]{0,9})?)(ns|us|µs|ms|s|m|h)", text)
    if text in ("0", "0s"):
        return 0
    if not found or "".join(n + u for n, u in found) != text:
        raise _InvalidError(f"--{name}={quoted(text)}: a duration is written like 1m30s")
    total = int(sum(float(number) * UNITS[unit] for number, unit in found))
    if not 10**6 <= total < 1 << 63:
        raise _InvalidError(
            f"--{name}={quoted(text)}: Interval {name!r} cannot be less than 1ms"
            if total < 10**6
            else f"--{name}={quoted(text)} is out of range"
        )
    return total


def _healthcheck(at: Instruction, flags: _Flags, escape: str) -> Step:
    kind, *more = re.split(r"\s+", at.rest, maxsplit=1)
    kind, rest = kind.upper(), more[0] if more else ""
    if kind == "NONE":
        if rest or flags:
            raise _InvalidError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(at=at, test=("NONE",))
    if kind != "CMD":
        raise _InvalidError(f"Unknown type {quoted(kind)!r} in HEALTHCHECK (try CMD)")
    if not rest:
        raise _InvalidError("Missing command after HEALTHCHECK CMD")
    command = _command(rest)
    if not command.words:
        raise _InvalidError("Missing command after HEALTHCHECK CMD")
    retries = flags.one("retries", "0")
    if not re.fullmatch(r"[0-9]{1,9}", retries):
        raise _InvalidError(f"--retries={quoted(retries)}: a whole number")
    names = ("interval", "timeout", "start-period", "start-interval")
    spans = {name.replace("-", "_"): nanoseconds(flags.one(name), name) for name in names if name in flags}
    return Healthcheck(at=at, test=("CMD-SHELL" if command.shell else "CMD", *command.words), retries=int(retries), **spans)


def _single(kind: Callable[..., Step], field: str) -> Callable[[Instruction, _Flags, str], Step]:
    def reader(at: Instruction, flags: _Flags, escape: str) -> Step:
        return kind(at=at, **{field: at.rest})

    return reader


def _commanded(kind: Callable[..., Step]) -> Callable[[Instruction, _Flags, str], Step]:
    return lambda at, flags, escape: kind(at=at, command=_command(at.rest))


def _paired(kind: Callable[..., Step]) -> Callable[[Instruction, _Flags, str], Step]:
    return lambda at, flags, escape: kind(at=at, pairs=_pairs(at.rest, escape, at.word))


def _volume(at: Instruction, flags: _Flags, escape: str) -> Step:
    paths = _words(at.rest)
    if not paths or not all(p.strip() for p in paths):
        raise _InvalidError("VOLUME specified can not be an empty string")
    return Volume(at=at, paths=paths)


def _stop_signal(at: Instruction, flags: _Flags, escape: str) -> Step:
    if len(at.rest.split()) != 1:
        raise _InvalidError("STOPSIGNAL requires exactly one argument")
    return StopSignal(at=at, signal=at.rest)


def _user(at: Instruction, flags: _Flags, escape: str) -> Step:
    if len(raw_words(at.rest, escape)) != 1:
        raise _InvalidError("USER requires exactly one argument")
    return User(at=at, name=at.rest)


READERS: dict[str, Callable[[Instruction, _Flags, str], Step]] = {
    "FROM": _from,
    "ARG": _arg,
    "ENV": _paired(Env),
    "LABEL": _paired(Label),
    "MAINTAINER": _single(Maintainer, "name"),
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "CMD": _commanded(Cmd),
    "ENTRYPOINT": _commanded(Entrypoint),
    "EXPOSE": _single(Expose, "ports"),
    "VOLUME": _volume,
    "USER": _user,
    "WORKDIR": _single(Workdir, "path"),
    "STOPSIGNAL": _stop_signal,
    "SHELL": _shell,
    "ONBUILD": _on_build,
    "HEALTHCHECK": _healthcheck,
}
