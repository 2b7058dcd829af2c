"""conmon and an OCI runtime (crun or runc): start a container, notice its end, signal it, remove it.

conmon keeps a container's output and exit status, and outlives the agent. The agent identifies processes by pidfd, and after a
restart by PID and start time: never by PID only. Where a system call does the work of a runtime's subcommand (let the created
process go, remove the remains of an ended one), it is made here: each run of the runtime costs as much as a small container.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL
from types import MappingProxyType
from typing import Any

import msgspec

from agent import cgroups, descriptors, files, mounts
from agent.containers import runtimes, users
from agent.contract.failpoints import failpoint
from agent.contract.processes import start_time
from agent.errors import NoProgramError, RuntimeFailureError
from agent.isolation import capabilities
from agent.isolation.seccomp_cache import SeccompCache
from agent.paths import Paths
from agent.processes import ChildProcess

MONITOR_NICE = 10
"""Of conmon, which is in no container's group: a flood of lines would take a core by way of it, beside the limit."""


class Process(msgspec.Struct, frozen=True):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: int

    @property
    def age_s(self) -> float:
        """Seconds since its start; changes of the wall clock do not count."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / os.sysconf("SC_CLK_TCK")

    def alive(self) -> bool:
        """Whether the process runs: the PID may belong to a later process, the start time does not."""
        return self.pid > 0 and start_time(self.pid) == self.started

    def open(self) -> int | None:
        """A pidfd, or None if the process is gone."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return None
        if not self.alive():
            os.close(fd)
            return None
        return fd

    def signal(self, number: int) -> bool:
        """True if the signal was delivered."""
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


async def ended(process: Process) -> None:
    """Wait for *process* to end; at once where it already has."""
    fd = process.open()
    if fd is None:
        return
    try:
        await descriptors.wait_readable(fd)
    finally:
        os.close(fd)


def choose(asked: str, state: Path) -> str:
    """The runtime for this host: "runc" or "crun". Raises RuntimeFailureError if the one asked for cannot work here.

    crun starts a container in about half of runc's time. It refuses a hybrid host as long as it sees the version 2
    hierarchy, so that is hidden from this process and its children, in a mount namespace of its own that still shares
    every other mount with the host's: the roots below *state* must stay visible to the agent's successor."""
    if asked == "runc":
        return asked
    reason = ""
    if not runtimes.find("crun"):
        reason = "crun is not installed: `apt-get install crun`"
    elif cgroups.hybrid():
        if mounts.is_shared(state):
            mounts.hide(cgroups.ROOT / "unified")
        else:
            reason = f"crun needs the mount that holds {state} to be shared on a hybrid cgroup host"
    if reason and asked == "crun":
        raise RuntimeFailureError(reason)
    return "runc" if reason else "crun"


class ContainerStreams(msgspec.Struct, frozen=True, kw_only=True):
    """The streams of a container's first process: a terminal or pipes, an open input or none, and its output's log.

    *stdin_once* closes the input when its first client leaves. *log_max* is in bytes, 0 for no limit. *log_driver* "none" drops
    the output, "journald" sends it to the journal too."""

    tty: bool
    stdin: bool
    stdin_once: bool
    log: Path
    log_max: int
    log_driver: str = "json-file"


class ExecOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a command in a running container differs from the container's own process. *environment* has lines NAME=VALUE;
    *size* is rows and columns of the terminal, which the command sees from its first instruction on."""

    tty: bool = False
    identity: users.Identity | None = None
    environment: tuple[str, ...] = ()
    cwd: str = ""
    privileged: bool = False
    size: tuple[int, int] = (0, 0)


class Runtime:
    """Containers by an OCI runtime (runc or crun), each below a conmon."""

    def __init__(self, paths: Paths, name: str, others: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        """*name* is the node's own; *others* are path and arguments of more, by their names."""
        self.root = paths.runc
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.conmon = runtimes.program("conmon")
        self.name = name
        self.programs = runtimes.known(name, others)
        self.program = self.programs[name].path
        self._asked: dict[str, str] = {}
        """The runtimes of containers that have another than the node's own."""
        self.parent = paths.cgroup_parent
        self.filters = SeccompCache()

    def known(self, name: str) -> None:
        """Raises BadRequestError for an unknown runtime."""
        runtimes.refuse(name, self.programs)

    def assign(self, ident: str, name: str) -> None:
        """Container *ident* runs by the runtime *name*, "" for the node's own. Raises BadRequestError."""
        self.known(name)
        if name in self.programs and name != self.name:
            self._asked[ident] = name
        else:
            self._asked.pop(ident, None)

    def _of(self, ident: str) -> runtimes.Program:
        return self.programs[self._asked.get(ident, self.name)]

    def anticipate(self) -> None:
        """Call when it becomes likely that one is going to be created, and again when that is certain."""
        asyncio.get_running_loop().run_in_executor(None, cgroups.anticipate)

    def write(self, ident: str, bundle: Path, document: dict[str, Any]) -> None:
        """The bundle's `config.json`."""
        if self._of(ident).kind == "crun":
            self.filters.inject(ident, document)
        files.write_atomically(bundle / "config.json", msgspec.json.encode(document), 0o600)

    async def create(self, ident: str, bundle: Path, streams: ContainerStreams) -> tuple[Process, Process]:
        """Make the container, stopped just before its first instruction.

        Returns (conmon, init). Raises RuntimeFailureError, or TimeoutError after 60 s."""
        for stale in ("exit", "pid", "conmon.pid", "oom", "attach", "ctl", "winsz"):
            (bundle / stale).unlink(missing_ok=True)
        if (self.root / ident).exists():  # it could not be removed when the container ended: no descriptor was free, say
            await self.delete(ident)
        (bundle / "exits").mkdir(exist_ok=True)
        (bundle / "exits" / ident).unlink(missing_ok=True)
        failpoint("container.create")
        self.anticipate()
        child, read = _start_conmon(self._conmon_command(ident, bundle, streams), bundle)
        try:
            async with asyncio.timeout(60):
                line = await descriptors.read_line(read)
        finally:
            os.close(read)
        await child.wait()
        complaint = (bundle / "conmon.err").read_text(errors="replace").strip()
        reply: dict[str, Any] = json.loads(line) if line else {"pid": -1, "message": complaint}
        pid = int(reply.get("data", reply.get("pid", -1)))  # the key changed with conmon API version 1
        if pid <= 0:
            raise failure(_reason(str(reply.get("message", "")) or complaint, bundle / "runc.log", _program(bundle)))
        self.filters.store(ident, self.root / ident)
        monitor = int((bundle / "conmon.pid").read_text())
        with contextlib.suppress(OSError):  # it is gone: so is its container
            os.setpriority(os.PRIO_PROCESS, monitor, MONITOR_NICE)
        failpoint("container.created")
        return Process(monitor, start_time(monitor)), Process(pid, start_time(pid))

    def _conmon_command(self, ident: str, bundle: Path, streams: ContainerStreams) -> list[str]:
        program = self._of(ident)
        arguments = [
            self.conmon,
            "--api-version",
            "1",
            "-c",
            ident,
            "-u",
            ident,
            "-n",
            ident,
            "-r",
            program.path,
            "-b",
            str(bundle),
            "-p",
            str(bundle / "pid"),
            "--conmon-pidfile",
            str(bundle / "conmon.pid"),
            "--exit-dir",
            str(bundle / "exits"),
            "--persist-dir",
            str(bundle),
            "--socket-dir-path",
            str(bundle),
            *_log_paths(streams.log_driver, streams.log),
            "--log-level",
            "error",
            "--full-attach",
            *(word for own in program.arguments for word in ("--runtime-arg", own)),
            "--runtime-arg",
            f"--root={self.root}",
            # crun takes text before a colon for a kind of log, which a path may contain too; runc knows no kinds
            "--runtime-arg",
            f"--log={'file:' if program.kind == 'crun' else ''}{bundle / 'runc.log'}",
        ]
        if not self.parent and program.kind == "crun":
            arguments += ["--runtime-arg", "--cgroup-manager=disabled"]
        if streams.log_max:
            arguments += ["--log-size-max", str(streams.log_max)]
        if streams.tty:
            arguments.append("-t")
        if streams.stdin:
            arguments += ["-i"] if streams.stdin_once else ["-i", "--leave-stdin-open"]
        return arguments

    async def start(self, ident: str) -> None:
        """Let a created container run its first instruction: its process waits at a fifo, as both runtimes have it.

        runc's process writes a byte when the fifo is opened for reading; crun's waits to read one."""
        failpoint("container.start")
        fifo, kind = self.root / ident / "exec.fifo", self._of(ident).kind
        if not kind:
            return await self._run(ident, "start", ident)
        reads = kind == "crun"
        try:
            fd = os.open(fifo, (os.O_WRONLY if reads else os.O_RDONLY) | os.O_NONBLOCK)
        except OSError:
            return await self._run(ident, "start", ident)  # another version's way: its own command knows it
        try:
            fifo.unlink()  # as `start` does: from now on its state is "running"
            if reads:
                os.write(fd, b"1")
            else:
                async with asyncio.timeout(60):
                    await descriptors.wait_readable(fd)
        finally:
            os.close(fd)

    async def signal(self, ident: str, number: int) -> None:
        """Send a signal to every process of a container (for those that share a PID namespace)."""
        await self._run(ident, "kill", "--all", ident, str(number))

    async def pause(self, ident: str) -> None:
        """Freeze the processes of container *ident*. Raises RuntimeFailureError."""
        await self._run(ident, "pause", ident)

    async def resume(self, ident: str) -> None:
        """Thaw the processes of container *ident*. Raises RuntimeFailureError."""
        await self._run(ident, "resume", ident)

    async def update(self, ident: str, resources: Mapping[str, Any]) -> None:
        """Give a running container other limits; *resources* as in the OCI document."""
        await self._run(ident, "update", "--resources", "-", ident, stdin=msgspec.json.encode(resources))

    async def delete(self, ident: str, parent: str = "") -> None:
        """Remove the runtime's state of a container and its processes, if there are any. *parent* is the cgroup above its own,
        if that is not the agent's."""
        self.filters.drop(ident)
        if (self.root / ident).exists():
            failpoint("container.delete")
            if not self._of(ident).kind or not await asyncio.to_thread(cgroups.remove, f"{parent or self.parent}/{ident}"):
                with contextlib.suppress(RuntimeFailureError):
                    await self._run(ident, "delete", "--force", ident)
            shutil.rmtree(self.root / ident, ignore_errors=True)

    def exec(
        self,
        ident: str,
        bundle: Path,
        command: Sequence[str],
        options: ExecOptions = ExecOptions(),
        *,
        complaints: int = -1,
        **streams: Any,
    ) -> ChildProcess:
        """Start *command* inside a running container, as its own process was started but for *options*.

        The runtime's own messages go to the file open at *complaints* too. *streams* go to ChildProcess; the process returned
        ends as *command* does."""
        process = _exec_process(json.loads((bundle / "config.json").read_bytes())["process"], command, options)
        fd = os.memfd_create("process")
        try:
            os.write(fd, msgspec.json.encode(process))
            program = self._of(ident)
            kind = "file:" if program.kind == "crun" else ""
            log = [f"--log={kind}/proc/self/fd/{complaints}"] if complaints >= 0 else []
            words = [program.path, *program.arguments, f"--root={self.root}", *log]
            words += ["exec", "--process", f"/proc/self/fd/{fd}", ident]
            return ChildProcess(*words, pass_fds=(fd, complaints) if log else (fd,), **streams)
        finally:
            os.close(fd)

    async def output_of(
        self,
        ident: str,
        bundle: Path,
        command: Sequence[str],
        within_s: float | None,
        options: ExecOptions = ExecOptions(),
        complaints: int = -1,
    ) -> tuple[int, bytes]:
        """Exit status and all output of *command*, run inside a running container; *options* and *complaints* as in `exec`.

        It is killed if the caller is cancelled, or after *within_s* seconds. Raises TimeoutError."""
        errors, write = os.pipe()
        try:
            try:
                streams: dict[str, Any] = {"stdin": DEVNULL, "stdout": write, "stderr": write}
                child = self.exec(ident, bundle, command, options, complaints=complaints, **streams)
            finally:
                os.close(write)
            try:
                async with asyncio.timeout(within_s):
                    output, code = await asyncio.gather(descriptors.read_all(errors), child.wait())
            except BaseException:
                child.kill()  # it may have ended, with a descendant that holds the pipe
                await child.wait()
                raise
            return code, output
        finally:
            os.close(errors)

    async def _run(self, ident: str, *arguments: str, stdin: bytes = b"") -> None:
        program = self._of(ident)
        # files in memory: crun opens /dev/stdin by its name
        with os.fdopen(os.memfd_create("stdin"), "w+b") as file, os.fdopen(os.memfd_create("stderr"), "w+b") as errors:
            file.write(stdin)
            file.seek(0)
            words = (program.path, *program.arguments, f"--root={self.root}", *arguments)
            child = ChildProcess(*words, stdin=file, stdout=DEVNULL, stderr=errors)
            if await child.wait():
                errors.seek(0)
                raise RuntimeFailureError(_reason(errors.read().decode(errors="replace").strip(), None))


def _start_conmon(command: Sequence[str], bundle: Path) -> tuple[ChildProcess, int]:
    """Start conmon; returns its process and the descriptor on which it reports the container's PID."""
    read, write = os.pipe()
    environment = {"_OCI_SYNCPIPE": str(write), "PATH": os.environ.get("PATH", os.defpath)}
    # a file and not a pipe: conmon stays, and would hold the pipe's other end open
    with (bundle / "conmon.err").open("wb") as complaints:
        child = ChildProcess(
            *command,
            pass_fds=(write,),
            env=environment,
            cwd=bundle,
            start_new_session=True,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=complaints,
        )
    os.close(write)
    return child, read


def _exec_process(process: dict[str, Any], command: Sequence[str], options: ExecOptions) -> dict[str, Any]:
    """*process* of the container's own OCI document, changed to run *command* with *options*."""
    pairs = dict(pair.partition("=")[::2] for pair in process["env"])
    pairs |= dict(pair.partition("=")[::2] for pair in options.environment)
    if identity := options.identity:
        process["user"] = {
            "uid": identity.uid,
            "gid": identity.gid,
            "additionalGids": list(identity.groups),
        }
        if "HOME" not in {pair.partition("=")[0] for pair in options.environment}:
            pairs["HOME"] = identity.home
        process["capabilities"] = capabilities.sets(process["capabilities"]["bounding"], identity.uid)
    if options.privileged:
        process["capabilities"] = capabilities.sets(list(capabilities.resolve((), (), privileged=True)), 0)
        if "apparmorProfile" in process:  # without one a runtime takes the container's own
            process["apparmorProfile"] = "unconfined"
    process |= {
        "args": list(command),
        "env": [f"{k}={v}" for k, v in pairs.items()],
        "terminal": options.tty,
        "cwd": options.cwd or process["cwd"],
    }
    if options.tty and options.size != (0, 0):
        process["consoleSize"] = {"height": options.size[0], "width": options.size[1]}
    return process


def _log_paths(driver: str, log: Path) -> list[str]:
    """Where conmon writes: the file that `logs` reads, and beside it the journal where that is asked for."""
    if driver == "none":
        return ["-l", "none"]
    return ["-l", f"k8s-file:{log}", *(["-l", "journald:"] if driver == "journald" else [])]


def exit_code(bundle: Path, ident: str) -> int | None:
    """The exit code that conmon recorded, None if it recorded none."""
    try:
        return int((bundle / "exits" / ident).read_text())
    except (OSError, ValueError):
        return None


def was_oom_killed(bundle: Path) -> bool:
    """Whether conmon noted that the kernel killed the container for want of memory."""
    return (bundle / "oom").exists()


NOT_CREATED = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
"""What Docker's daemon puts before a runtime's complaint, and what tools look for."""


def failure(text: str) -> RuntimeFailureError:
    """The error for a runtime's message *text*: NoProgramError if the command does not exist or cannot be executed."""
    theirs = (
        "executable file not found",
        "no such file or directory",
        "permission denied",
        "is a directory",
        "not a directory",
    )
    kind = NoProgramError if any(words in text for words in theirs) else RuntimeFailureError
    return kind(f"{NOT_CREATED}{text}: unknown")


def _program(bundle: Path) -> str:
    """The first word of a container's command."""
    arguments: list[str] = json.loads((bundle / "config.json").read_bytes())["process"]["args"]
    return arguments[0]


def _reason(text: str, log: Path | None, program: str = "") -> str:
    """The last complaint of a runtime about *program* without its prefixes."""
    if log and log.exists():
        for line in reversed(log.read_text(errors="replace").splitlines()):
            if "error" in line or "msg=" in line:
                text = line.partition('msg="')[2].rstrip('"').replace('\\"', '"') or line
                break
    for prefix in ("runc create failed: ", "unable to start container process: ", "container_linux.go:"):
        text = text.replace(prefix, "")
    return _plain(text.strip(), program) or "the runtime failed without a word"


def complaint(log: Path) -> str:
    """The last message of a runtime in *log*, in runc's words; "" if there is none."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    return _plain((last.partition('msg="')[2].rstrip('"').replace('\\"', '"') or last).strip())


def exec_failure(complaint: str, program: str = "") -> str:
    """The message for *program*, which could not be run, in the words that Docker's clients know."""
    words = _plain(complaint.strip(), program)
    for line in words.splitlines()[:: -1 if 'msg="' in words else 1]:  # runc puts the cause last, crun first
        words = line.partition('msg="')[2].rstrip('"').replace('\\"', '"') or line
        break
    known = "OCI runtime exec failed: exec failed: unable to start container process: "
    return f"{known}{words.removeprefix('exec failed: ').removeprefix('unable to start container process: ')}: unknown"


def exec_status(complaint: str, program: str) -> int:
    """The exit status of *program*, which the runtime could not run, in Docker's numbers, from the runtime's message."""
    words = _plain(complaint, program)
    return 127 if "executable file not found" in words or "no such file or directory" in words else 126


def _plain(text: str, program: str = "") -> str:
    """*text* of crun in runc's words, by which Docker's clients recognise kinds of failures; crun does not always say which
    *program* it is about."""

    def missing(name: str) -> str:
        return f"stat {name}: no such file or directory" if "/" in name else "executable file not found in $PATH"

    text = re.sub(
        r"executable file `([^`]*)` not found in \$PATH(: No such file or directory)?",
        lambda found: f'exec: "{found[1]}": {missing(found[1])}',
        text,
    )
    why = "permission denied" if program else missing("")
    text = text.replace("open executable: Operation not permitted", f'exec: "{program}": {why}')
    text = re.sub(r"chdir `([^`]*)`", r'chdir to cwd ("\1") set in config.json failed', text)
    text = re.sub(r"the sysctl `([^`]*)` is not namespaced", r'sysctl "\1" is not in a separate kernel namespace', text)
    for error in (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.EINVAL):
        text = text.replace(os.strerror(error), os.strerror(error).lower())
    return text
