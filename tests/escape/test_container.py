"""What code in a container tries: it is held by a default container, and each attempt succeeds where its guard is off."""

from __future__ import annotations

import pytest

from tests.escape.conftest import Outcomes
from tests.escape.rows import ROWS, Row

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.attack)
def test_attack(row: Row, outcomes: Outcomes) -> None:
    guarded, open_ = outcomes[row.on][row.attack], outcomes[row.off][row.attack]
    assert guarded.get("held") in row.answers, f"{row.what}: {guarded}"
    assert "gained" in open_, f"{row.what}, without its guard ({row.guard}): {open_}"
