"""The examples, by the one command that each has: on a lab of three nodes, with images of Debian's packages."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.packaging.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.kernel]


@pytest.mark.parametrize("name", ["etcd", "postgres", "queue", "blog", "monitoring", "vpn"])
def test_an_example_comes_up_and_is_well(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("labs need root")
    run = ["bash", str(ROOT / "examples/stacks/run"), name]
    environment = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    try:
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "It is well" in done.stdout
    finally:
        subprocess.run([*run, "down"], env=environment, capture_output=True, check=True)
