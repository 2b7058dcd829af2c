"""The grammar of placement constraints: Swarm's, and what x-placement adds."""

from __future__ import annotations

import pytest

from orchestrator.stackfile.constraints import Constraint, ConstraintSyntaxError, parse, parse_extended


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "node.labels.zone",
        "node.labels.zone = east",
        "== east",
        "n == east",
        "node.labels.zone ==",
        "node labels == east",
        "node.labels.zone == a,b",
        "node.labels.zone == ä",
        "1node == x",
        "node.labels.zone !== ;",
        "node.labels.zone == a == b",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(ConstraintSyntaxError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node.labels.a==b", Constraint("node.labels.a", "==", "b")),
        (" node.labels.a  !=  b c ", Constraint("node.labels.a", "!=", "b c")),
        ("node.labels.a in (b, c,)", Constraint("node.labels.a", "in", values=("b", "c"))),
        ("node.labels.a not in (b)", Constraint("node.labels.a", "not in", values=("b",))),
        ("node.labels.a exists", Constraint("node.labels.a", "exists")),
        ("node.labels.a not exists", Constraint("node.labels.a", "not exists")),
        ("node.labels.a matches b.*", Constraint("node.labels.a", "matches", "b.*")),
        ("node.cpus>=8", Constraint("node.cpus", ">=", "8")),
        ("node.cpus < -1.5", Constraint("node.cpus", "<", "-1.5")),
        ("node.labels.a == b", Constraint("node.labels.a", "==", "b")),
    ],
)
def test_extended(text: str, expected: Constraint) -> None:
    assert parse_extended(text) == expected


def test_a_broken_expression_is_said() -> None:
    with pytest.raises(ConstraintSyntaxError, match="regular expression"):
        parse_extended("node.hostname matches (")
