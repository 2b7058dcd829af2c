"""Other firewalls of the host: what they drop in passing is dropped for good, whatever our own table says.

Docker and ufw set the policy of iptables' FORWARD chain to DROP, and let through what they know. Packets that come from or go
to our bridges are let through there too; what may reach a container is decided in our table alone. Nothing is touched where
the policy is ACCEPT. Source: iptables(8); Docker's documentation, "Packet filtering and firewalls".
"""

from __future__ import annotations

import shutil
import subprocess

PROGRAMS = ("iptables", "ip6tables")
WAIT_S = "5"


def blocked_by(prefix: str) -> list[str]:
    """The programs whose FORWARD chain would drop what our links (*prefix*) forward."""
    return [program for program in PROGRAMS if _policy(program) == "DROP" and not all(_has(program, r) for r in _rules(prefix))]


def allow_forward(prefix: str) -> list[str]:
    """Open what is shut; one sentence for each chain that was changed."""
    changed = []
    for program in blocked_by(prefix):
        for rule in _rules(prefix):
            if not _has(program, rule):
                _run(program, "-I", "FORWARD", *rule)
        changed.append(
            f"{program} drops what the host forwards (its FORWARD chain, as Docker or ufw set it): "
            f"packets of links {prefix}b* are let through there"
        )
    return changed


def remove_rules(prefix: str) -> None:
    """Take our rules away again; not there is fine."""
    for program in PROGRAMS:
        for rule in _rules(prefix):
            while _policy(program) == "DROP" and _has(program, rule) and _run(program, "-D", "FORWARD", *rule) is not None:
                pass


def _rules(prefix: str) -> list[list[str]]:
    return [[way, f"{prefix}b+", "-m", "comment", "--comment", "pystack", "-j", "ACCEPT"] for way in ("-i", "-o")]


def _policy(program: str) -> str:
    """The policy of the FORWARD chain, "" where there is none."""
    said = _run(program, "-S", "FORWARD")
    return next((line.split()[2] for line in (said or "").splitlines() if line.startswith("-P FORWARD ")), "")


def _has(program: str, rule: list[str]) -> bool:
    return _run(program, "-C", "FORWARD", *rule) is not None


def _run(program: str, *words: str) -> str | None:
    """What it says, None where it says no or is not there."""
    if not shutil.which(program):
        return None
    try:
        done = subprocess.run([program, "-w", WAIT_S, *words], capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
