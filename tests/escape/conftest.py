"""A lab with the image of the attackers, and what each attack came to in each kind of container."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab import lab as labs
from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.escape import kit
from tests.escape.rows import CONTAINERS, ROWS
from tests.images import archive, busybox_rootfs

Outcomes = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Container → attack → one of gained, held and broken → words."""
ADDRESS = "10.99.0.1"
"""Of the lab's node n1."""
CANARY = Path(__file__).with_name("canary.py")


@dataclass
class Field:
    """A lab of one node with the image `attacker`, and a process on the node that has a secret."""

    pystack: Pystack
    root: Path
    """State of the node."""
    secret: str
    path: Path
    """A file of root's that has it."""
    block: tuple[int, int]
    """A block device of the machine that begins with it."""
    base: bytes
    """The layer of busybox."""
    info: dict[str, Any]
    """What an attacker knows: of the canary, and the numbers of system calls."""

    def enter(self, *words: str) -> list[str]:
        """The command that runs *words* on the node."""
        return [*labs.enter(labs.find(self.pystack.lab), "n1"), *words]


@contextmanager
def field_of(runtime: str) -> Iterator[Field]:
    secret, token = f"secret-{uuid.uuid4().hex}", f"canary-{uuid.uuid4().hex}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESCAPE_SECRET", secret)  # the lab's agent inherits it
        with cluster_of(1) as pystack, kit.disk(Path(pystack.environment["PYSTACK_ROOT"]) / "disk", secret.encode()) as block:
            root = Path(pystack.environment["PYSTACK_ROOT"])
            (root / "config.yml").write_text(f"runtime: {runtime}\n")
            pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")

            def back() -> None:
                assert pystack("node", "ls", check=False).returncode == 0

            eventually(back, 20)
            path = root / "escape-secret"
            path.write_text(secret)
            path.chmod(0o600)
            base = busybox_rootfs()
            made = Field(pystack, root, secret, path, block, base, {})
            layers = [base, kit.python_layer(block)]
            image = archive(root / "attacker.tar", layers, name="docker.io/library/attacker:latest")
            pystack("image", "load", "-i", str(image))
            words = made.enter(kit.PYTHON, "-E", "-s", str(CANARY), token, str(path), ADDRESS)
            with subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"ESCAPE_SECRET": secret}
            ) as canary:
                assert canary.stdin
                assert canary.stdout
                try:
                    made.info = json.loads(canary.stdout.readline()) | {
                        "token": token,
                        "path": str(path),
                        "handle": kit.handle(path),
                        "block": block,
                        "numbers": kit.numbers(),
                        "obsolete": {n: kit.numbers()[n] for n in kit.OBSOLETE},
                        "sockets": [
                            "/run/docker.sock",
                            "/var/run/docker.sock",
                            "/run/pystack/pystack.sock",
                            "/run/pystack/docker.sock",
                            *map(str, (root / "run").glob("*.sock")),
                        ],
                    }
                    yield made
                finally:
                    canary.stdin.close()


@pytest.fixture(scope="session")
def fields() -> Iterator[Callable[[str], Field]]:
    """The field of a runtime; made when it is first asked for, and kept, in whatever order tests come."""
    with ExitStack() as stack:
        yield cache(lambda runtime: stack.enter_context(field_of(runtime)))


@pytest.fixture(scope="session")
def outcomes(fields: Callable[[str], Field], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcomes]:
    """What all attacks of ROWS came to over a runtime."""
    return cache(lambda runtime: tried(fields(runtime), tmp_path_factory.mktemp("escape")))


def tried(field: Field, folder: Path) -> Outcomes:
    """All attacks of ROWS, tried in all containers that they name: one `up` for all."""
    tries: dict[str, list[str]] = {}
    for row in ROWS:
        for container in (row.on, row.off):
            attacks = tries.setdefault(container, [])
            attacks += [row.attack] if row.attack not in attacks else []
    chrooted = tries.pop("chroot")
    stack = Stack(field.pystack, folder)
    stack.up(stack_of(field, tries), "--no-wait")
    try:

        def ended() -> None:
            assert {row["state"] for row in stack.ps().values()} == {"exited"}

        eventually(ended, 90)
        found = {c: said(stack.run("logs", "--no-log-prefix", service(c)).stdout) for c in tries}
        return found | {"chroot": said(in_chroot(field, folder, chrooted))}
    finally:
        stack.down()


def service(container: str) -> str:
    return container.replace(" ", "-")


def stack_of(field: Field, tries: Mapping[str, Sequence[str]]) -> str:
    """A stack of a service for each of *tries*, container → attacks."""
    kept = field.root / "kept"  # on the file system that the secret is on
    kept.mkdir()
    (kept / "file").write_text("kept")
    (kept / "file").chmod(0o666)
    (kept / "roots").write_text(field.secret)
    (kept / "roots").chmod(0o600)
    services: dict[str, Any] = {}
    guarded = {row.on for row in ROWS}
    for container, attacks in tries.items():
        keys = dict(CONTAINERS[container])
        if container not in guarded:  # of several guards the one that a row names is off, and this is none of them
            keys["security_opt"] = [*keys.get("security_opt", ()), "apparmor=unconfined"]
        environment = {"FIELD": json.dumps(field.info).replace("$", "$$"), **keys.pop("environment", {})}
        services[service(container)] = {
            "image": "attacker",
            "command": ["python3", "/inside.py", *attacks],
            "environment": environment,
            "stop_signal": "SIGKILL",
            **keys,
        }
    text = json.dumps({"services": services})
    replaced = {
        "@kept": str(kept),
        "@socket": str(field.root / "run/docker.sock"),
        "@secret": field.secret,
        "@address": ADDRESS,
    }
    for word, value in replaced.items():
        text = text.replace(word, value)
    return text


CHROOT = """
import os, sys
root, *words = sys.argv[1:]
os.dup2(os.open("/", os.O_RDONLY), 7)  # left open, as a runtime might
os.chroot(root)
os.chdir(os.environ["WORKING_DIRECTORY"])
os.execv(words[0], words)
"""


def in_chroot(field: Field, folder: Path, attacks: Sequence[str], working_directory: str = "/") -> str:
    """What *attacks* print in the image's files, with chroot(2) alone for a runtime; descriptor 7 is the host's root."""
    root = folder / "root"
    root.mkdir()
    for data in (busybox_rootfs(), kit.python_layer(field.block)):
        subprocess.run([kit.program("tar"), "-xC", str(root)], input=data, check=True, capture_output=True)
    (root / "proc").mkdir()
    # in the machine's own cgroup namespace, not in the lab's
    words = [word for word in field.enter() if word != "-C"]
    words += ("unshare", "-m", "sh", "-c", 'mount -t proc proc "$0/proc" && exec "$@"', str(root))
    done = subprocess.run(
        [*words, kit.PYTHON, "-c", CHROOT, str(root), "/usr/bin/python3", "/inside.py", *attacks],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "FIELD": json.dumps(field.info), "WORKING_DIRECTORY": working_directory},
    )
    return done.stdout


def said(text: str) -> dict[str, dict[str, str]]:
    return {line.pop("attack"): line for line in map(json.loads, text.splitlines())}
