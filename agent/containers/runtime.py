"""conmon and runc: start a container, know when it ends, signal it, remove it.

conmon holds a container's output and its exit status, and lives on when the agent does not. The agent knows processes
by pidfd, and after a restart by PID together with start time: never by PID alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import RuntimeFailure
from agent.failpoints import failpoint
from agent.paths import Paths


class Process(msgspec.Struct, frozen=True):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: int

    def alive(self) -> bool:
        return self.pid > 0 and start_time(self.pid) == self.started

    def open(self) -> int | None:
        """A pidfd, or None where the process is gone."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return None
        if not self.alive():
            os.close(fd)
            return None
        return fd

    def signal(self, number: int) -> bool:
        """True where the signal was delivered."""
        fd = self.open()
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)


def start_time(pid: int) -> int:
    """Start time of *pid* in clock ticks since boot, 0 where it is gone or a zombie. Source: proc(5), stat field 22."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


async def ended(process: Process) -> None:
    """Wait for *process* to end; at once where it already has."""
    fd = process.open()
    if fd is None:
        return
    loop = asyncio.get_running_loop()
    done = loop.create_future()


    def gone() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(fd, gone)
    try:
        await done
    finally:
        loop.remove_reader(fd)
        os.close(fd)


class Runtime:
    def __init__(self, paths: Paths, name: str = "runc") -> None:
        self.root = paths.runc
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.conmon = _program("conmon")
        self.runc = _program(name)

    async def create(self, ident: str, bundle: Path, *, tty: bool, stdin: bool, log_max: int) -> tuple[Process, Process]:
        """Make the container, stopped just before its first instruction. Returns (conmon, init)."""
        for stale in ("exit", "pid", "conmon.pid", "oom", "attach", "ctl", "winsz"):
            (bundle / stale).unlink(missing_ok=True)
        read, write = os.pipe()
        arguments = [
            self.conmon, "--api-version", "1", "-c", ident, "-u", ident, "-n", ident, "-r", self.runc,
            "-b", str(bundle), "-p", str(bundle / "pid"), "--conmon-pidfile", str(bundle / "conmon.pid"),
            "--exit-dir", str(bundle / "exits"), "--persist-dir", str(bundle), "--socket-dir-path", str(bundle),
            "-l", f"k8s-file:{bundle / 'log'}", "--log-level", "error", "--full-attach",
            "--runtime-arg", f"--root={self.root}", "--runtime-arg", f"--log={bundle / 'runc.log'}",
        ]
        if log_max:
            arguments += ["--log-size-max", str(log_max)]
        if tty:
            arguments.append("-t")
        if stdin:
            arguments += ["-i", "--leave-stdin-attached"] if not tty else ["-i"]
        (bundle / "exits").mkdir(exist_ok=True)
        (bundle / "exits" / ident).unlink(missing_ok=True)
        failpoint("container.create")
        environment = {"_OCI_SYNCPIPE": str(write), "PATH": os.environ.get("PATH", os.defpath)}
        # a file and not a pipe: conmon stays, and would hold the pipe's other end open
        with (bundle / "conmon.err").open("wb") as complaints:
            child = await asyncio.create_subprocess_exec(
                *arguments, pass_fds=(write,), env=environment, cwd=bundle, start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=complaints,
            )
        os.close(write)
        line = await _read_line(read)
        await child.wait()
        complaint = (bundle / "conmon.err").read_text(errors="replace").strip()
        reply: dict[str, Any] = json.loads(line) if line else {"pid": -1, "message": complaint}
        pid = int(reply.get("data", reply.get("pid", -1)))  # the key changed with conmon API version 1
        if pid <= 0:
            raise RuntimeFailure(_reason(str(reply.get("message", "")) or complaint, bundle / "runc.log"))
        monitor = int((bundle / "conmon.pid").read_text())
        failpoint("container.created")
        return Process(monitor, start_time(monitor)), Process(pid, start_time(pid))

    async def start(self, ident: str) -> None:
        """Let a created container run its first instruction."""
        failpoint("container.start")
        await self._run("start", ident)

    async def signal(self, ident: str, number: int) -> None:
        """Send a signal to every process of a container (for those that share a PID namespace)."""
        await self._run("kill", "--all", ident, str(number))

    async def pause(self, ident: str) -> None:
        await self._run("pause", ident)

    async def resume(self, ident: str) -> None:
        await self._run("resume", ident)

    async def delete(self, ident: str) -> None:
        """Take away what the runtime keeps of a container, its processes included; nothing there is fine."""
        if (self.root / ident).exists():
            failpoint("container.delete")
            with contextlib.suppress(RuntimeFailure):
                await self._run("delete", "--force", ident)
            shutil.rmtree(self.root / ident, ignore_errors=True)

    def exec_arguments(
        self, ident: str, command: Sequence[str], *, tty: bool, user: str, environment: Sequence[str], cwd: str,
        privileged: bool = False,
    ) -> list[str]:
        """The command line that runs *command* inside a container."""
        arguments = [self.runc, f"--root={self.root}", "exec"]
        if tty:
            arguments.append("--tty")
        if user:
            arguments += ["--user", user]
        if cwd:
            arguments += ["--cwd", cwd]
        if privileged:
            from agent.isolation.capabilities import ALL

            for name in ALL:
                arguments += ["--cap", f"CAP_{name}"]
        for pair in environment:
            arguments += ["--env", pair]
        return [*arguments, ident, *command]

    async def _run(self, *arguments: str) -> None:
        child = await asyncio.create_subprocess_exec(
            self.runc, f"--root={self.root}", *arguments, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )
        _, err = await child.communicate()
        if child.returncode:
            raise RuntimeFailure(_reason(err.decode(errors="replace").strip(), None))


def exit_code(bundle: Path, ident: str) -> int | None:
    """What conmon noted of the container's end, None where it noted nothing."""
    try:
        return int((bundle / "exits" / ident).read_text())
    except (OSError, ValueError):
        return None


def was_oom_killed(bundle: Path) -> bool:
    return (bundle / "oom").exists()


async def _read_line(fd: int) -> bytes:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb"))
    try:
        return await asyncio.wait_for(reader.readline(), 60)
    finally:
        transport.close()


def _reason(text: str, log: Path | None) -> str:
    """runc's last complaint without its prefixes."""
    if log and log.exists():
        for line in reversed(log.read_text(errors="replace").splitlines()):
            if "error" in line or "msg=" in line:
                text = line.partition('msg="')[2].rstrip('"').replace('\\"', '"') or line
                break
    for prefix in ("runc create failed: ", "unable to start container process: ", "container_linux.go:", "exec: "):
        text = text.replace(prefix, "")
    return text.strip() or "the runtime failed without a word"


def _program(name: str) -> str:
    found = shutil.which(name) or next((p for d in ("/usr/libexec/podman", "/usr/lib/podman", "/usr/sbin", "/sbin")
                                        if os.access(p := f"{d}/{name}", os.X_OK)), None)
    if not found:
        raise RuntimeFailure(f"{name} is not installed: `apt-get install {name}`")
    return found
