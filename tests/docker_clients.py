"""Docker clients of others, as Debian packages them: the programs alone, unpacked beside the tests and never installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
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
