"""The table of the fault matrix in docs/reliability.md. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

BEGIN, END = "<!-- fault matrix -->", "<!-- end of the fault matrix -->"


class Cell(msgspec.Struct, frozen=True):
    """One cell: *seconds* from the end of the fault until all was as wanted; *problem* says what was not, "" if all was. The
    command that was under way had to be given again *repeated* times, as it ended with an error."""

    fault: str
    activity: str
    seconds: float
    problem: str = ""
    repeated: int = 0


def render(cells: Sequence[Cell], activities: Sequence[str]) -> str:
    """A row a fault, a column an activity; below it how many there are, and how long they took."""
    found = {(c.fault, c.activity): c for c in cells}
    lines = ["| what fails | " + " | ".join(activities) + " |", "|---" * (len(activities) + 1) + "|"]
    for fault in dict.fromkeys(c.fault for c in cells):
        row = [_text(found.get((fault, activity))) for activity in activities]
        lines.append(f"| {fault} | {' | '.join(row)} |")
    times = sorted(c.seconds for c in cells if not c.problem)
    bad = len(cells) - len(times)
    if times:
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        lines += [
            "",
            f"{len(cells)} cells, {bad} that did not end as they should. As wanted after {times[len(times) // 2]:.1f} s "
            f"(median), {p99:.1f} s (p99). In {sum(c.repeated > 0 for c in cells)} of them "
            "(*) the command ended with an error and was given again.",
        ]
    return "\n".join(lines)


def _text(cell: Cell | None) -> str:
    return (
        "–"
        if cell is None
        else f"not: {cell.problem}"
        if cell.problem
        else f"{cell.seconds:.1f} s{'*' if cell.repeated else ''}"
    )


def put_into(document: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """*document* with *table* between its two marks, which are added at its end if they are not there."""
    if begin not in document:
        document = f"{document.rstrip()}\n\n{begin}\n{end}\n"
    head, _, rest = document.partition(begin)
    return f"{head}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
