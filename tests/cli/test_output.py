"""Tables on a terminal."""

from __future__ import annotations

import pytest

from orchestrator.cli.output import _fitting


def test_columns_are_narrowed_to_a_terminal_the_widest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    narrowed = _fitting([6, 60, 20])
    assert sum(narrowed) + 4 <= 40
    assert narrowed[0] == 6
    assert _fitting([30, 30, 30, 30, 30]) == [8, 8, 8, 8, 8]
    assert _fitting([5, 5]) == [5, 5]
