"""A node whose clock differs from the server's."""

from __future__ import annotations

import pytest

from orchestrator.errors import RefusedError
from orchestrator.server.clock_skew import MAX_SKEW_S, check_clock


@pytest.mark.parametrize(("skew_s", "words"), [(7.0, "7 s ahead"), (-7.0, "7 s behind")])
def test_a_clock_that_differs_too_much_is_refused(skew_s: float, words: str) -> None:
    with pytest.raises(RefusedError, match=f"the clock of root@10.0.0.2 is {words}: set it") as caught:
        check_clock("root@10.0.0.2", skew_s)
    assert caught.value.status == 409


@pytest.mark.parametrize("skew_s", [MAX_SKEW_S, 0.0, -MAX_SKEW_S])
def test_a_clock_within_the_limit_is_accepted(skew_s: float) -> None:
    check_clock("root@10.0.0.2", skew_s)
