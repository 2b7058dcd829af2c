"""A client outside of the cluster that asks all the while."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import Pystack


@contextmanager
def asking(lab: Pystack, program: str, *words: str) -> Iterator[dict[str, int]]:
    """Meanwhile the Python *program* runs on the machine `outside`; afterwards, what it counted. It says "on" when it begins,
    and at a line of input writes its counts as JSON and ends."""
    command = [sys.executable, "-c", program, *words]
    inside = [sys.executable, "-m", "orchestrator", "lab", "exec", "--name", lab.lab, "outside", "--", *command]
    child = subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=lab.environment)
    assert child.stdout
    assert child.stdout.readline() == "on\n"
    seen: dict[str, int] = {}
    try:
        yield seen
    finally:
        out, _ = child.communicate("stop\n", timeout=60)
        seen |= json.loads(out.splitlines()[-1])
