"""Who is a silent neighbour: one that answered, and does not any more."""

from __future__ import annotations

from netplugins.liveness import MISSED, NeighbourTable


def test_one_that_stops_answering_is_silent_until_it_answers() -> None:
    table = NeighbourTable()
    table.watch(["10.0.0.1", "10.0.0.2"])
    table.answered("10.0.0.1")
    table.answered("10.0.0.2")
    for _ in range(MISSED + 1):
        table.missed_one()
        table.answered("10.0.0.2")
    assert table.silent == {"10.0.0.1"}
    table.answered("10.0.0.1")
    assert table.silent == set()


def test_one_that_never_answered_is_not_judged() -> None:
    table = NeighbourTable()
    table.watch(["10.0.0.1"])
    for _ in range(100):
        table.missed_one()
    assert table.silent == set()


def test_some_echoes_may_be_lost() -> None:
    table = NeighbourTable()
    table.watch(["10.0.0.1"])
    for _ in range(20):
        table.answered("10.0.0.1")
        for _ in range(MISSED):
            table.missed_one()
            assert table.silent == set()


def test_who_is_no_neighbour_any_more_is_forgotten() -> None:
    table = NeighbourTable()
    table.watch(["10.0.0.1"])
    table.answered("10.0.0.1")
    for _ in range(MISSED + 1):
        table.missed_one()
    table.watch(["10.0.0.2"])
    assert table.silent == set()
    table.answered("10.0.0.1")  # late
    table.watch(["10.0.0.1"])
    for _ in range(MISSED + 1):
        table.missed_one()
    assert table.silent == set()
