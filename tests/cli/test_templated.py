"""`--format` with templates: what a row comes to, and what is said of a wrong one."""

from __future__ import annotations

from typing import Any

import click
import pytest

from orchestrator.cli.templated import lines

ROWS: list[dict[str, Any]] = [
    {"task": "shop-web-1", "node_name": "n1", "ports": ["80:8080", "443:8443"], "Labels": {"a.b": "c"}, "size": None},
    {"task": "db", "node_name": "n2", "ports": [], "Labels": {}, "size": 3},
]


@pytest.mark.parametrize(
    ("template", "want"),
    [
        ("{{.Task}} {{.NodeName}} {{.node_name}}", ["shop-web-1 n1 n1", "db n2 n2"]),
        ("{{json .ports}}", ['["80:8080", "443:8443"]', "[]"]),
        ('{{json .Labels}}{{join .Ports ", "}}', ['{"a.b": "c"}80:8080, 443:8443', "{}"]),
        ('{{range .Ports}}{{index (split . ":") 1}};{{end}}', ["8080;8443;", ""]),
        ("{{upper .task | truncate 4}}", None),
        ("{{truncate .task 4}}{{pad .NodeName 1 2}}|", ["shop n1  |", "db n2  |"]),
        ("{{.Size}}", ["<no value>", "3"]),
        ("{{if .Ports}}{{.Task | upper}}{{end}}", ["SHOP-WEB-1", ""]),
        (r"table {{.Task}}\t{{.NodeName}}", ["TASK         NODE NAME", "shop-web-1   n1", "db           n2"]),
        (r"{{.Task}}\t{{.NodeName}}", ["shop-web-1\tn1", "db\tn2"]),
        ("{{.Nope}}", None),
        ("{{", None),
    ],
)
def test_a_row_by_a_template(template: str, want: list[str] | None) -> None:
    if want is None:
        with pytest.raises(click.UsageError, match=r"--format: "):
            list(lines(ROWS, template))
    else:
        assert list(lines(ROWS, template)) == want


def test_no_rows_are_heads_alone() -> None:
    assert list(lines([], "table {{.Task}}")) == ["TASK"]
    assert list(lines([], "{{.Task}}")) == []
