"""Docker clients of others, as Debian, PyPI and npm have them: kept beside the tests, and never installed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pystack-tests"


LIBRARIES = (
    "attr certifi chardet charset-normalizer distro docker dockerpty docopt dotenv idna jsonschema pkg-resources pyrsistent "
    "requests six texttable urllib3 websocket yaml"
)
COMPOSE = ("docker-compose", *(f"python3-{name}" for name in LIBRARIES.split()))
"""Docker Compose 1.29 of Debian, and the libraries that it imports."""


@cache
def debian_docker() -> Path | None:
    """The `docker` of Debian's docker.io, whose BuildKit client is built in; None where the package is not to be had."""
    folder = _debian("docker.io")
    return folder and folder / "usr/bin/docker"


@cache
def debian_compose() -> Path | None:
    """A folder with the `docker-compose` of Debian, version 1.29; None where its packages are not to be had."""
    folder = _debian(*COMPOSE)
    if folder is None:
        return None
    program = folder / "bin" / "docker-compose"
    if not program.exists():
        program.parent.mkdir(exist_ok=True)
        fresh = program.with_suffix(f".{os.getpid()}")
        libraries = folder / "usr/lib/python3/dist-packages"
        fresh.write_text(f'#!/bin/sh\nPYTHONPATH={libraries} exec /usr/bin/python3 {folder}/usr/bin/docker-compose "$@"\n')
        fresh.chmod(0o755)
        fresh.rename(program)
    return program.parent


def _debian(*packages: str) -> Path | None:
    """The content of Debian's *packages*, unpacked and not installed; None where one is not to be had."""

    def fill(folder: Path) -> list[list[str]]:
        return [
            [
                "bash",
                "-c",
                'cd "$0" && apt-get download -qq "$@" && for p in *.deb; do dpkg -x "$p" .; done',
                str(folder),
                *packages,
            ]
        ]

    return _kept("debian", packages, fill)


@cache
def python_with(*requirements: str) -> Path | None:
    """The interpreter of a virtual environment that has *requirements*; None where they are not to be had."""

    def fill(folder: Path) -> list[list[str]]:
        return [
            [sys.executable, "-m", "venv", str(folder)],
            [f"{folder}/bin/python", "-m", "pip", "install", "-q", *requirements],
        ]

    folder = _kept("python", requirements, fill)
    return folder and folder / "bin" / "python"


@cache
def modules_of_npm(*packages: str) -> Path | None:
    """The folder node_modules with *packages*; None where there is no npm, or they are not to be had."""
    if shutil.which("npm") is None:
        return None
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    folder = _kept("npm", packages, lambda folder: [[*command, "--prefix", str(folder), *packages]])
    return folder and folder / "node_modules"


def _kept(kind: str, wanted: tuple[str, ...], fill: Callable[[Path], list[list[str]]]) -> Path | None:
    """A folder that the commands of *fill* filled once, for all that run tests; None where one failed."""
    folder = FOLDER / f"{kind}-{hashlib.sha256(repr((sys.version, wanted)).encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            for command in fill(folder):
                if subprocess.run(command, capture_output=True, check=False).returncode:
                    return None
            done.touch()
    return folder


@cache
def debian_emulator(machine: str) -> Path | None:
    """Debian's static qemu for programs of *machine* (aarch64); None where the package is not to be had."""
    folder = _debian("qemu-user-static")
    program = folder and folder / f"usr/bin/qemu-{machine}-static"
    return program if program and program.exists() else None
