"""The programs that an engine cannot do without, and where they are looked for: an ordinary user's PATH has no /usr/sbin."""

from __future__ import annotations

import os
import shutil

from agent.errors import AgentError

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
NEEDED = (
    (("crun", "runc"), "runc", "containers are started with it"),
    (("conmon",), "conmon", "containers are watched by it"),
    (("nft",), "nftables", "firewall rules are loaded with it"),
)
"""Programs of which one is enough, the Debian package, and what for."""
ELSEWHERE = ("/usr/libexec/podman", "/usr/lib/podman")


def complete_path() -> None:
    """Have the system's folders in PATH, behind those that are there."""
    present = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    os.environ["PATH"] = os.pathsep.join([*present, *(folder for folder in FOLDERS if folder not in present)])


def absent() -> list[tuple[tuple[str, ...], str, str]]:
    """The rows of NEEDED of which no program is installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *ELSEWHERE])
    return [row for row in NEEDED if not any(shutil.which(name, path=path) for name in row[0])]


def missing() -> list[str]:
    """A sentence with its remedy for each program that is not installed."""
    return [f"{' or '.join(names)} is not installed ({why}): `apt-get install {package}`" for names, package, why in absent()]


def require() -> None:
    """Raises AgentError with all that is missing."""
    if lines := missing():
        raise AgentError("programs are missing on this host:\n" + "\n".join(f"    {line}" for line in lines))
