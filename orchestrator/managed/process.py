"""The process of this host's member: started, found again by its PID, and stopped. It outlives the server, as containers do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from orchestrator.errors import PystackError
from orchestrator.managed.gateway import Gateway, GatewayError
from orchestrator.managed.settings import MemberFolder, MemberSettings, client_url, peer_url

STOP_S = 10.0
START_S = 60.0
"""How long a member may take to answer: the disk of a busy machine."""
SHOWN_S = 2.0
"""How long the kernel may take to show the words of a process that has just begun."""
LOG_BYTES = 32 << 20


def require_etcd() -> None:
    """Raises PystackError where there is no etcd."""
    if not shutil.which("etcd"):
        raise PystackError("the program etcd is not installed here: apt-get install etcd-server")


def running(folder: MemberFolder) -> int:
    """The PID of the member, 0 if it does not run."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(folder.pid.read_text())
        with contextlib.suppress(ChildProcessError):  # one that ended is a zombie until its parent has asked for it
            os.waitpid(pid, os.WNOHANG)
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[0].endswith(b"etcd") and str(folder.data).encode() in words:
            return pid
    return 0


def start(folder: MemberFolder, settings: MemberSettings) -> int:
    """Start the member, unless it runs. Returns its PID. Raises PystackError."""
    if pid := running(folder):
        return pid
    require_etcd()
    if folder.log.exists() and folder.log.stat().st_size > LOG_BYTES:
        folder.log.replace(folder.log.with_suffix(".log.1"))
    words, append = command(folder, settings), os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(folder.log), append, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawnp(words[0], words, os.environ, file_actions=files, setsid=True)
    folder.pid.write_text(str(pid))
    until = time.monotonic() + SHOWN_S
    while not running(folder) and time.monotonic() < until:
        time.sleep(0.02)
    return pid


def command(folder: MemberFolder, settings: MemberSettings) -> list[str]:
    """How etcd is started. Source: etcd 3.4, configuration flags."""
    own, peer = client_url(settings.address), peer_url(settings.address)
    files = {"cert-file": folder.cert, "key-file": folder.key, "trusted-ca-file": folder.ca}
    return [
        "etcd",
        f"--name={settings.name}",
        "--data-dir",
        str(folder.data),
        f"--listen-client-urls={own},{client_url('127.0.0.1')}",
        f"--advertise-client-urls={own}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={','.join(f'{name}={peer_url(a)}' for name, a in settings.members.items())}",
        f"--initial-cluster-state={'existing' if settings.joining else 'new'}",
        "--logger=zap",
        *(f"--{kind}{name}={path}" for kind in ("", "peer-") for name, path in files.items()),
        "--client-cert-auth",
        "--peer-client-cert-auth",
        *(["--force-new-cluster"] if settings.forced else []),
    ]


def stop(folder: MemberFolder) -> None:
    """End the member, and wait until it has. It ends in order, or is killed."""
    pid = running(folder)
    if not pid:
        return
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + STOP_S
    while running(folder):
        if time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    folder.pid.unlink(missing_ok=True)


def wait(folder: MemberFolder, settings: MemberSettings, *, quorum: bool = True) -> None:
    """Wait until the member answers, with *quorum* for the cluster. Raises PystackError with its last words."""
    until, gateway = time.monotonic() + START_S, Gateway(folder, settings.address)
    while time.monotonic() < until:
        with contextlib.suppress(GatewayError):
            gateway.status()
            if not quorum or gateway.has_quorum():
                return
        if not running(folder):
            break
        time.sleep(0.1)
    last_lines = folder.log.read_text(errors="replace").splitlines()[-3:] if folder.log.exists() else []
    raise PystackError(f"etcd does not answer at {client_url(settings.address)}: {' '.join(last_lines)[-600:]} ({folder.log})")
