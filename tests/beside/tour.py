"""`python -m tests.beside.tour NODE [WORD…]`: a tour of Docker's command on the socket NODE, beside what it showed on Docker's
daemon: output, complaints and exit status of each step, but for ids, times and addresses. With Debian's client (20.10) and with
the newer one on PATH; chapters are those whose name has one of the words.

`python -m tests.beside.tour record REFERENCE [WORD…]` writes down what the daemon (20.10) at the socket REFERENCE shows. Both
need the image busybox of tests/images.py, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.beside.look import plain
from tests.beside.tour_steps import CHAPTERS
from tests.beside.typed import Typed
from tests.docker_clients import debian_compose, debian_docker

REFERENCE = Path(__file__).with_name("tour.json")
LONGEST_S = 60.0
CLIENTS = ("debian", "newer")
WORDS = (
    (re.compile(r'time="[^"]*" level=error msg="error waiting for container: context canceled"\n'), ""),  # now and then
    (re.compile(r"time=\S+ level=error msg=\"Can't (add file|close tar writer)[^\n]*\n"), ""),  # the client's own, by chance
    (re.compile(r"failed to resize tty, using default size\r?\n"), ""),  # the client may come too late with it
    (re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r"), ""),
    (re.compile(r"\b(Less than a second|About an? (minute|hour)|\d+ (second|minute|hour)s?)\b"), "<age>"),
    (re.compile(r"([/~] [#$] ?)+"), "/ # "),  # a shell writes its prompt again whenever the terminal's size is set
    (re.compile(r"(This node is not a swarm manager\.).*"), r"\1"),  # where the cluster's own socket is
    (re.compile(r'(plugin "[^"]*" not found): drivers of .*'), r"\1"),  # there are no plug-ins, and why
    (re.compile(r" {2,}"), "  "),
    (re.compile(r" +$", re.M), ""),
)
Seen = list[list[object]]
"""Of each step its exit status, output and complaints."""


def client(name: str) -> Path | None:
    """The program of the client *name*; None where it is not to be had."""
    if name == "debian":
        return debian_docker()
    found = shutil.which("docker")
    return Path(found) if found else None


class Tour:
    """A shell in an empty folder, whose `docker` is the client *program* on the daemon at *socket*."""

    def __init__(self, program: Path, socket: str, folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "bin" / "docker").symlink_to(program)
        (folder / "here").mkdir()
        self.folder, self.socket = folder, socket
        # COLUMNS is there on some machines and in some tests, and tables are as wide as it says
        others = ("DOCKER_", "LC_", "LANG", "COLUMNS", "LINES")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(others)} | {
            "DOCKER_HOST": f"unix://{socket}",
            "DOCKER_CONFIG": str(folder / "config"),
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CLI_HINTS": "false",
            "HOME": str(folder),
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "LC_ALL": "C",
            "PATH": f"{folder / 'bin'}:{debian_compose()}:{os.environ['PATH']}",
            "TERM": "xterm",
        }

    def step(self, step: str | Typed) -> list[object]:
        """What a user sees of *step*."""
        if isinstance(step, Typed):
            return self._typed(step)
        try:
            done = subprocess.run(
                ["bash", "-c", step],
                cwd=self.folder / "here",
                env=self.environment,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=LONGEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return ["it does not end", self._plain(error.stdout or b""), self._plain(error.stderr or b"")]
        return [done.returncode, self._plain(done.stdout), self._plain(done.stderr)]

    def _plain(self, text: bytes) -> str:
        said = text.decode(errors="replace")
        for word, name in ((str(self.folder / "here"), "<folder>"), (str(self.folder), "<home>"), (self.socket, "<socket>")):
            said = said.replace(word, name)
        for pattern, name in WORDS:
            said = pattern.sub(name, said)
        return str(plain(said))

    def _typed(self, step: Typed) -> list[object]:
        fd, slave = pty.openpty()
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        # setsid(1) in place of a fork of this process, which may have threads of gRPC's
        child = subprocess.Popen(
            ["setsid", "--ctty", "bash", "-c", f"exec {step.command}"],
            cwd=self.folder / "here",
            env=self.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        seen, deadline = b"", time.monotonic() + LONGEST_S

        def read() -> bool:
            """False once nothing can come any more."""
            nonlocal seen
            if select.select([fd], [], [], 0.05)[0]:
                try:
                    data = os.read(fd, 1 << 16)
                except OSError:
                    return False
                seen += data
                return bool(data)
            return child.poll() is None

        def raw() -> bool:
            return not termios.tcgetattr(fd)[3] & termios.ICANON

        try:
            for wanted, keys in step.keys:
                before = seen.rfind(b"\0") + 1
                while time.monotonic() < deadline and not (wanted.encode() in seen[before:] if wanted else raw()):
                    if not read():
                        break
                seen += b"\0"  # what came up to here is not looked at again
                os.write(fd, keys.encode())
            while time.monotonic() < deadline and read():
                pass
            ended = child.poll() is not None or time.monotonic() < deadline
            return [child.wait(10) if ended else "it does not end", self._plain(seen.replace(b"\0", b"")), ""]
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            os.close(slave)
            os.close(fd)

    def shell(self, command: str) -> None:
        """Run *command* where nobody looks."""
        subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, capture_output=True, timeout=LONGEST_S, check=False
        )

    def clean(self) -> None:
        """Take away all that there is but the image busybox, which may have gone."""
        for command in (
            "docker rm -fv $(docker ps -aq)",
            "docker volume rm $(docker volume ls -q)",
            "docker network prune -f",
            "docker rmi -f $(docker images --format '{{.Repository}}:{{.Tag}}' | grep -v -e ^busybox: -e none)",
            "docker load -i busybox.tar",
            "docker image prune -f",
        ):
            self.shell(command)


@contextlib.contextmanager
def tour(program: Path, socket: str) -> Iterator[Tour]:
    """A shell for one chapter; what the chapter made is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="tour-") as path:
        made = Tour(program, socket, Path(path))
        made.shell("docker save -o busybox.tar busybox")
        try:
            yield made
        finally:
            made.clean()


def seen(chapter: str, program: Path, socket: str) -> Seen:
    """What each step of *chapter* shows."""
    with tour(program, socket) as made:
        return [made.step(step) for step in CHAPTERS[chapter]]


def differences(chapter: str, reference: Seen, ours: Seen) -> list[str]:
    """One text for each step that shows something else."""
    found = []
    for step, there, here in zip(CHAPTERS[chapter], reference, ours, strict=True):
        command = step.command if isinstance(step, Typed) else step
        if there != here and not any(re.search(pattern, command) for pattern in MEANT):
            found.append(f"{command}\n    there {there}\n    here  {here}")
    return found


MEANT = {
    r"^docker run --rm (-w /srv/hello|--ipc bogus|--tmpfs /t:|--network bridge --ip 1|--network nn --ip)": (
        "refused before it starts, or in the runtime's words"
    ),
    r"--volume-driver nosuch|^docker (pull|login|search) |nosuch/nosuch|COPY --from=nosuch": "sockets' errors in other words",
    r"^docker exec (one (nosuch|/etc)|-w /nosuch)|^docker exec -it two nosuch": "127, as later daemons of Docker's have it",
    r"-d overlay|--scope|--ingress|^docker swarm (init|join --t)|--network over busybox": (
        "networks over several nodes are the control plane's"
    ),
    r"^echo nonsense \| docker load|^docker image inspect (busybox )?nosuch": "the same refusal in other words",
    r"^docker events .*bogus": "an unknown filter is refused, as by later daemons",
    r"^docker network create (--subnet (10.88.7.0/25|bogus)|-d bogus|-o com.docker.network.driver.mtu|'')": "more is said",
    r"network inspect -f '{{.Internal}} {{json .IPAM": "the gateway is shown, as by later daemons of Docker's",
    r"--link base:b": "links are names of the resolver, which follow an address that changes",
    r"^docker volume inspect -f": "no options are null, whatever the client sent",
    r"docker-compose -p counter build|^docker build (-t own:1|--network|--no-cache|--target)": (
        "a step that changes no file runs no container, and an error has its place in the Dockerfile"
    ),
    r"> Dockerfile; docker build": "an error has its place in the Dockerfile",
    r"--filter label=com.docker.compose.service=blog": "a port that is only exposed is listed on internal networks too",
    r"HostConfig.NetworkMode}}|mac-address 02:42|API_VERSION": "what API versions above 1.41 have otherwise",
    r"^docker volume (prune$|prune -f --filter label=a|rm vv tt ss ww)": "named volumes are pruned to API version 1.41",
    r"BAD/name": "a registry's host may have capitals",
    r"{{.PIDs}}' one": "the check of its health runs each second, and is a process too",
    r"--type image one": "the same refusal in other words",
    r"^docker attach --detach-keys ctrl-a": "a client that detaches is told so",
    r"--cpu-rt-runtime": "the kernel's own refusal is told, and at once",
    r"--gpus all|network container:labelled|cp one: \.|bogus::/64|subnet 10.88.10.0|nn three|ipam-driver": "more is said",
    r"connect --ip (bogus|10.88.9.[23]0)": "an address of the network's range is taken, whoever chose the range; more is said",
    r"cp env one:/etc/passwd/x|--filter (expose|publish)=.*bogus|network connect container:one": "other words",
    r"apparmor=nosuch|--stop-timeout -3|--memory-reservation 128m|--memory-swap 1m": "what cannot be kept is refused",
    r"ls /dev/shm": "what is copied goes where the container sees it",
    r"images --filter until": "later daemons of Docker's have it, and this one",
    r"docker load < /dev/null|docker import http|^docker build - <|nonsense . docker build": "the same refusal in other words",
    r"rmi own:base|rmi --no-prune own:child": "what an image was made of is no part of it, as in the containerd store",
    r"macvlan -o parent": (
        "the parent of a macvlan is looked for when a container starts, so that it may be made after the network"
    ),
    r"type=nosuchfs|device=/nosuch": "a file system that cannot be mounted is refused",
    r"docker info --format '{{(.Driver}} {{.Logging|json .Plugins)": "its own runtime, init and drivers; containers outlive it",
    r"--password-stdin|docker build --pull": "sockets' errors in other words",
}
"""Steps that are meant to differ, with why."""


def compared(chapter: str, name: str, socket: str) -> list[str]:
    """What of *chapter* differs with the client *name*."""
    program = client(name)
    assert program, f"there is no client {name}"
    return differences(chapter, json.loads(REFERENCE.read_text())[name][chapter], seen(chapter, program, socket))


def record(socket: str, words: list[str]) -> None:
    """Keep what the daemon at *socket* shows of the chapters that have one of *words* in their name."""
    known = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    for name in CLIENTS:
        if program := client(name):
            for chapter in chapters(name, words):
                known.setdefault(name, {})[chapter] = seen(chapter, program, socket)
                print(name, chapter, flush=True)
    REFERENCE.write_text(json.dumps(known, indent=1) + "\n")


def chapters(name: str, words: Sequence[str] = ()) -> list[str]:
    """The chapters of the client *name* that have one of *words* in their name; docker-compose has one client, its library."""
    there = [c for c in CHAPTERS if name == CLIENTS[0] or not c.startswith("compose")]
    return [c for c in there if not words or any(w in c for w in words)]


def main(words: list[str]) -> int:
    if words[0] == "record":
        record(words[1], words[2:])
        return 0
    steps = differ = 0
    for name in CLIENTS:
        for chapter in chapters(name, words[1:]):
            found = compared(chapter, name, words[0])
            print(f"{name}, {chapter}: {len(found)} of {len(CHAPTERS[chapter])} differ", *found, sep="\n  ", flush=True)
            steps, differ = steps + len(CHAPTERS[chapter]), differ + len(found)
    print(f"{steps} commands, {differ} differ")
    return bool(differ)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
