"""docs/security.md names tests and attacks that there are, and its table is the suite's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("docker")  # the suite's, for development

from tests.escape.rows import CONTAINERS, REFERENCES, ROWS
from tests.escape.table import BEGIN, CONTENT, DOCUMENT, END, NAMES, table

ROOT = Path(__file__).parents[2]
TEXT = DOCUMENT.read_text()


def is_there(test: str) -> bool:
    """Whether the file of *test*, as pytest names it, has a function of its name."""
    path, _, name = test.partition("::")
    if not (ROOT / path).is_file():
        return False
    return re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.M) is not None


def test_each_test_that_it_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w./]+::\w+)`", TEXT)
    assert len(named) > 10
    assert [test for test in named if not is_there(test)] == []
    assert [row.test for row in REFERENCES if not is_there(row.test)] == []


def test_each_attack_that_it_names_is_there() -> None:
    named = re.findall(r"`escape:(\w+)`", TEXT)
    assert len(named) > 50
    assert [name for name in named if name not in NAMES] == []


def test_its_table_is_the_suites() -> None:
    assert TEXT.partition(BEGIN)[2].partition(END)[0] == table(), "`python -m tests.escape.table` writes it"


def test_each_attack_has_a_name_of_its_own_and_another_way_in() -> None:
    assert len(ROWS) + len(CONTENT) + len(REFERENCES) == len(NAMES) >= 80
    assert [row.attack for row in ROWS if row.on == row.off] == []
    assert {row.on for row in ROWS} | {row.off for row in ROWS} == {*CONTAINERS, "chroot"}
