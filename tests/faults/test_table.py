"""The table of the fault matrix."""

from __future__ import annotations

from tests.faults.table import BEGIN, Cell, put_into, render

CELLS = [
    Cell("a", "idle", 1.0),
    Cell("a", "update", 3.0),
    Cell("b", "idle", 9.0, "n1 is down"),
    Cell("b", "update", 2.0, "", 1),
]


def test_a_row_a_fault_and_a_column_an_activity() -> None:
    text = render(CELLS, ("idle", "update"))
    assert "| a | 1.0 s | 3.0 s |" in text
    assert "| b | not: n1 is down | 2.0 s* |" in text
    assert "4 cells, 1 that did not end as they should" in text


def test_it_takes_the_place_of_the_one_before() -> None:
    document = put_into("# Title\n", "first")
    assert put_into(document, "second") == document.replace("first", "second")
    assert document.count(BEGIN) == 1
