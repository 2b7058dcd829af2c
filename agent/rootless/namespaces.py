"""The namespaces of a user's own pystack: made once, kept, and joined by each server that starts.

A process that only sleeps keeps the namespaces, so that containers and their networks outlive the server, and the next one
joins them; slirp4netns is the way out of the network namespace, and the way in to published ports. Source: user_namespaces(7),
newuidmap(1), subuid(5), slirp4netns(1).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent import programs
from agent.contract.atomic import write_atomically
from agent.contract.processes import start_time
from agent.errors import AgentError
from agent.rootless import MARK

WITHIN_S = 10.0
RESOLVER = "10.0.2.3"  # where slirp4netns has the host's


def enter(run: Path) -> None:
    """Execute this program again as root of the user's own namespaces, which are made if they do not exist; return at once if
    this user is root already. *run* is the directory of state that a reboot removes. Raises AgentError."""
    if os.geteuid() == 0:
        return
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(run / "rootless.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    kept = _kept(run)
    if not (keeper := kept.living("keeper")):
        if lost := _pids_in(kept.space):
            # without the process that keeps the namespaces their contents cannot be reached: they end, and are made again
            _run("nsenter", f"--target={lost[0]}", "--user", "--preserve-credentials", "--", "kill", "-KILL", *map(str, lost))
        keeper = _make()
        _resolve(run, keeper)
        kept = RootlessState({"keeper": (keeper, start_time(keeper))}, _space(keeper))
        kept.write(run)
    if not kept.living("way out"):
        way_out = _connect(run, keeper)
        kept.processes["way out"] = way_out, start_time(way_out)
        kept.write(run)
    # exec lets go of the lock
    os.execvpe("nsenter", [*_into(keeper), sys.executable, *sys.orig_argv[1:]], {**os.environ, MARK: str(os.geteuid())})


def _into(keeper: int) -> list[str]:
    return ["nsenter", f"--target={keeper}", "--user", "--mount", "--net", "--preserve-credentials", "--wd=/", "--"]


def leave(run: Path) -> None:
    """Let the namespaces go that this process is in: nothing runs in them that is of any use."""
    kept = _kept(run)
    for pid in {*_pids_in(_space(os.getpid())), kept.living("way out")} - {0, os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (run / "rootless.json").unlink(missing_ok=True)


class RootlessState(msgspec.Struct):
    """The processes that keep the namespaces and connect them, each with its start time, and the user namespace by name."""

    processes: dict[str, tuple[int, int]] = {}
    space: str = ""

    def living(self, name: str) -> int:
        """The PID, 0 if it is gone."""
        pid, started = self.processes.get(name, (0, 0))
        return pid if pid and start_time(pid) == started else 0

    def write(self, run: Path) -> None:
        """Save the state in *run*. Raises OSError."""
        write_atomically(run / "rootless.json", msgspec.json.encode(self), 0o600)


def _kept(run: Path) -> RootlessState:
    try:
        return msgspec.json.decode((run / "rootless.json").read_bytes(), type=RootlessState)
    except (OSError, msgspec.MsgspecError):
        return RootlessState()


def _space(pid: int) -> str:
    """The user namespace of a process, as the kernel names it; "" if that cannot be asked."""
    try:
        return os.readlink(f"/proc/{pid}/ns/user")
    except OSError:
        return ""


def _pids_in(space: str) -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal() and space and _space(int(p.name)) == space]


def _make() -> int:
    """The PID of a process that keeps a user, a mount and a network namespace, and does nothing else."""
    ids = _lacking()
    keeper = subprocess.Popen(
        ["unshare", "--user", "--mount", "--net", "--propagation", "shared", "sleep", "infinity"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _wait_for(lambda: Path(f"/proc/{keeper.pid}/comm").read_text() == "sleep\n", keeper)
        for kind, (first, count) in zip(("uid", "gid"), ids, strict=True):
            own = os.geteuid() if kind == "uid" else os.getegid()
            _run(f"new{kind}map", str(keeper.pid), "0", str(own), "1", "1", str(first), str(count))
    except BaseException:
        keeper.kill()
        keeper.wait()
        raise
    return keeper.pid


def _connect(run: Path, keeper: int) -> int:
    """The PID of slirp4netns, which connects the network namespace to the host's as any program of the user's would."""
    ready, ready_end = os.pipe()
    log = run / "slirp4netns.log"
    way_out = subprocess.Popen(
        [
            "slirp4netns",
            "--configure",
            "--mtu=65520",
            "--disable-host-loopback",
            "--enable-sandbox",
            f"--api-socket={run / 'slirp4netns.sock'}",
            f"--ready-fd={ready_end}",
            str(keeper),
            "tap0",
        ],
        start_new_session=True,
        pass_fds=(ready_end,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log.open("wb"),
    )
    os.close(ready_end)
    is_ready = os.read(ready, 1)
    os.close(ready)
    if not is_ready:
        output = log.read_text(errors="replace").strip().splitlines()
        raise AgentError(f"slirp4netns did not start: {output[-1] if output else 'it gave no reason'}")
    return way_out.pid


def _lacking() -> tuple[tuple[int, int], tuple[int, int]]:
    """The user's subordinate user and group IDs: (first, number) each. Raises AgentError with all that is missing."""
    problems = programs.missing()
    problems += [
        f"{program} is not installed: `apt-get install {package}`"
        for program, package in (("newuidmap", "uidmap"), ("newgidmap", "uidmap"), ("slirp4netns", "slirp4netns"))
        if not shutil.which(program)
    ]
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())  # a UID that is not in /etc/passwd
    found = []
    for file in ("/etc/subuid", "/etc/subgid"):
        lines = [line.split(":") for line in _read(file).splitlines() if line.count(":") == 2]
        ranges = [(int(first), int(count)) for who, first, count in lines if who in (name, str(os.geteuid()))]
        found.append(max(ranges, key=lambda r: r[1], default=(0, 0)))
        if found[-1][1] < 65536:
            problems.append(
                f"{file} has no 65536 IDs for {name}: `usermod --add-subuids 100000-165535 "
                f"--add-subgids 100000-165535 {name}` as root, with numbers that are free"
            )
    for sysctl, value in (
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        if _read(f"/proc/sys/{sysctl}").strip() == value:
            problems.append(f"this kernel lets no user make user namespaces: sysctl {sysctl.replace('/', '.')} is {value}")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        problems.append("/dev/net/tun cannot be opened by users: `chmod 666 /dev/net/tun` as root")
    if problems:
        raise AgentError("without root, pystack needs what is missing here:\n" + "\n".join(f"    {p}" for p in problems))
    return found[0], found[1]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AgentError(f"{command[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}")


def _wait_for(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            assert process.stderr
            output = process.stderr.read().decode(errors="replace").strip() if process.poll() is not None else ""
            raise AgentError(f"no user namespace could be made: {output or 'unshare does not end'}")
        time.sleep(0.001)


def _resolve(run: Path, keeper: int) -> None:
    """Names are asked of the host's resolver where slirp4netns has it: 127.0.0.53 is another machine in there."""
    lines = [line for line in _read("/etc/resolv.conf").splitlines() if not line.startswith("nameserver")]
    file = run / "resolv.conf"
    file.write_text("\n".join([f"nameserver {RESOLVER}", *lines]) + "\n")
    _run(*_into(keeper), "mount", "--bind", str(file), os.path.realpath("/etc/resolv.conf"))
