"""What noise cannot hide: modules, calls, transactions, messages and bytes, against those in bench/counters.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = 1.03


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the counters were kept with Python 3.11, and others call otherwise"
)
def test_nothing_costs_more_than_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = [sys.executable, "-m", "bench", "counters", "-o", str(out)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads((ROOT / "bench" / "counters.json").read_text())
    found = {name: row["value"] for name, row in json.loads(out.read_text()).items()}
    assert found.keys() == kept.keys(), "python -m bench.counters --write"
    more = {name: (kept[name], value) for name, value in found.items() if value > kept[name] * MOST}
    assert not more, f"(kept, now): {more}; where it is worth it: python -m bench.counters --write, and why, in the commit"
