"""The grammar of taints and tolerations."""

from __future__ import annotations

import pytest

from orchestrator.stackfile.tolerations import Taint, TaintSyntaxError, Toleration, parse_taint, parse_toleration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:NoSchedule", Taint("a", None, "NoSchedule")),
        ("a=b:NoExecute", Taint("a", "b", "NoExecute")),
        ("a=:NoExecute", Taint("a", "", "NoExecute")),
    ],
)
def test_a_taint(text: str, expected: Taint) -> None:
    assert parse_taint(text) == expected


@pytest.mark.parametrize("text", ["a", "a:Never", "=b:NoSchedule", "", "a:NoSchedule\n"])
def test_what_is_not_a_taint(text: str) -> None:
    with pytest.raises(TaintSyntaxError):
        parse_taint(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", Toleration(None, None, None)),
        ("a", Toleration("a", None, None)),
        ("a=b", Toleration("a", "b", None)),
        ("a:NoExecute", Toleration("a", None, "NoExecute")),
        ("a:Never", None),
        ("", None),
        ("a b", None),
    ],
)
def test_a_toleration(text: str, expected: Toleration | None) -> None:
    assert parse_toleration(text) == expected
