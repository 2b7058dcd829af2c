"""The stacks of the shared corpora, with stand-ins for their images, and the life of one: plan, up, no-op, change, down.

A stand-in is busybox that runs whatever it is told as a long sleep, and answers every health check.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import SHARED, Pystack
from tests.images import archive, busybox_rootfs, tar_of

CORPORA = SHARED / "corpora"
IMPOSSIBLE = {
    "awesome-compose/wasmedge-mysql-nginx": "node.platform.os == wasi",
    "compose-e2e/testdata/TestCreateLocalMultiPlatformImage": "node.platform",
}
"""Stacks that no node of a lab can run, and the words in which `up` says so."""
NOT_STACKS = {
    "compose-e2e/testdata/TestCascadeStop": "waits for the end of a service, and stand-ins have none",
    "compose-e2e/testdata/TestInitContainer": "the same",
    "compose-e2e/testdata/TestUpContainerNameConflict": "is made to be refused: two services have one container_name",
    "compose-e2e/testdata/TestUnnecessaryResources": "is made to be refused: an address that its network has not",
    "compose-e2e/testdata/TestUpWithDependencyExit": "is made to fail: who is waited for has no health, and ends with 1",
    "compose-e2e/testdata/TestStartInterval": "is made to be refused: start_interval without start_period",
    "compose-e2e/testdata/TestPreStartHookMidSequenceFailure": "is made to fail: a pre_start container ends with 17",
    "compose-e2e/testdata/TestPreStartHookBuildInheritance": "runs what its Dockerfile makes, and stand-ins have none of it",
    "compose-e2e/testdata/TestPullRefreshWindowExplicitPull": "pulls from a registry what is there already",
    "compose-e2e/testdata/TestDependsOnMultipleProviders": "needs a program that the corpora lack",
    "compose-e2e/testdata/TestProviderRawSetEnvOverridesInheritedEnv": "the same",
    "compose-e2e/testdata/TestProviderRawSetEnvOverridesUserEnv": "the same",
}
VARIABLES = {
    "BUILT_IMAGE": "stand-in-built",
    "TAG_IMAGE": "stand-in-tagged",
    "REQUESTED_PLATFORM": "linux/riscv64",
    "IMAGE": "any",
    "POSTGRES_USER": "u",
    "POSTGRES_PW": "p",
    "POSTGRES_DB": "d",
    "PGADMIN_MAIL": "a@b.example",
    "PGADMIN_PW": "p",
    "FILE": "./text_file.txt",
    "CONFIG": "a config",
    "SECRET": "a secret",
}
"""What a user would have in the environment for the files that ask for it."""
CHECKS = ("bin/mysqladmin", "bin/pg_isready", "bin/redis-cli", "bin/curl", "bin/mysql", "opt/mssql-tools/bin/sqlcmd")
STAND_IN = b"#!/bin/sh\ntrap 'exit 0' TERM INT\nsleep 100000 & wait\n"
ATTEMPTS = 2
"""How often a second `up` must find nothing to do."""


def files() -> list[Path]:
    """Every Compose file of the corpora that is a stack by itself."""
    found = [p for folder in ("awesome-compose", "voting-app") for p in (CORPORA / folder).glob("**/*compose*.y*ml")]
    found += (CORPORA / "voting-app").glob("*stack*.yml")
    found += (CORPORA / "conformance-tests").glob("tests/*/compose.yaml")
    found += (CORPORA / "compose-e2e").glob("*/*/compose.yaml")
    return sorted(set(found))


def name_of(file: Path) -> str:
    """How a stack of the corpora is called in tables."""
    short = str(file.relative_to(CORPORA))
    return str(Path(short).parent) if file.stem == "compose" else short


def image(lab: Pystack, name: str, layer: dict[str, bytes | str | None], config: dict[str, Any]) -> None:
    """An image of busybox and *layer* on the lab's first node."""
    path = Path(lab.environment["PYSTACK_ROOT"]) / "image.tar"
    archive(path, [busybox_rootfs(), tar_of(layer)], name=f"docker.io/{name}", config=config)
    lab("image", "load", "-i", str(path))


def stand_in(lab: Pystack) -> None:
    """The image that stands for all others, on the lab's first node."""
    programs: dict[str, bytes | str | None] = {
        **dict.fromkeys(CHECKS, b"#!/bin/sh\nexit 0\n"),
        "bin/nodemon": STAND_IN,
        "bin/nc": b"#!/bin/sh\nexit 0\n",
    }
    image(lab, "library/stand-in:latest", {"bin/stand-in": STAND_IN, **programs}, {"Entrypoint": ["/bin/stand-in"]})


def _filled(text: str) -> str:
    """*text* with VARIABLES put in."""
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda m: VARIABLES.get(m[1], ""), text)


def furnished(file: Path, folder: Path, lab: Pystack) -> Path:
    """A copy of a stack's folder, with stand-ins for what it builds and for the images that it names."""
    shutil.copytree(file.parent, folder, dirs_exist_ok=True)
    document = yaml.safe_load(file.read_text())
    for one in (c for section in ("configs", "secrets") for c in (document.get(section) or {}).values() if "file" in c):
        (folder / one["file"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / one["file"]).touch()  # the corpora leave some out
    for body in (document.get("services") or {}).values():
        if build := body.get("build"):
            wish = {"context": build} if isinstance(build, str) else build
            context = folder / wish.get("context", ".")
            context.mkdir(parents=True, exist_ok=True)
            (context / wish.get("dockerfile", "Dockerfile")).write_text(f"FROM stand-in AS {wish.get('target', 'only')}\n")
            for base in re.findall(r"^\s*FROM (\S+)", wish.get("dockerfile_inline", ""), re.M):
                lab("image", "tag", "stand-in", base)
        elif named := body.get("image"):
            lab("image", "tag", "stand-in", re.sub(r"@sha256:\w+", "", _filled(named)))
        for mount in body.get("volumes") or []:
            if isinstance(mount, dict) and mount["type"] == "image":
                image(lab, re.sub("^(?=[^/]+$)", "library/", mount["source"]), {f"{mount['image']['subpath']}/file": b""}, {})
        for hook in body.get("pre_start") or []:
            if "image" in hook:
                lab("image", "tag", "busybox", hook["image"])
        for check in re.findall(r"/(healthchecks/\w+\.sh)", json.dumps(body)):
            (folder / check).parent.mkdir(exist_ok=True)
            (folder / check).write_text("#!/bin/sh\n")
            (folder / check).chmod(0o755)
    return folder / file.name


@dataclass
class Lived:
    """One row of the table: a stack, how long each step took, and what went wrong."""

    stack: str
    services: int = 0
    tasks: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    problem: str = ""


class Life:
    """One stack on one lab, from its file to nothing left."""

    def __init__(self, lab: Pystack, file: Path, project: str) -> None:
        self.lab, self.file, self.project = lab, file, project
        self.more: tuple[str, ...] = ()
        self.row = Lived("")

    def _run(self, *words: str, code: Sequence[int] = (0,)) -> str:
        said = ("-f", str(self.file), *self.more, *words[:1], "-p", self.project, *words[1:])
        done = self.lab(*said, check=False, timeout=120)
        assert done.returncode in code, f"{words[0]}: exit {done.returncode}: {done.stdout[-300:]}{done.stderr[-700:]}"
        return done.stdout

    def _plan(self) -> list[dict[str, Any]]:
        """The steps of `plan`, with those that only say that something stays as it is."""
        steps: list[dict[str, Any]] = json.loads(self._run("plan", "--json"))["steps"]
        return steps

    def _ids(self) -> dict[str, str]:
        return {row["task"]: row["id"] for row in json.loads(self._run("ps", "-a", "--format", "json"))}

    def _nothing_to_do(self) -> None:
        before = self._ids()
        for _ in range(ATTEMPTS):
            steps = [f"{s['action']} {s['name']}: {s['reason']}" for s in self._plan() if s["action"] != "none"]
            assert not steps, f"a second plan has {steps}"
            self._run("plan", "--exit-code")
            self._run("up", "-d")
            assert self._ids() == before, "a second up made other containers"

    def load(self) -> None:
        self.row.services = len(json.loads(self._run("config", "--format", "json")).get("services") or {})

    def plan(self) -> None:
        self.planned = {s["name"] for s in self._plan() if s["kind"] == "task"}
        self.row.tasks = len(self.planned)

    def up(self) -> None:
        self._run("up", "-d")
        assert (there := set(self._ids())) == self.planned, f"planned {sorted(self.planned)}, there is {sorted(there)}"

    def change(self) -> None:
        """One service has one more variable: it is planned, made anew, and then there is nothing more to do."""
        bodies = json.loads(self._run("config", "--format", "json")).get("services") or {}
        changed = next((name for name, body in bodies.items() if "provider" not in body), "")
        if not changed:
            return
        over = self.file.parent / "change.yaml"
        over.write_text(f"services: {{{json.dumps(changed)}: {{environment: {{PYSTACK_CHANGE: '1'}}}}}}\n")
        self.more = ("-f", str(over))
        before = self._ids()
        named = {s["name"] for s in self._plan() if s["kind"] == "task" and s["action"] != "none"}
        self._run("up", "-d")
        after = self._ids()
        made = {name for name in after if after[name] != before.get(name)}
        assert made, f"{changed} was changed, and nothing was made anew"
        assert made <= named, f"made anew without a word in the plan: {sorted(made - named)}"

    def down(self) -> None:
        self._run("down", "-v", "-t", "2")
        left = [r for r in self.lab("container", "ls", "-a").stdout.splitlines() if self.project in r]
        assert not left, f"down left {left}"

    def live(self, row: Lived) -> None:
        """All steps; the first that fails is *row*'s problem, and the stack is taken away all the same."""
        self.row = row
        steps: list[tuple[str, Callable[[], None]]] = [
            ("load", self.load),
            ("plan", self.plan),
            ("up", self.up),
            ("no-op", self._nothing_to_do),
            ("change", self.change),
            ("no-op again", self._nothing_to_do),
            ("down", self.down),
        ]
        try:
            for name, step in steps:
                begun = time.monotonic()
                step()
                row.seconds[name] = round(time.monotonic() - begun, 1)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            row.problem = f"{name}: {error}"
            self.lab("down", "-p", self.project, "-v", "-t", "1", check=False)


def lives(lab: Pystack, chosen: Sequence[Path], folder: Path) -> Iterator[Lived]:
    """The row of each stack of *chosen* after its life on *lab*, whose first node has the stand-in."""
    lab.environment |= VARIABLES
    for number, file in enumerate(chosen):
        row = Lived(name_of(file))
        copy = furnished(file, folder / f"{number}" / file.parent.name, lab)
        Life(lab, copy, f"life{number}").live(row)
        yield row
