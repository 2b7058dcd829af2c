"""`--format` with templates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.cli.output import _fitting, show
from orchestrator.cli.templates import worded
from orchestrator.errors import PystackError

ROWS: list[dict[str, Any]] = [
    {"task": "shop-web-1", "state": "running", "ports": ["8080->80/tcp", "8443->443/tcp"], "node": None, "exit_code": 0},
    {"task": "shop-db-1", "state": "failed", "ports": [], "node": "n2", "exit_code": 1},
]


@pytest.mark.parametrize(
    ("template", "first"),
    [
        ("{{.task}}", "shop-web-1"),
        ("{{.Name}} {{.Status}}", "shop-web-1 running"),
        ("{{.Exit_Code}}", "0"),
        ("{{.ports}}", "8080->80/tcp, 8443->443/tcp"),
        ('{{join .ports "+"}}', "8080->80/tcp+8443->443/tcp"),
        ("{{upper .state}}/{{len .ports}}", "RUNNING/2"),
        ('{{if eq .state "failed"}}bad{{else}}well{{end}}', "well"),
        ("{{.task}} on {{.node}}", "shop-web-1 on "),
        ("{{truncate .task 4}}", "shop"),
    ],
)
def test_a_row_is_worded(template: str, first: str) -> None:
    assert next(iter(worded(ROWS, template))) == first


def test_a_whole_row_is_json() -> None:
    assert [json.loads(line) for line in worded(ROWS, "{{json .}}")] == ROWS


def test_columns_stand_under_heads() -> None:
    assert list(worded(ROWS, "table {{.task}}\\t{{.exit_code}}")) == ["TASK        EXIT CODE", "shop-web-1  0", "shop-db-1   1"]
    assert list(worded([], "table {{.task}}")) == ["TASK"]


@pytest.mark.parametrize(
    ("template", "why"), [("{{.nothing}}", "there is no .nothing; there is .task"), ("{{if .task}}", "without its {{end}}")]
)
def test_a_wrong_template_is_one_error(template: str, why: str) -> None:
    with pytest.raises(PystackError) as caught:
        list(worded(ROWS, template))
    assert why in str(caught.value)


def test_what_a_terminal_takes_for_an_order_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"name": "a\x1b[31mb"}], ("name",), "{{.name}}")
    assert capsys.readouterr().out == "a[31mb\n"


def test_columns_are_narrowed_to_a_terminal_the_widest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    narrowed = _fitting([6, 60, 20])
    assert sum(narrowed) + 4 <= 40
    assert narrowed[0] == 6
    assert _fitting([30, 30, 30, 30, 30]) == [8, 8, 8, 8, 8]
    assert _fitting([5, 5]) == [5, 5]
