"""What a Prometheus answers, as one number or as the reason why it is none."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.server.load_figures import QueryError, number_of


def vector(*values: str) -> dict[str, Any]:
    series = [{"metric": {"n": str(n)}, "value": [1.5, v]} for n, v in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": series}}


NUMBERS = {
    "one series": (vector("12.5"), 12.5),
    "a scalar": ({"status": "success", "data": {"resultType": "scalar", "result": [1.5, "3"]}}, 3.0),
    "below nothing": (vector("-2"), 0.0),
}
WRONG = {
    "a mistake": (
        {"status": "error", "errorType": "bad_data", "error": "1:4: parse error: unclosed"},
        "1:4: parse error",
        False,
    ),
    "several series": (vector("1", "2"), "it gives 2 series, not one: sum\\(\\) them", False),
    "a range": ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "it gives a matrix", False),
    "none yet": (vector(), "it gives no series", True),
    "no number": (vector("NaN"), "it gives nan", True),
    "somebody else": ("<html>", "does not say what is wrong", False),
}


@pytest.mark.parametrize(("answer", "number"), NUMBERS.values(), ids=NUMBERS)
def test_a_number(answer: Any, number: float) -> None:
    assert number_of(answer) == number


@pytest.mark.parametrize(("answer", "why", "empty"), WRONG.values(), ids=WRONG)
def test_no_number(answer: Any, why: str, empty: bool) -> None:
    with pytest.raises(QueryError, match=why) as found:
        number_of(answer)
    assert found.value.empty is empty
