"""`python -m bench compare`: what moved beyond noise, and what may be noise."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.compare import compare, rank_test


def row(*samples: float, better: str = "lower") -> dict[str, object]:
    return {"value": samples[0], "ratio": samples[0], "baseline": 1.0, "better": better, "unit": "s", "samples": list(samples)}


def test_what_moved_is_told_from_noise() -> None:
    old = {"slower": row(1.0, 1.01, 0.99, 1.0, 1.02), "noisy": row(1.0, 1.4, 0.8, 1.2, 0.9), "single": row(1.0)}
    new = {"slower": row(1.2, 1.21, 1.22, 1.19, 1.2), "noisy": row(1.3, 0.8, 1.1, 0.9, 1.25), "single": row(9.0)}
    found = {r.name: r for r in compare(old, new)}
    assert (found["slower"].moved, found["slower"].worse) == (True, True)
    assert found["slower"].low < found["slower"].change < found["slower"].high
    assert found["noisy"].moved is False
    assert found["single"].moved is None
    assert next(iter(compare(old, new))).name == "slower"


def test_more_is_worse_or_better_by_the_kind_of_the_row() -> None:
    old, new = {"rate": row(1.0, 1.01, 0.99, 1.0, 1.02, better="higher")}, {"rate": row(2, 2.1, 2.2, 2.1, 2, better="higher")}
    (found,) = compare(old, new)
    assert (found.moved, found.worse) == (True, False)
    (back,) = compare(new, old)
    assert (back.moved, back.worse) == (True, True)


def test_the_rank_test_is_the_table_of_its_authors() -> None:
    """Of five and five with no overlap two of the 252 arrangements are as far apart."""
    assert rank_test([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert rank_test([1, 2, 3], [1, 2, 3]) == 1.0
    dice = random.Random(3)
    same = sum(
        rank_test([dice.gauss(0, 1) for _ in range(6)], [dice.gauss(0, 1) for _ in range(6)]) <= 0.05 for _ in range(400)
    )
    assert same <= 36, "it finds differences where there are none"


def test_the_command_fails_where_something_is_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps({"a": row(1.0, 1.01, 0.99, 1.0, 1.02), "gone": row(1.0)}))
    new.write_text(json.dumps({"a": row(1.5, 1.51, 1.5, 1.5, 1.52)}))
    assert main(["compare", str(old), str(new)]) == 1
    said = capsys.readouterr().out
    assert "a: 1.000 → 1.500, +50.0%" in said
    assert "worse" in said
    assert f"gone: only in {old}" in said
    assert main(["compare", str(new), str(old)]) == 0
