"""`pystack system profile` watches a live server with py-spy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Pystack

pytestmark = pytest.mark.kernel


def test_a_live_server_is_watched_and_works_on(lab: Pystack, tmp_path: Path) -> None:
    folded = tmp_path / "folded"
    lab("system", "profile", "--seconds", "1", "-o", str(folded))
    lines = folded.read_text().splitlines()
    assert lines
    assert all(line.rpartition(" ")[2].isdigit() and ".py" in line for line in lines)
    assert any("orchestrator/embedded.py" in line for line in lines), "none of the server's own"
    assert lab("version").returncode == 0
    refused = lab("system", "profile", "--seconds", "1", "--node", "nowhere", check=False)
    assert refused.returncode == 1
