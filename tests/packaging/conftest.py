"""What `make release` has built, and a bare Debian to install it in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / "build/release"


@pytest.fixture(scope="session")
def release() -> Path:
    if not (RELEASE / "SHA256SUMS").is_file():
        pytest.skip("`make test-packages` builds what this looks at")
    return RELEASE


class Bare:
    """A Debian of packages alone, in a directory; its programs run in namespaces of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, script: str, *, network: bool = False, check: bool = True, timeout: float = 400) -> str:
        """Run *script* as root of a new PID, mount and, but for *network*, network namespace. Returns all that it says."""
        inside = f"mount -t proc proc /proc; mount -t sysfs sysfs /sys 2>/dev/null; ip link set lo up 2>/dev/null; {script}"
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        own += [] if network else ["--net"]
        prepare = f"mount --bind {self.root} {self.root}; mount --rbind /dev {self.root}/dev; "
        prepare += f'exec chroot {self.root} /bin/bash -c "$0"'
        done = subprocess.run(
            [*own, "bash", "-c", prepare, inside],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        )
        assert not check or done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def install(self, *packages: Path) -> str:
        for package in packages:
            shutil.copy(package, self.root / "srv")
        names = " ".join(f"/srv/{package.name}" for package in packages)
        return self.run(f"apt-get install -y -q --no-install-recommends {names}", network=True)


@pytest.fixture(scope="session")
def bare_archive() -> Path:
    """A minimal Debian with what the packages depend on fetched, made once."""
    path = ROOT / "build/packages/bare.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{uuid.uuid4().hex}.tar")
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(part)], check=True, timeout=400)
        part.rename(path)
    return path


@pytest.fixture(scope="module")
def bare(bare_archive: Path, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    if os.geteuid() != 0:
        pytest.skip("a root of its own needs root")
    root = tmp_path_factory.mktemp("bare")
    subprocess.run(["tar", "-C", str(root), "-xf", str(bare_archive)], check=True)
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copyfile(f"/{name}", root / name)
    for folder in ("etc/apt/apt.conf.d", "etc/ssl/certs", "usr/share/ca-certificates"):
        if Path(f"/{folder}").is_dir():
            shutil.copytree(f"/{folder}", root / folder, dirs_exist_ok=True, symlinks=True)
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")  # nobody starts services in a chroot
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    made = Bare(root)
    made.run("apt-get update -q", network=True)
    yield made
    shutil.rmtree(root, ignore_errors=True)


def python_environment(folder: Path, what: str) -> Path:
    """An empty virtual environment with *what* installed in it. Returns its bin folder."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin/pip"), "install", "--quiet", what], check=True, timeout=400)
    return folder / "bin"
