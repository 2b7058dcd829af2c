"""What code in a container tries: it is held by a default container, and each attempt succeeds where its guard is off."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.escape.conftest import Outcomes
from tests.escape.rows import ROWS, Row

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.attack)
@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_attack(runtime: str, row: Row, outcomes: Callable[[str], Outcomes]) -> None:
    found = outcomes(runtime)
    guarded, bare = found[row.on][row.attack], found[row.off][row.attack]
    assert guarded.get("held") in row.answers, f"{row.what}: {guarded}"
    assert "gained" in bare, f"{row.what}, without its guard ({row.guard}): {bare}"
