"""Loads the stacks of a checked-out commit, as a program that sees only that commit.

It runs as nobody, in an empty root with only the checkout in it, read-only (`agent.trees`), and with bounded memory and
time. So a path or a link that leaves the repository leads nowhere, at whichever key it is, and a file that expands without end
stops only this program.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import zoneinfo
from pathlib import Path
from typing import Any

import msgspec
import yaml

from agent.trees import confine, sandbox
from orchestrator.errors import PystackError
from orchestrator.gitops.load import LIMIT_S, MEMORY, TOP, LoadRequest, LoadResult
from orchestrator.stackfile.inline_files import inline_bind_mounts
from orchestrator.stackfile.load import Loaded, Options, load
from orchestrator.stackfile.model import Stack
from orchestrator.stackfile.naming import NAMES

CALLS = (*sandbox.READ_CALLS, "getcwd", "readlink", "access", "stat", "lstat", "open", "ioctl")
"""The system calls of a reader, and those that `pathlib` also uses, on architectures that have the older ones."""
HELD: list[zoneinfo.ZoneInfo] = []
"""Zones that are held are not read again. Source: zoneinfo, The ZoneInfo class."""
INDEX = ("pystack.yml", "pystack.yaml")


class Listed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `stacks:` in pystack.yml; paths are relative to that file. It is for clusters that follow the repository
    with one of its *targets*; without targets, for all."""

    file: str | list[str]
    name: str = ""
    env_file: str | list[str] = []
    profiles: list[str] = []
    targets: list[str] = []


class StackIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file pystack.yml."""

    stacks: list[Listed]


def main() -> None:
    """Read a LoadRequest as JSON from standard input, and write the reply of the sandbox to standard output."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadRequest)
    _warm_up()
    sys.path.clear()  # the sandbox has no Python files: nothing more can be imported
    place = TOP.lstrip("/")
    tree = confine.open_tree(f"{request.root}/{place}", read_only=True, nested=False)
    bounds = confine.ProcessBounds(place=place, nobody=True, memory=MEMORY, cpu_s=LIMIT_S)
    reply = confine.run(lambda: _answer(request), [tree], calls=CALLS, capabilities=(), bounds=bounds)
    sys.stdout.write(json.dumps(reply))


def _answer(request: LoadRequest) -> confine.Reply:
    try:
        found = _all(request)
    except PystackError as error:
        found = LoadResult(problem=_inside(str(error)))
    except OSError as error:
        found = LoadResult(problem=_inside(f"{error.filename or 'the repository'} cannot be read: {error.strerror}"))
    return {"found": msgspec.json.encode(found).decode()}


def _inside(text: str) -> str:
    return text.replace(f"{TOP}/", "").replace(TOP, "the repository")


def _warm_up() -> None:
    """Import the modules that loading imports late, and read the time zones: the root of the sandbox has no files of these."""
    HELD.extend(zoneinfo.ZoneInfo(name) for name in zoneinfo.available_timezones())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stack.yml"
        file.write_text(
            "name: warm\nservices: {a: {image: i, command: 'a b', x-schedule: '@daily'}, b: {extends: a, ports: ['80:80']}}\n"
        )
        load(Options(files=(str(file),)), {})
        file.write_text("services: {a: {imagee: é}}\n")
        with contextlib.suppress(PystackError):
            load(Options(files=(str(file),)), {})


def _all(request: LoadRequest) -> LoadResult:
    stacks: list[Stack] = []
    warnings: list[str] = []
    problems: list[str] = []
    for options in _listed(request):
        try:
            loaded = load(options, {})
            if request.suffix:  # the names of networks and volumes follow that of the stack
                named = f"{loaded.stack.name}-{request.suffix}"
                loaded = load(msgspec.structs.replace(options, project_name=named), {})
        except PystackError as error:
            problems.append(str(error))
            continue
        stack, notes = inline_bind_mounts(loaded.stack, Path(TOP))  # no node has the files of the repository
        loaded = msgspec.structs.replace(loaded, stack=stack)
        warnings += notes
        problems += _refused(loaded)
        if twin := next((s for s in stacks if s.name == loaded.stack.name), None):
            problems.append(f"{options.files[0]}: another file already has a stack {twin.name}: give one of them `name:`")
        stacks.append(loaded.stack)
        warnings += [str(w) for w in loaded.warnings]
    if problems:
        raise PystackError("\n".join(problems))
    return LoadResult(tuple(stacks), tuple(warnings))


def _listed(request: LoadRequest) -> list[Options]:
    """What to load: the file, those that pystack.yml lists, or those in the folder or in its folders."""
    place = Path(TOP) / request.path
    if not place.resolve().is_relative_to(TOP) or not place.exists():
        raise PystackError(f"the repository has no {request.path}: see --path")
    if place.is_file():
        return [_options((place,), request)]
    index = next((place / name for name in INDEX if (place / name).is_file()), None)
    if index:
        return _of_index(index, request)
    own = _stack_file(place)
    found = [own] if own else [f for d in sorted(place.iterdir()) if d.is_dir() and (f := _stack_file(d))]
    if not found:
        raise PystackError(f"{request.path}: neither the folder nor the folders in it have a stack file or a pystack.yml")
    return [_options((file,), request) for file in found]


def _stack_file(folder: Path) -> Path | None:
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def _options(files: tuple[Path, ...], request: LoadRequest, **more: Any) -> Options:
    directory = files[0].parent
    # the name of a file at the top would be that of TOP
    name = more.pop("project_name", "") or (request.name if str(directory) == TOP and not _sets_name(files) else "")
    return Options(files=tuple(map(str, files)), project_name=name, **more)


def _sets_name(files: tuple[Path, ...]) -> bool:
    try:
        return any("name" in (yaml.safe_load(f.read_bytes()) or {}) for f in files)
    except (yaml.YAMLError, TypeError, OSError):
        return True  # loading it reports the problem


def _of_index(index: Path, request: LoadRequest) -> list[Options]:
    try:
        listed = msgspec.convert(yaml.safe_load(index.read_bytes()), StackIndex).stacks
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        raise PystackError(f"{index}: {error}") from None
    out = []
    for one in listed:
        if one.targets and not set(one.targets) & set(request.targets):
            continue
        files = tuple(index.parent / f for f in ([one.file] if isinstance(one.file, str) else one.file))
        if missing := [str(f) for f in files if not f.is_file()]:
            raise PystackError(f"{index}: {', '.join(missing)} does not exist")
        env = [one.env_file] if isinstance(one.env_file, str) else one.env_file
        out.append(
            _options(
                files,
                request,
                project_name=one.name,
                profiles=tuple(one.profiles),
                env_files=tuple(str(index.parent / e) for e in env),
            )
        )
    return out


def _refused(loaded: Loaded) -> list[str]:
    """The problems of a stack that only one from a repository has."""
    out = [
        f"{p.service.where}: {p.service.name}: provider: the server runs no programs for a repository" for p in loaded.providers
    ]
    for service in loaded.stack.services:
        if service.build:
            out.append(
                f"{service.where}: {service.name}: build: the server builds no images for a repository: push it, set image:"
            )
        out += [
            f"{service.where}: {service.name}: {m.source.removeprefix(TOP)} is a file of the repository, which no node has: "
            "make it smaller, mount it read-only, or use configs:"
            for m in service.container.mounts
            if m.kind == "bind" and m.source.startswith(f"{TOP}")
        ]
    return out


if __name__ == "__main__":
    main()
