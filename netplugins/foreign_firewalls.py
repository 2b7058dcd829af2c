"""Other firewalls of the host: a packet that they drop is dropped even if our own table accepts it.

Docker and ufw set the policy of iptables' FORWARD chain to DROP, and accept what they know. Packets from and to our bridges
are accepted there too; only our own table decides what reaches a container. Nothing changes where the policy is ACCEPT.
Source: iptables(8); Docker's documentation, "Packet filtering and firewalls".
"""

from __future__ import annotations

import shutil
import subprocess

PROGRAMS = ("iptables", "ip6tables")
WAIT_S = "5"


def blocked_by(prefix: str) -> list[str]:
    """The programs whose FORWARD chain drops packets of our bridges (*prefix*)."""
    return [program for program in PROGRAMS if _policy(program) == "DROP" and not all(_has(program, r) for r in _rules(prefix))]


def allow_forward(prefix: str) -> list[str]:
    """Accept packets of our bridges where a FORWARD chain drops them. Returns a sentence for each chain that was changed."""
    changed = []
    for program in blocked_by(prefix):
        for rule in _rules(prefix):
            if not _has(program, rule):
                _run(program, "-I", "FORWARD", *rule)
        changed.append(
            f"{program} drops what the host forwards (its FORWARD chain, as Docker or ufw set it): "
            f"it now accepts packets of links {prefix}b*"
        )
    return changed


def remove_rules(prefix: str) -> None:
    """Delete our rules; they need not exist."""
    for program in PROGRAMS:
        for rule in _rules(prefix):
            while _policy(program) == "DROP" and _has(program, rule) and _run(program, "-D", "FORWARD", *rule) is not None:
                pass


def _rules(prefix: str) -> list[list[str]]:
    return [[way, f"{prefix}b+", "-m", "comment", "--comment", "pystack", "-j", "ACCEPT"] for way in ("-i", "-o")]


def _policy(program: str) -> str:
    """The policy of the FORWARD chain, "" if there is none."""
    listed = _run(program, "-S", "FORWARD") or ""
    return next((line.split()[2] for line in listed.splitlines() if line.startswith("-P FORWARD ")), "")


def _has(program: str, rule: list[str]) -> bool:
    return _run(program, "-C", "FORWARD", *rule) is not None


def _run(program: str, *words: str) -> str | None:
    """The output of *program*; None if it fails or is not installed."""
    if not shutil.which(program):
        return None
    try:
        done = subprocess.run([program, "-w", WAIT_S, *words], capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
