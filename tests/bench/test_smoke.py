"""Every benchmark still runs: as little of each as takes seconds. Its figures mean nothing here, and are not looked at."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import ALONE, IN_ONE_LAB
from orchestrator.lab import lab as labs

ROOT = Path(__file__).parents[2]
PARTS_OF_OTHERS = {"clients", "compare", "__init__", "__main__", "attach", "environment", "rows", "page", "simulated"}


def test_each_file_is_a_benchmark_or_part_of_one() -> None:
    assert {p.stem for p in (ROOT / "bench").glob("*.py")} - PARTS_OF_OTHERS == {*IN_ONE_LAB, *ALONE}


@pytest.mark.long
@pytest.mark.kernel
@pytest.mark.parametrize("names", [IN_ONE_LAB, *((name,) for name in ALONE)], ids=" ".join)
def test_it_runs(names: tuple[str, ...], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("benchmarks need root")
    out = tmp_path / "found.json"
    words = [sys.executable, "-m", "bench", "--smoke", "-o", str(out), *names]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as bench:
        said, _ = bench.communicate(timeout=480)
    assert bench.returncode == 0, said
    found = json.loads(out.read_text())
    assert found
    for row in found.values():
        assert row.keys() == {"value", "unit", "baseline", "ratio", "better"}
        assert math.isfinite(row["value"])
        assert row["value"] >= 0
        assert row["baseline"] > 0
    assert f"bench-{bench.pid}" not in labs.names()


def test_one_that_is_run_by_its_own_name_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.placement", "--smoke"], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "placement_mixed" in done.stdout


def test_a_name_that_there_is_not_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "nothing"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "no benchmark nothing" in done.stderr
