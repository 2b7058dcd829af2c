"""Fixtures for tests on the real kernel: a lab a worker, a registry in it, and a `pystack` that speaks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings

from tests.images import archive, busybox_rootfs, tar_of

T = TypeVar("T")

settings.register_profile("pystack", deadline=None)  # how long an example takes is the machine's mood
settings.register_profile("check", deadline=None, max_examples=30)  # `make check`; `make test` has all of them
settings.load_profile("pystack")
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"

PATIENCE = float(os.environ.get("PYSTACK_TEST_PATIENCE", "1"))  # a machine under emulation is slower by this factor


ROOTS = (
    "kernel/",
    "imagestore/test_unpack.py",
    "netplugins/test_elements.py",
    "netplugins/test_kernel.py",
    "netplugins/test_conformance.py",
    "netplugins/test_doctor.py",
    "netplugins/test_resolver.py",
)
"""What of the tests needs root and namespaces as a whole."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need, so that `make check` can leave out what is not there for everybody."""
    top = Path(__file__).parent
    for item in items:
        if str(item.path.relative_to(top)).startswith(ROOTS):
            item.add_marker(pytest.mark.kernel)
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if {"members", "etcd"} & set(getattr(item, "fixturenames", ())) or "etcd" in parameters:
            item.add_marker(pytest.mark.etcd)


def eventually(check: Callable[[], T], within_s: float = 10.0) -> T:
    """What *check* returns, which must not fail after that time; its last failure is the failure."""
    deadline = time.monotonic() + within_s * PATIENCE
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Pystack:
    """The command, as a user runs it, against one lab."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYSTACK_", "COMPOSE_"))}

    def __call__(
        self, *arguments: str, check: bool = True, stdin: str = "", timeout: float = 90, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *arguments],
            capture_output=True,
            text=True,
            input=stdin,
            env=self.environment,
            timeout=timeout * PATIENCE,
            check=False,
            cwd=cwd,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, f"pystack {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments).stdout)

    def on(self, machine: str, *command: str, check: bool = True, timeout: float = 60) -> str:
        done = self("lab", "exec", "--name", self.lab, machine, "--", *command, check=check, timeout=timeout)
        return done.stdout

    def pid(self, machine: str = "outside") -> str:
        """The host's PID of a machine's first process, whose namespaces are the machine's."""
        path = Path(f"/var/lib/pystack-lab/{self.lab}/lab.json")
        return str(json.loads(path.read_text())["machines"][machine]["pid"])


@contextmanager
def cluster_of(nodes: int, *labels: str, servers: int = 1, transport: str = "ssh", disk: str = "") -> Iterator[Pystack]:
    """A lab of this worker's own, with busybox loaded. With several *servers*, or by *transport* etcd, the store is etcd."""
    if os.geteuid() != 0:
        pytest.skip("labs need root")
    name = f"t{uuid.uuid4().hex[:6]}"
    pystack = Pystack(name)
    store: tuple[str, ...] = (
        ("--servers", str(servers), "--store", "etcd", "--transport", transport) if servers > 1 or transport == "etcd" else ()
    )
    store += ("--disk", disk) if disk else ()
    try:
        pystack(
            "lab", "up", "--name", name, "--nodes", str(nodes), *store, *(w for label in labels for w in ("--label", label))
        )
        for word in pystack("lab", "env", "--name", name).stdout.split():
            key, eq, value = word.partition("=")
            if eq:
                pystack.environment[key] = value
        path = Path(pystack.environment["PYSTACK_ROOT"]) / "busybox.tar"
        archive(path, [busybox_rootfs(), tar_of({"srv/second": b"two\n"})], name="docker.io/library/busybox:latest")
        pystack("image", "load", "-i", str(path))
        yield pystack
    finally:
        pystack("lab", "down", "--name", name)


@pytest.fixture(scope="session")
def lab() -> Iterator[Pystack]:
    with cluster_of(1) as pystack:
        yield pystack


@pytest.fixture
def stack(lab: Pystack, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(lab, tmp_path)
    yield made
    made.down()


class Stack:
    """A stack of one test: its file, and the verbs on it."""

    def __init__(self, pystack: Pystack, directory: Path, name: str = "") -> None:
        self.pystack = pystack
        self.directory = directory
        self.file = directory / "stack.yml"
        self.name = name or f"s{uuid.uuid4().hex[:6]}"

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def run(self, verb: str, *arguments: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self.pystack("-f", str(self.file), verb, "-p", self.name, *arguments, check=check, stdin=stdin)

    def up(self, text: str = "", *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        if text:
            self.write(text)
        return self.run("up", *arguments, check=check)

    def down(self) -> None:
        if self.file.exists():
            self.pystack("down", "-p", self.name, "-v")

    def ps(self) -> dict[str, dict[str, object]]:
        rows = json.loads(self.run("ps", "--format", "json").stdout)
        return {row["task"].removeprefix(f"{self.name}-"): row for row in rows}

    def exec(self, service: str, *command: str, check: bool = True) -> str:
        return self.run("exec", "-T", service, *command, check=check).stdout
