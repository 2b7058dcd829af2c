"""Ten stages built beside dockerd's classic builder and buildah: cold, with one file changed, with nothing changed; and what is
sent of a context of which a hundredth has changed. `python -m bench.building [--smoke]` runs it."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import socket
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from bench.environment import Environment, docker
from bench.rows import Row, row, size
from tests.images import archive, busybox_rootfs

STAGES = size(10, 2)
CASES = ("cold", "changed", "unchanged")
FILES, CONTEXT_BYTES = size(1000, 100), size(500_000_000, 5_000_000)
DOCKER = "/usr/bin/docker"
"""Debian's, of the daemon's age: newer clients have no classic builder."""
Build = Callable[[Environment, Path], float]


def measure(environment: Environment) -> dict[str, Row]:
    """Each with a cache of its own; a rival that is not installed is left out."""
    work = environment.root / "building"
    work.mkdir()
    base = archive(work / "busybox.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")
    environment.pystack("image", "load", "-i", str(base))
    with contextlib.ExitStack() as held:
        builders: dict[str, Build] = {"pystack": _pystack}
        if held.enter_context(docker(environment)):
            builders["docker"] = _docker
        if shutil.which("buildah"):
            builders["buildah"] = _Buildah(environment, work, base)
        else:
            print("buildah is not installed (`apt-get install buildah`): no rival")
        took: dict[tuple[str, str], float] = {}
        for who, build in builders.items():
            folder = _project(work / uuid.uuid4().hex)
            for case in CASES:
                if case == "changed":
                    (folder / "f0").write_text("changed")
                took[who, case] = build(environment, folder)
                print(f"  {who}, {case}: {took[who, case]:.2f} s", flush=True)
    rows = {
        f"build_{case}{'' if who == 'docker' else '_' + who}": row(took["pystack", case], took[who, case])
        for who in builders
        if who != "pystack"
        for case in CASES
    }
    return rows | {"build_context_sent": _sent(environment, work / "large")}


def _sent(environment: Environment, folder: Path) -> Row:
    """MB sent for a context of which each hundredth file has changed, beside all of it, counted at the server's socket."""
    folder.mkdir()
    for number in range(FILES):
        (folder / f"data{number}").write_bytes(os.urandom(CONTEXT_BYTES // FILES))
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY . /all\n")
    (folder / "stack.yml").write_text("services:\n  a: {build: ., image: 'sent:1'}\n")
    counts = []
    for _ in range(2):
        with Counted(environment) as counted:
            counted.environment.pystack("-f", str(folder / "stack.yml"), "build")
        counts.append(counted.sent / 1e6)
        for number in range(0, FILES, 100):
            (folder / f"data{number}").write_bytes(os.urandom(CONTEXT_BYTES // FILES))
    shutil.rmtree(folder)
    return row(counts[1], counts[0], "MB")


class Counted:
    """A socket before the server's that counts what a client sends."""

    def __init__(self, environment: Environment) -> None:
        self.sent = 0
        self._to = environment.environment["PYSTACK_HOST"].removeprefix("unix://")
        self._path = str(environment.root / "counted.sock")
        self.environment = copy.copy(environment)
        self.environment.environment = {**environment.environment, "PYSTACK_HOST": f"unix://{self._path}"}

    def __enter__(self) -> Counted:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self._path)
        self._socket.listen(20)
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        Path(self._path).unlink()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._socket.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._to)
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, goal: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                self.sent += len(data) if counts else 0
                goal.sendall(data)
            goal.shutdown(socket.SHUT_WR)


def _project(folder: Path) -> Path:
    """Stages of five steps, and one more that takes a file of each. No other project has the same steps."""
    folder.mkdir()
    lines = []
    for number in range(STAGES):
        (folder / f"f{number}").write_text(f"file {number}")
        lines += [
            f"FROM busybox AS s{number}",
            f"COPY f{number} /in",
            f"RUN cat /in > /a; echo {folder.name} {number} >> /a",
            "RUN sha256sum /a > /b",
            "RUN cat /a /b > /c",
            "RUN wc -c /c > /out",
        ]
    lines += ["FROM busybox", *(f"COPY --from=s{number} /out /out{number}" for number in range(STAGES))]
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    (folder / "stack.yml").write_text(f"services:\n  a: {{build: ., image: 'built:{folder.name}'}}\n")
    (folder / ".dockerignore").write_text("stack.yml\n")
    return folder


def _pystack(environment: Environment, folder: Path) -> float:
    return environment.pystack("-f", str(folder / "stack.yml"), "build")


def _docker(environment: Environment, folder: Path) -> float:
    return environment.docker(DOCKER, "build", "-q", "-t", f"built:{folder.name}", str(folder))


class _Buildah:
    """With a store of its own, into which *base* is loaded."""

    def __init__(self, environment: Environment, work: Path, base: Path) -> None:
        self._words = [
            "buildah", "--root", str(work / "storage"), "--runroot", str(work / "run"), "--storage-driver", "overlay"
        ]  # fmt: skip
        environment.on_node(*self._words, "pull", "-q", f"oci-archive:{base}")
        words = " ".join(self._words)
        environment.on_node("sh", "-c", f"{words} tag $({words} images -q | head -1) docker.io/library/busybox:latest")

    def __call__(self, environment: Environment, folder: Path) -> float:
        isolation = ["--isolation", "oci", "--runtime", "runc", "--network", "host"]
        return environment.on_node(
            *self._words, "build", "--layers", *isolation, "-q", "-t", f"built:{folder.name}", str(folder)
        )


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["building", *sys.argv[1:]]))
