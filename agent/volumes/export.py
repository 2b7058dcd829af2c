"""One volume of this node for one other node, over the SSH server that is there.

authorized_keys names this as the only command that the other node's key may run:

    python -m agent.volumes.export FOLDER

It enters a mount namespace of its own, where / holds the volume's data at /volume and, read-only, what sftp-server needs;
nothing else of the node can be named there. Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT; sftp-server(8).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent import mounts

SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
NEEDED = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 32, 4096, 16384


def main(data: Path) -> None:
    server = next((path for path in SERVERS if os.path.exists(path)), "")
    if not server:
        sys.exit("no sftp-server is installed here: it comes with openssh-server (openssh-sftp-server)")
    if not data.is_dir():
        sys.exit(f"{data} is not there any more")
    mounts.own_namespace()
    held = os.open(data, os.O_PATH | os.O_DIRECTORY)  # it may lie below what is covered now
    root = Path("/run")
    mounts.mount("tmpfs", root, "tmpfs", 0, "mode=755,size=1m")
    for name in ("volume", "etc", "dev"):
        (root / name).mkdir()
    mounts.mount(f"/proc/self/fd/{held}", root / "volume", "none", MS_BIND | MS_REC)
    for name in NEEDED:
        source, target = Path(name), root / name.lstrip("/")
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.is_dir():
            target.mkdir()
            _read_only(source, target)
        elif source.exists():
            target.touch()
            _read_only(source, target)
    (root / "etc/passwd").write_text("root:x:0:0:root:/volume:/usr/sbin/nologin\n")  # sftp-server asks who it is
    (root / "dev/null").touch()
    mounts.mount("/dev/null", root / "dev/null", "none", MS_BIND)
    os.chroot(root)
    os.chdir("/volume")
    os.execv(server, [server, "-e", "-l", "ERROR"])


def _read_only(source: Path, target: Path) -> None:
    mounts.mount(str(source), target, "none", MS_BIND)
    mounts.mount("none", target, "none", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
