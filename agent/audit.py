"""This node held against the CIS Docker Benchmark's sections on the host, the daemon and its files, as far as they apply here.

Source: CIS Docker Benchmark 1.6.0, sections 1 to 3; docker-bench-security, tests/1 to tests/3.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agent import rootless
from agent.contract.audit import HostFinding
from agent.paths import Paths
from agent.settings import Settings


def examine(paths: Paths, settings: Settings) -> list[HostFinding]:
    """Every rule on this node: those that are ok too. Changes nothing."""
    return [*_files(paths), *_daemon(settings), *_host(paths)]


def fix(paths: Paths) -> list[str]:
    """Give what is ours the permissions that it should have. Returns the paths that were changed."""
    changed = []
    for finding in _files(paths):
        if not finding.ok and finding.fixable:
            path = Path(finding.target)
            handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(os.fstat(handle).st_mode) & _most(paths)[path])
                os.chown(f"/proc/self/fd/{handle}", os.geteuid(), -1)
            finally:
                os.close(handle)
            changed.append(str(path))
    return changed


def _most(paths: Paths) -> dict[Path, int]:
    """The most permissions that each of these may have."""
    config = Path(os.environ.get("PYSTACK_CONFIG", paths.root / "config.yml" if paths.tag else "/etc/pystack/config.yml"))
    secret = dict.fromkeys((paths.keys, paths.containers, paths.volumes), 0o700)
    keys = (
        {p: 0o600 for p in paths.keys.glob("*") if p.is_file() and not p.name.endswith(".pub")} if paths.keys.is_dir() else {}
    )
    # root of a user namespace passes through the folder of bundles to its own one, which no other user can open
    secret[paths.bundles] = 0o711
    return {config: 0o644, paths.control_socket: 0o660, paths.docker_socket: 0o660, **secret, **keys}


def _files(paths: Paths) -> Iterator[HostFinding]:
    """Section 3: who owns what is ours, and who else may use it."""
    for path, most in _most(paths).items():
        try:
            seen = path.lstat()
        except OSError:
            continue
        mode, secret = stat.S_IMODE(seen.st_mode), path.name
        title = f"{secret}: owned by its daemon's user, no more than {most:o}"
        wrong = []
        if seen.st_uid != os.geteuid():
            wrong.append(f"it belongs to user {seen.st_uid}")
        if mode & ~most:
            wrong.append(f"its permissions are {mode:o}")
        yield HostFinding(
            rule="3",
            title=title,
            target=str(path),
            ok=not wrong,
            level="error",
            detail=" and ".join(wrong),
            fix=f"chmod {mode & most:o} {path}; `pystack audit --fix` does it" if wrong else "",
            fixable=bool(wrong) and not path.is_symlink(),
        )


def _daemon(settings: Settings) -> Iterator[HostFinding]:
    """Section 2: what config.yml says."""

    def setting(rule: str, title: str, wrong: str, fix: str) -> HostFinding:
        return HostFinding(rule=rule, title=title, target="config.yml", ok=not wrong, detail=wrong, fix=fix if wrong else "")

    yield setting(
        "2.1", "Without root", "" if rootless.inside() else "the agent runs as root", "run it as a user: README, rootless"
    )
    insecure = [host for host, one in settings.registries.items() if one.insecure]
    wrong = f"registries without TLS: {', '.join(insecure)}" if insecure else ""
    yield setting("2.5", "No insecure registries", wrong, "take insecure: true out, and give them certificates")
    wrong = "" if settings.userns == "auto" or rootless.inside() else "containers are in the node's user namespace"
    yield setting("2.9", "User namespaces", wrong, "userns: auto")
    wrong = "" if settings.log_max_size else "logs of containers have no limit of size"
    yield setting("2.13", "Bounded logs", wrong, "log_max_size: 10m")
    policy = settings.image_policy
    wrong = "" if policy.signed or policy.registries or policy.locked else "any image may be run"
    yield setting("4.5", "Trusted images alone", wrong, "image_policy: {signed: …}")


def _host(paths: Paths) -> Iterator[HostFinding]:
    """Section 1: a file system of its own."""
    place = paths.root
    while not os.path.ismount(place):
        place = place.parent
    own = place != Path("/")
    yield HostFinding(
        rule="1.1.1",
        title="A file system of its own for containers",
        target=str(paths.root),
        ok=own,
        level="note",
        detail="" if own else "a container that fills its disk fills the host's root",
        fix="" if own else f"mount a file system at {paths.root}",
    )
