"""Debian's docker-registry on a machine of a lab."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Pystack, eventually

HOST = "10.99.0.254:5000"
"""Its address on the lab's machine `outside`."""


@contextmanager
def registry_at(lab: Pystack, *hosts: str, more: Mapping[str, str] | None = None) -> Iterator[None]:
    """Registries that share their images, one at each of *hosts* (ADDRESS:PORT) of the machine `outside`; *more* has further
    lines of the configuration of some hosts."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: run `make setup`")
    root = Path(lab.environment["PYSTACK_ROOT"])
    processes = []
    try:
        for host in hosts:
            port = host.rpartition(":")[2]
            config = root / f"registry-{port}.yml"
            config.write_text(
                f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}/registry}}}}\nhttp: {{addr: '{host}'}}\n"
                f"log: {{level: error}}\n{(more or {}).get(host, '')}"
            )
            words = ["nsenter", "-t", lab.pid(), "-n", program, "serve", str(config)]
            processes.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for host in hosts:
            eventually(partial(_answers, lab, host), 20)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _answers(lab: Pystack, host: str) -> None:
    words = ["nsenter", "-t", lab.pid(), "-n", "curl", "-sS", "-o", "/dev/null", f"http://{host}/v2/"]
    assert subprocess.run(words, check=False, timeout=10, capture_output=True).returncode == 0
