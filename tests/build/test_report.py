"""What stages say side by side is told in the order of the file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.build.report import Report


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_the_order_is_the_files(moves: list[tuple[int, bool]]) -> None:
    told: list[str] = []
    report = Report(told.append)
    report.begin([0, 1, 2])
    ended: set[int] = set()
    said = 0
    for stage, ends in moves:
        if stage in ended:
            continue
        if ends:
            report.end(stage)
            ended.add(stage)
        else:
            report.channel(stage)(f"{stage}")
            said += 1
    assert told == sorted(told)
    for stage in {0, 1, 2} - ended:
        report.end(stage)
    assert (told, len(told)) == (sorted(told), said)


def test_the_stage_that_failed_is_heard_whoever_else_runs() -> None:
    told: list[str] = []
    report = Report(told.append)
    report.begin([0, 1])
    report.channel(1)("why")
    assert told == []
    report.failed(1)
    assert told == ["why"]
