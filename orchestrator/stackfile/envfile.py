"""`.env` and `env_file`: NAME=VALUE lines. Source: Compose Specification, 05-services.md (env_file format); Docker's manual,
"Set, use, and manage variables in a Compose file with interpolation", `.env` file syntax."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from orchestrator.stackfile.interpolate import InvalidError, substitute

MAX_BYTES = 1 << 20
_LINE = r"(?s)\s*(?:export\s+)?([\w.\[\]-]+)\s*(?:[=:]\s*(.*))?\Z"
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "c": "\\c",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "$": "$$",
}
_ESCAPED = r"\\(?:0([0-7]{1,3})|([abcfnrtv$\"\\]))"


def parse(text: str, outer: Mapping[str, str]) -> dict[str, str | None]:
    """Names → values; None for a bare NAME, whose value comes from outside. Raises InvalidError with the line."""
    out: dict[str, str | None] = {}
    lines = text.removeprefix("\ufeff").split("\n")
    number = 0
    while number < len(lines):
        line = lines[number].rstrip("\r")
        number += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.match(_LINE, line)
        if not match:
            raise InvalidError(f"line {number}: {line.strip()[:40]!r} is not NAME=VALUE")
        name, raw = match[1], match[2]
        if raw is None:
            out[name] = outer.get(name)
            continue
        first = number
        quote = raw[:1]
        if quote in ("'", '"'):
            while (end := _closing(raw, quote)) < 0:
                if number >= len(lines):
                    raise InvalidError(f"line {first}: a quote is not closed")
                raw += "\n" + lines[number].rstrip("\r")
                number += 1
            value = raw[1:end]
        else:
            value = re.split(r"\s#", raw, maxsplit=1)[0].strip()
        if quote == "'":
            out[name] = value.replace("\\'", "'")
            continue
        if quote == '"':
            value = re.sub(_ESCAPED, lambda m: chr(int(m[1], 8) & 0xFF) if m[1] else _ESCAPES[m[2]], value)
        known = {**{k: v for k, v in out.items() if v is not None}, **outer}
        try:
            out[name] = substitute(value, known)
        except InvalidError as error:
            raise InvalidError(f"line {first}: {error}") from error
    return out


def parse_raw(text: str, outer: Mapping[str, str]) -> dict[str, str | None]:
    """As `docker run --env-file` reads: a value is all behind the first =, quotes, $ and # included."""
    out: dict[str, str | None] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        name, sep, value = line.lstrip().partition("=")
        if not name or name.startswith("#"):
            continue
        if re.search(r"\s", name):
            raise InvalidError(f"line {number}: {line.strip()[:40]!r} is not NAME=VALUE")
        out[name] = value if sep else outer.get(name)
    return out


def _closing(text: str, quote: str) -> int:
    at = 1
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        if text[at] == quote:
            return at
        at += 1
    return -1


def read(path: Path, outer: Mapping[str, str], *, raw: bool = False) -> dict[str, str | None]:
    """*raw* takes values as they stand. Raises InvalidError, OSError.

    A pipe is read only where a shell hands one over, `--env-file <(command)`: on any other, nobody may ever write."""
    handed_over = path.is_fifo() and path.parent in (Path("/dev/fd"), Path("/proc/self/fd"))
    if not (path.is_file() or handed_over or path == Path("/dev/null")):
        raise FileNotFoundError(2, "no such file", str(path))
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        return (parse_raw if raw else parse)(content.decode(), outer)
    except UnicodeDecodeError:
        raise InvalidError("not UTF-8") from None
