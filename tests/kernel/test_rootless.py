"""pystack of a user who is not root: the whole of it in a namespace of that user's, on a machine that no user can change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.conftest import PATIENCE, eventually
from tests.images import archive, busybox_rootfs

PYTHON = "/usr/bin/python3"
LACKS = [p for p in ("newuidmap", "slirp4netns", PYTHON) if not shutil.which(p)]
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(bool(LACKS) or os.geteuid() != 0, reason=f"no {LACKS}, or not root")]
USER = 61_234
GROUPS = Path("/sys/fs/cgroup")
DELEGATED = (GROUPS / "cgroup.controllers").exists()
"""On a host with cgroup version 2 the user has a group of their own, as systemd gives it."""
MACHINE = """
set -e
cd "$1"
ip link set lo up
mount -t tmpfs tmpfs /dev/net || { mkdir -p /dev/net; mount -t tmpfs tmpfs /dev/net; }
mknod -m 666 /dev/net/tun c 10 200
for file in passwd group subuid subgid; do mount --bind etc/$file /etc/$file; done
mount --bind "$2" code; mount --bind "$3" site
echo ready
exec tini -- sleep infinity  # it reaps, as every first process does
"""
STACK = """
services:
  web:
    image: busybox
    command: sh -c "mkdir -p /w; id -u > /w/index.html; exec httpd -f -p 80 -h /w"
    ports: ["8080:80", "127.0.0.1:8081:81"]
    volumes: [data:/data]
    secrets: [word]
    stop_signal: SIGKILL
    mem_limit: 64m
  client:
    image: busybox
    user: app
    command: sleep 1000
    depends_on: [web]
    stop_signal: SIGKILL
volumes: {data: {}}
secrets: {word: {file: ./word}}
"""


class User:
    """Commands of a user on a machine made of namespaces, in which the user has a home, and subordinate IDs."""

    def __init__(self, home: Path, machine: int) -> None:
        self.home = home
        self.machine = machine

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": f"{self.home}/run",
            "USER": "ada",
            "PYTHONPATH": "",
            "PATH": f"{self.home.parent}/venv/bin:/usr/local/bin:/usr/bin:/bin",  # a user of Debian has no more
        }
        join = ["sh", "-c", f'echo $$ > {GROUPS}/ada/session/cgroup.procs; exec "$@"', "-"] if DELEGATED else []
        done = subprocess.run(
            [
                *join,
                "nsenter",
                "-t",
                str(self.machine),
                "-m",
                "-n",
                "-p",
                f"--wd={self.home}",
                "setpriv",
                f"--reuid={USER}",
                f"--regid={USER}",
                "--clear-groups",
                "--",
                *words,
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=90 * PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def states(self) -> dict[str, str]:
        return {r["task"]: r["state"] for r in json.loads(self("pystack", "ps", "--format", "json").stdout)}


def _removed(group: str) -> None:
    try:
        Path(group).rmdir()
    except OSError as error:
        raise AssertionError(str(error)) from error


@pytest.fixture(scope="module")
def ada() -> Iterator[User]:
    version = subprocess.check_output([PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], text=True).split()
    if version != [str(n) for n in sys.version_info[:2]]:
        pytest.skip(f"{PYTHON} is {'.'.join(version)}: what is installed here is for another")
    site = str(Path(msgspec.__file__).parents[1])
    place = Path(tempfile.mkdtemp(prefix="pystack-ada"))
    place.chmod(0o755)
    for name in ("home", "home/run", "code", "site", "etc"):
        (place / name).mkdir(mode=0o755)
    for name in ("passwd", "group"):
        line = f"ada:x:{USER}:{USER}::{place}/home:/bin/sh\n" if name == "passwd" else f"ada:x:{USER}:\n"
        (place / "etc" / name).write_text(Path("/etc", name).read_text() + line)
    for name in ("subuid", "subgid"):
        (place / "etc" / name).write_text("ada:700000:65536\n")
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    packages = next((place / "venv/lib").glob("python*/site-packages"))
    (packages / "pystack.pth").write_text(f"{place}/code\n{place}/site\n")
    command = place / "venv/bin/pystack"
    command.write_text(f"#!{place}/venv/bin/python3\nfrom orchestrator.__main__ import main\nmain()\n")
    command.chmod(0o755)
    archive(place / "home/busybox.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")
    (place / "home/word").write_text("sesame")
    (place / "home/stack.yml").write_text(STACK)
    for path in (place / "home", *(place / "home").rglob("*")):
        os.chown(path, USER, USER)
    if DELEGATED:
        (GROUPS / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        for group in (GROUPS / "ada", GROUPS / "ada/session"):
            group.mkdir()
            for file in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
                os.chown(file, USER, USER)
    machine = subprocess.Popen(
        [
            "unshare",
            "-m",
            "-n",
            "-p",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            MACHINE,
            "-",
            str(place),
            str(Path(__file__).parents[2]),
            site,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert machine.stdout
        assert machine.stdout.readline() == "ready\n"
        first = int(Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().split()[0])
        user = User(place / "home", first)
        user("pystack", "image", "load", "-i", "busybox.tar")
        yield user
    finally:
        machine.kill()  # and with the first process of its PID namespace all the others
        machine.wait()
        assert machine.stdout
        machine.stdout.close()
        shutil.rmtree(place)
        if DELEGATED:
            for below, _, _ in os.walk(GROUPS / "ada", topdown=False):
                eventually(partial(_removed, below))


@pytest.fixture
def stack(ada: User) -> Iterator[User]:
    said = ada("pystack", "up").stderr
    assert ("limits (memory) are not kept: this user has no control group of their own" in said) != DELEGATED
    yield ada
    ada("pystack", "down", "-v")


def server(ada: User) -> int:
    """The server's PID as its machine has it."""
    return int(ada("pgrep", "-of", "orchestrator.embedded").stdout)


def test_a_stack_runs_as_its_user(stack: User) -> None:
    assert set(stack.states().values()) == {"running"}
    web = stack("pgrep", "-of", "httpd -f").stdout.strip()
    client = stack("pgrep", "-of", "sleep 1000").stdout.strip()
    assert stack("stat", "-c", "%u", f"/proc/{web}", f"/proc/{client}").stdout.split() == [str(USER), str(700_000 + 999)]
    assert stack("busybox", "wget", "-qO-", "http://127.0.0.1:8080/").stdout == "0\n"  # root inside
    assert stack("pystack", "exec", "-T", "client", "wget", "-qO-", "http://web/").stdout == "0\n"
    assert stack("pystack", "exec", "-T", "web", "cat", "/run/secrets/word").stdout == "sesame"
    stack("pystack", "exec", "-T", "web", "sh", "-c", "echo x > /data/x; chown app /data/x; rm /srv/hello")
    assert stack("pystack", "exec", "-T", "web", "stat", "-c", "%u", "/data/x").stdout == "1000\n"
    assert "httpd" in stack("pystack", "top", "web").stdout
    if DELEGATED:
        assert stack("pystack", "exec", "-T", "web", "cat", "/sys/fs/cgroup/memory.max").stdout == f"{64 << 20}\n"
    (row,) = (r for r in json.loads(stack("pystack", "stats", "--no-stream", "--format", "json").stdout) if "web" in r["task"])
    assert row["pids"] == 1
    assert stack("pystack", "doctor").returncode == 0


def test_an_image_is_built(ada: User) -> None:
    """Removed files, replaced folders and owners: overlayfs notes them otherwise there, and images have them all the same."""
    folder = ada.home / "app"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(
        "FROM busybox AS b\nRUN rm /srv/hello && rm -r /var/www && mkdir /var/www && touch /var/www/x && chown app /var/www/x\n"
        "COPY --chown=app Dockerfile /srv/\nFROM b\n"
        "RUN test ! -e /srv/hello && ls /var/www > /ls && stat -c %U /var/www/x >> /ls\n"
        "CMD cat /ls\n"
    )
    (folder / "stack.yml").write_text("services: {a: {build: ., image: 'own:1'}}\n")
    ada("pystack", "-f", "app/stack.yml", "build")
    assert ada("pystack", "container", "run", "--rm", "own:1").stdout == "x\napp\n"
    ada("pystack", "image", "save", "-o", "own.tar", "own:1")
    ada("pystack", "image", "rm", "own:1")


def test_the_next_server_finds_its_containers(stack: User) -> None:
    before = stack("pgrep", "-f", "httpd -f|sleep 1000").stdout
    stack("kill", "-9", str(server(stack)))
    assert "no pystack server answers" in stack("pystack", "ps", check=False).stderr
    stack("pystack", "up")  # which starts one
    assert set(stack.states().values()) == {"running"}
    assert stack("pgrep", "-f", "httpd -f|sleep 1000").stdout == before
    assert stack("pystack", "exec", "-T", "client", "wget", "-qO-", "http://web/").stdout == "0\n"
    assert stack("busybox", "wget", "-qO-", "http://127.0.0.1:8080/").stdout == "0\n"
    # without slirp4netns nobody comes in, and the next server starts it again
    stack("pkill", "-9", "slirp4netns")
    stack("kill", "-9", str(server(stack)))
    stack("pystack", "up")

    def answers() -> None:
        assert stack("busybox", "wget", "-qO-", "http://127.0.0.1:8080/", check=False).stdout == "0\n"

    eventually(answers, 10)


def test_what_needs_root_is_said(ada: User) -> None:
    port = ada("pystack", "container", "run", "-d", "-p", "80:80", "busybox", "sleep", "1000", check=False)
    assert port.returncode == 1
    assert "port 80 (tcp) cannot be published: ports below 1024 are root's" in port.stderr
    userns = ada("pystack", "container", "run", "--rm", "--userns", "auto", "busybox", "true", check=False)
    assert "a server without root has one user namespace for all its containers" in userns.stderr
    node = ada("pystack", "node", "add", "root@192.0.2.1", check=False)
    assert node.returncode == 1
    assert "this server runs without root, where no other host reaches it" in node.stderr
    assert ada("pystack", "ps", "-p", "none").stdout.count("\n") <= 1


def test_nothing_is_left_when_nothing_runs(ada: User) -> None:
    ada("pystack", "up")
    ada("kill", "-TERM", str(server(ada)))

    def stopped() -> None:
        assert ada("pgrep", "-f", "orchestrator.embedded", check=False).stdout == ""

    eventually(stopped, 10)
    assert ada("pgrep", "slirp4netns").stdout  # containers run on
    ada("pystack", "down", "-v")
    ada("kill", "-TERM", str(server(ada)))

    def gone() -> None:
        assert ada("pgrep", "-u", str(USER), "-f", "slirp4netns|sleep infinity|dataplane|pystack", check=False).stdout == ""

    eventually(gone, 10)
    ada("pystack", "container", "run", "--rm", "busybox", "true")  # and all begins again


def test_all_that_is_missing_is_said_at_once(ada: User) -> None:
    ada("kill", "-TERM", str(server(ada)))
    files = (f"{ada.home.parent}/etc/subuid", f"{ada.home.parent}/etc/subgid")

    def gone() -> None:
        assert ada("pgrep", "slirp4netns", check=False).stdout == ""

    eventually(gone, 10)
    before = [Path(f).read_text() for f in files]
    try:
        for file in files:
            Path(file).write_text("somebody:700000:65536\n")
        done = ada("pystack", "container", "run", "--rm", "busybox", "true", check=False)
        assert done.returncode == 1
        assert "without root, pystack needs what is missing here:" in done.stderr
        for file in ("/etc/subuid", "/etc/subgid"):
            assert f"{file} has no 65536 IDs for ada" in done.stderr
    finally:
        for file, text in zip(files, before, strict=True):
            Path(file).write_text(text)
