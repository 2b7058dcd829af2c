"""SSH in a lab: a host key and an sshd_config for each machine, one key that logs in, known_hosts where the server runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

CONFIG = """\
ListenAddress 0.0.0.0
HostKey {directory}/ssh_host_key
AuthorizedKeysFile {directory}/authorized_keys {directory}/home/.ssh/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups 200
Subsystem sftp internal-sftp
SetEnv SHLVL=1 PYSTACK_ROOT={directory} PATH={programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""
"""SHLVL: bash(1) started by sshd reads no ~/.bashrc if SHLVL says that it is below another shell. The host's ~/.bashrc does not
belong to the lab, and may block."""


def prepare(lab: Path, machines: Mapping[str, str], servers: Sequence[str]) -> None:
    """Write keys and configuration below *lab* for *machines*, name → address. The homes of *servers* get the client key, and
    known_hosts with all machines."""
    homes = [lab / name / "home" / ".ssh" for name in servers]
    for home in homes:
        home.mkdir(parents=True, mode=0o700)
    client = _key(homes[0] / "id_ed25519", "lab")
    for home in homes[1:]:
        for name in ("id_ed25519", "id_ed25519.pub"):
            shutil.copy2(homes[0] / name, home / name)
    known = []
    for name, address in machines.items():
        directory = lab / name
        directory.mkdir(exist_ok=True)
        known.append(f"{address} {_key(directory / 'ssh_host_key', name)}\n")
        (directory / "authorized_keys").write_text(f"{client}\n")
        (directory / "sshd_config").write_text(
            CONFIG.format(address=address, directory=directory, programs=Path(sys.executable).parent)
        )
    for home in homes:
        (home / "known_hosts").write_text("".join(known))


def _key(path: Path, comment: str) -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    path.chmod(0o600)
    return path.with_suffix(".pub").read_text().strip().rsplit(" ", 1)[0]
