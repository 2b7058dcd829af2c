"""SSH in a lab: a host key and an sshd_config for each machine, one key that logs in, known_hosts where the server runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

CONFIG = """\
ListenAddress {address}
HostKey {directory}/ssh_host_key
AuthorizedKeysFile {directory}/authorized_keys {directory}/home/.ssh/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups 200
SetEnv PYSTACK_ROOT={directory}
"""


def prepare(lab: Path, machines: Mapping[str, str]) -> None:
    """*machines* is name → address. The first node's home holds the key and knows all the hosts."""
    home = lab / "n1" / "home" / ".ssh"
    home.mkdir(parents=True, mode=0o700)
    client = _key(home / "id_ed25519", "lab")
    known = []
    for name, address in machines.items():
        directory = lab / name
        directory.mkdir(exist_ok=True)
        known.append(f"{address} {_key(directory / 'ssh_host_key', name)}\n")
        (directory / "authorized_keys").write_text(f"{client}\n")
        (directory / "sshd_config").write_text(CONFIG.format(address=address, directory=directory))
    (home / "known_hosts").write_text("".join(known))


def _key(path: Path, comment: str) -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], check=True, stdin=subprocess.DEVNULL,
    )
    os.chmod(path, 0o600)
    return path.with_suffix(".pub").read_text().strip().rsplit(" ", 1)[0]
