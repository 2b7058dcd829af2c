"""Which files a stack is read from, and its name where that is known without reading them as YAML.

Most verbs need the name alone; a YAML parser and a whole stack's reading would be most of their time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import PystackError

NAMES_OF_COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
NAMES = ("stack.yml", "stack.yaml", *NAMES_OF_COMPOSE)
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")
NAME_RULE = "lower case letters, digits, - and _, beginning with a letter or digit"
_TOP_NAME = re.compile(rb"^['\"]?name['\"]?\s*:(.*)$|^[{%&!<]|^---", re.M)


def find(start: Path, names: Sequence[str] = NAMES) -> Path:
    """The file of *start* or of the nearest folder above it that has one of *names*, the first that there is."""
    for directory in (start, *start.parents):
        for name in names:
            if (directory / name).is_file():
                return directory / name
    raise PystackError(f"no configuration file provided: not found in {start} or above: {', '.join(names[:4])}, or -f FILE")


def _with_override(path: Path) -> list[Path]:
    """The file that is found, and beside a Compose file its override, as Docker Compose takes it."""
    names = () if path.stem == "stack" else (path.stem, "compose", "docker-compose")
    for over in (path.with_name(f"{name}.override{suffix}") for name in dict.fromkeys(names) for suffix in (".yml", ".yaml")):
        if over.is_file():
            return [path, over]
    return [path]


def stack_files(given: Sequence[str], environment: Mapping[str, str], start: Path, names: Sequence[str] = NAMES) -> list[Path]:
    """-f, COMPOSE_FILE (below *start*, as that variable can stand in its .env), or the file that is found from *start* upwards.

    Raises PystackError where there is none."""
    if given:
        return [Path(f) for f in given]
    separator = environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    named = [start / f for f in environment.get("COMPOSE_FILE", "").split(separator) if f]
    return named or _with_override(find(start, names))


def folder_name(directory: Path) -> str:
    """The project's name that the folder gives; "" where nothing of the folder's name can be used."""
    return re.sub(r"[^a-z0-9_-]", "", directory.name.lower()).lstrip("_-")


def plain_name(paths: Sequence[Path], directory: Path, env_files: Sequence[str]) -> str | None:
    """The name, or None where only a reading of the files tells it: a value that is computed, an unusual layout."""
    for env_file in env_files or (str(directory / ".env"), ".env"):
        try:
            if "COMPOSE_PROJECT_NAME" in Path(env_file).read_text():
                return None
        except (OSError, UnicodeDecodeError):
            if env_files:
                return None
    name = folder_name(directory)
    for path in paths:
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        hits = list(_TOP_NAME.finditer(raw))
        if len(hits) > 1 or (hits and hits[0].group(1) is None):
            return None
        if hits:
            name = hits[0].group(1).decode(errors="replace").strip()
            if not NAME.match(name):
                return None
    return name or None
