"""The Debian packages, in a bare Debian: installed by apt, used, exchanged for each other, purged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.images import archive, busybox_rootfs
from tests.packaging.conftest import ROOT, Bare

pytestmark = [pytest.mark.slow, pytest.mark.kernel]
STACK = """
services:
  web:
    image: busybox
    command: [httpd, -f, -p, "80", -h, /www]
    volumes: ["./www:/www:ro"]
    ports: ["8080:80"]
"""
USE = """
set -e
mkdir -p /sys/fs/cgroup; {cgroups}
cd /srv/first
pystack image load -i busybox.tar
pystack up
pystack ps
exec 3<>/dev/tcp/127.0.0.1/8080; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; timeout 20 cat <&3
pystack down
pystack system shutdown
"""


def deb(release: Path, name: str) -> Path:
    (found,) = release.glob(f"{name}_*.deb")
    return found


def cgroups() -> str:
    """Commands that mount what this machine has of cgroups in the new mount namespace."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    rows = [(kind, where, options) for _, where, kind, options, *_ in lines if kind in ("cgroup", "cgroup2")]
    if [kind for kind, _, _ in rows] == ["cgroup2"]:
        return "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    commands = ["mount -t tmpfs tmpfs /sys/fs/cgroup"]
    for kind, where, options in rows:
        chosen = ",".join(o for o in options.split(",") if o not in ("rw", "ro", "nosuid", "nodev", "noexec", "relatime"))
        flags = f"-o {chosen}" if kind == "cgroup" else ""
        commands.append(f"mkdir -p {where}; mount -t {kind} {flags} {kind} {where}")
    return "; ".join(commands)


def test_lintian_finds_no_error(release: Path) -> None:
    for path in release.glob("*.deb"):
        said = subprocess.run(
            ["lintian", "--allow-root", "--fail-on", "error", path], capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, said.stdout


def test_units_are_what_systemd_takes(release: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", deb(release, "pystack"), tmp_path], check=True)
    units = sorted((tmp_path / "lib/systemd/system").iterdir())
    assert [unit.name for unit in units] == ["pystack-agent.service", "pystack.service", "pystack.socket"]
    for unit in units:
        for line in unit.read_text().splitlines():
            if line.startswith(("ExecStart=", "ExecStop=")):
                program = line.partition("=")[2].removeprefix("-").split()[0]
                assert (tmp_path / program.lstrip("/")).is_symlink() or (tmp_path / program.lstrip("/")).exists()


def test_two_commands_to_a_running_stack_and_nothing_left_after_purge(bare: Bare, release: Path) -> None:
    before = bare.run("find / -xdev -path /proc -prune -o -print | sort")
    bare.install(deb(release, "pystack"))
    assert "pystack" in bare.run("getent group pystack")
    first = bare.root / "srv/first"
    (first / "www").mkdir(parents=True)
    (first / "www/index.html").write_text("it works\n")
    (first / "stack.yml").write_text(STACK)
    archive(first / "busybox.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")
    assert "it works" in bare.run(USE.format(cgroups=cgroups()))

    conffile = bare.root / "etc/pystack/config.yml"
    conffile.write_text("address_pools: [10.60.0.0/16]\n")
    bare.run("apt-get remove -y -q pystack")
    assert conffile.read_text() == "address_pools: [10.60.0.0/16]\n"
    assert (bare.root / "var/lib/pystack").is_dir()
    bare.run("apt-get purge -y -q pystack; apt-get autoremove -y -q --purge; apt-get clean; rm -rf /srv/*")
    left = set(bare.run("find / -xdev -path /proc -prune -o -print | sort").splitlines()) - set(before.splitlines())
    assert [path for path in sorted(left) if "pystack" in path] == []
    assert "pystack" not in bare.run("cat /etc/group /etc/passwd")


def test_the_server_takes_the_agents_place_and_its_purge_leaves_the_state(bare: Bare, release: Path) -> None:
    bare.install(deb(release, "pystack-agent"))
    assert not (bare.root / "usr/bin/pystack").exists()
    bare.run("/usr/lib/pystack/bin/python3 -I -c 'import agent.daemon'")
    (bare.root / "etc/pystack/config.yml").write_text("heal: false\n")
    (bare.root / "var/lib/pystack").mkdir(exist_ok=True)
    (bare.root / "var/lib/pystack/kept").touch()
    bare.install(deb(release, "pystack"))
    bare.run("dpkg --purge pystack-agent")
    assert (bare.root / "etc/pystack/config.yml").read_text() == "heal: false\n"
    assert (bare.root / "var/lib/pystack/kept").exists()
    assert bare.run("pystack --version").startswith("pystack, version")
    bare.run("dpkg --purge pystack")
    assert not (bare.root / "var/lib/pystack").exists()
    assert not (bare.root / "etc/pystack").exists()


def test_shell_scripts_are_clean() -> None:
    listed = subprocess.run(
        ["git", "grep", "-lE", r"^#!(/usr/bin/env bash|/bin/bash|/bin/sh)", "--", ":!*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    scripts = [name for name in listed if (ROOT / name).read_text().startswith("#!")]
    assert len(scripts) > 5
    done = subprocess.run(["shellcheck", "-S", "warning", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
