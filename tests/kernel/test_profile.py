"""`pystack system profile` watches a live server with py-spy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Pystack

pytestmark = pytest.mark.kernel


def test_a_live_server_is_watched_and_works_on(lab: Pystack, tmp_path: Path) -> None:
    folded = tmp_path / "folded"
    socket = lab.environment["PYSTACK_HOST"].removeprefix("unix://")
    # a server that does nothing is in no function
    asking = ["curl", "-s", "-o", "/dev/null", "--unix-socket", socket, "http://server/v1/nodes?[1-1000000]"]
    with subprocess.Popen(asking) as asker:
        try:
            lab("system", "profile", "--seconds", "3", "-o", str(folded))
        finally:
            asker.terminate()
    lines = folded.read_text().splitlines()
    assert lines
    assert all(line.rpartition(" ")[2].isdigit() and ".py" in line for line in lines)
    assert any("orchestrator/embedded.py" in line for line in lines), "none of the server's own"
    assert lab("version").returncode == 0
    refused = lab("system", "profile", "--seconds", "1", "--node", "nowhere", check=False)
    assert refused.returncode == 1
