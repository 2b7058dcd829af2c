"""The shapes that values of keys have: each makes a row, which reads a value and answers with fields."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from agent.contract.container import DeviceRequest, Hook, Ulimit
from agent.contract.options import Kind, Option
from orchestrator.stackfile.load_context import LoadContext, dotted, kind
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.merge import as_mapping
from orchestrator.stackfile.model import Placement
from orchestrator.stackfile.units import parse_bytes, parse_duration

Fields = dict[str, Any]
FieldReader = Callable[["ServiceContext", Any, Path_], Fields]


class ServiceContext:
    """What rows share while one service is read."""

    def __init__(self, reading: LoadContext, name: str, body: dict[str, Any]) -> None:
        self.reading = reading
        self.name = name
        self.body = body
        self.path: Path_ = ("services", name)
        self.platform: tuple[str, ...] = ()
        self.placement = Placement()  # `deploy` and `x-placement` both speak of it
        self.requests: list[DeviceRequest] = []  # so do `devices`, `gpus` and `deploy`
        self.refusals: list[str] = []

    @property
    def variables(self) -> Mapping[str, str]:
        """Those of the client, with what an `include` gives its services."""
        return self.reading.tree.variables.get(self.path, self.reading.environment)

    def problem(self, path: Path_, why: str, fix: str = "") -> None:
        """Add a problem at *path*, as `LoadContext.problem` does."""
        self.reading.problem(path, why, fix)

    def keep_from_starting(self, path: Path_, why: str, fix: str = "") -> None:
        """The file is well-formed and can be shown; the service can be no container here."""
        self.refusals.append(f"{self.reading.mark(path)}: {dotted(path)}: {why}{': ' if fix else ''}{fix}")


GO_EXPONENT = 1e21
"""From here on Go's %v writes numbers with an exponent. Source: pkg.go.dev/fmt."""


def scalar(value: Any) -> str:
    """A scalar of YAML as text: true and false in small letters, null as "", a number as Go prints it (1.0 as 1)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < GO_EXPONENT:
        return str(int(value))
    return "" if value is None else str(value)


def flag(value: Any) -> bool:
    """True or false, which may be written as text."""
    return value.lower() in ("true", "yes", "on", "y") if isinstance(value, str) else bool(value)


def permissions(value: Any) -> int:
    """Permission bits: a number as YAML reads it, or octal digits as text. Raises ValueError."""
    return int(value, 8) if isinstance(value, str) else int(value)


def text(field: str) -> FieldReader:
    """A reader of *field* as text."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        del draft, path
        return {field: scalar(value)}

    return row


def boolean(field: str) -> FieldReader:
    """A reader of *field* as true or false."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        del draft, path
        return {field: flag(value)}

    return row


def integer(field: str, low: int = -1, high: int = 1 << 62) -> FieldReader:
    """A reader of *field* as a whole number from *low* to *high*; a negative one, where it is allowed, stands for 0, no
    limit."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        try:
            number = int(scalar(value))
            if isinstance(value, bool) or not low <= number <= high:
                raise ValueError
        except ValueError:
            span = f"of at least {low}" if high == 1 << 62 else f"from {low} to {high}"
            draft.problem(path, f"must be a whole number {span}, not {scalar(value) or kind(value)}")
            return {}
        return {field: 0 if low == -1 and number < 0 else number}  # -1 is "no limit" where it may be written

    return row


def decimal(field: str, what: str = "number of CPUs") -> FieldReader:
    """A reader of *field* as a number, at least 0."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        try:
            number = float(scalar(value))
            if not 0 <= number < 1e6:
                raise ValueError
        except ValueError:
            draft.problem(path, f"must be a {what} such as 0.5, not {scalar(value) or kind(value)}")
            return {}
        return {field: number}

    return row


def size(field: str) -> FieldReader:
    """A reader of *field* as bytes, written as 64m; -1 stands for 0, no limit."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        try:
            return {field: 0 if str(value) == "-1" else parse_bytes(value)}
        except ValueError as error:
            report = draft.keep_from_starting if isinstance(value, int) else draft.problem
            report(path, str(error))
            return {}

    return row


def duration(field: str) -> FieldReader:
    """A reader of *field* as seconds, written as 1m30s."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        try:
            return {field: parse_duration(value)}
        except ValueError as error:
            draft.problem(path, str(error))
            return {}

    return row


def microseconds(field: str, low: int = 1000) -> FieldReader:
    """A number of microseconds, at least *low*, or a duration as text."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        try:
            number = int(value) if str(scalar(value)).lstrip("-").isdecimal() else round(parse_duration(value) * 1e6)
        except (TypeError, ValueError) as error:
            draft.problem(path, str(error))
            return {}
        if not low <= number <= 10**9 and not (field == "cpu_quota" and number <= 0):
            draft.keep_from_starting(path, f"must be at least {low} microseconds")
            return {}
        return {field: max(number, 0)}

    return row


def words(field: str) -> FieldReader:
    """One text or a list of texts."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        del draft, path
        items = value if isinstance(value, list) else [value]
        return {field: tuple(dict.fromkeys(scalar(item) for item in items))}

    return row


def pairs(field: str) -> FieldReader:
    """NAME=VALUE lists and mappings."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        del draft, path
        return {field: tuple(sorted((k, scalar(v)) for k, v in as_mapping(value).items()))}

    return row


READERS: dict[Kind, Callable[[str], FieldReader]] = {
    Kind.FLAG: boolean,
    Kind.TEXT: text,
    Kind.SIZE: size,
    Kind.WORDS: words,
    Kind.WORD_OR_WORDS: words,
    Kind.PAIRS: pairs,
}


def plain(option: Option) -> FieldReader:
    """The reader of a plain option's key."""
    if option.kind is Kind.WHOLE:
        return integer(option.field, option.low, option.high)
    return READERS[option.kind](option.field)


def command_line(field: str) -> FieldReader:
    """A list is taken as it is, text is split as a shell would; null keeps the image's own."""

    def row(draft: ServiceContext, value: Any, path: Path_) -> Fields:
        if value is None:
            return {}
        if isinstance(value, list):
            return {field: tuple(scalar(item) for item in value)}
        try:
            return {field: tuple(shlex.split(scalar(value)))}
        except ValueError as error:
            draft.problem(path, f"cannot be split into words: {error}")
            return {}

    return row


def ulimits(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read `ulimits`: a number, or soft and hard ones, for each name."""
    out = []
    for name, item in draft.reading.mapping(value, path).items():
        body = item if isinstance(item, dict) else {"soft": item, "hard": item}
        try:
            out.append(Ulimit(name=name, soft=int(body["soft"]), hard=int(body["hard"])))
        except (KeyError, TypeError, ValueError):
            draft.problem((*path, name), "must be a number, or soft: and hard: numbers")
    return {"ulimits": tuple(sorted(out, key=lambda u: u.name))}


def extra_hosts(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read `extra_hosts`: a mapping, or a list of NAME=ADDRESS or NAME:ADDRESS."""
    out: list[tuple[str, str]] = []
    if isinstance(value, dict):
        for name, item in value.items():
            out += [(name, a) for i in (item if isinstance(item, list) else [item]) for a in scalar(i).split(",")]
    else:
        for number, item in enumerate(draft.reading.sequence(value, path)):
            name, sep, address = scalar(item).replace("=", ":", 1).partition(":")
            if not sep:
                draft.problem((*path, number), f"{item!r} must be NAME:ADDRESS")
                continue
            out += [(name, a) for a in address.split(",")]
    for name, address in out:
        if not name or set(name) & set(":=, "):
            draft.problem(path, f"{name!r} is not a host name", "write NAME=ADDRESS")
        plain = address.strip("[]")
        if plain != "host-gateway":
            try:
                ipaddress.ip_address(plain)
            except ValueError:
                draft.keep_from_starting(path, f"{name}: {address!r} is not an IP address")
    return {"extra_hosts": tuple((n, a.strip("[]")) for n, a in out)}


def read_hook(draft: ServiceContext, body: dict[str, Any], words: tuple[str, ...]) -> Hook:
    """The hook that runs *words*, with what else *body* says of it."""
    variables = {
        k: draft.variables.get(k, "") if v is None else scalar(v) for k, v in as_mapping(body.get("environment")).items()
    }
    return Hook(
        command=words,
        user=scalar(body.get("user")),
        privileged=flag(body.get("privileged")),
        working_dir=scalar(body.get("working_dir")),
        environment=tuple(sorted(variables.items())),
    )
