"""Docker clients of others, as Debian, PyPI and npm have them: kept beside the tests, and never installed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pystack-tests"


@cache
def debian_docker() -> Path | None:
    """The `docker` of Debian's docker.io, whose BuildKit client is built in; None where the package is not to be had."""
    path = FOLDER / "docker.io" / "docker"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["apt-get", "download", "-qq", "docker.io"], cwd=folder, capture_output=True, check=False)
        packages = list(Path(folder).glob("docker.io_*.deb"))
        if done.returncode or not packages:
            return None
        subprocess.run(["dpkg", "-x", str(packages[0]), f"{folder}/out"], check=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        shutil.copy(f"{folder}/out/usr/bin/docker", fresh)
        fresh.rename(path)
    return path


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
