"""Databases of three members with names and volumes of their own keep what they acknowledged, whatever becomes of nodes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import postgres
from tests.conftest import Stack, cluster_of
from tests.outages import sets

pytestmark = [pytest.mark.long, pytest.mark.slow]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("etcd", marks=pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")),
        pytest.param("postgres", marks=pytest.mark.skipif(postgres.home() is None, reason="postgresql is not installed")),
    ],
)
def test_what_a_set_acknowledged_outlasts_updates_drains_and_losses(kind: str, tmp_path: Path) -> None:
    with cluster_of(4) as lab:
        stack = Stack(lab, tmp_path)
        try:
            seen = sets.measured(stack, kind, updates=2, drains=1, losses=1)
        finally:
            stack.down()
    assert seen.acknowledged > 100
    assert {what: len(pauses) for what, pauses in seen.pauses_s.items()} == {"update": 2, "drain": 1, "loss": 1}
    assert seen.lost == {1: [], 2: [], 3: []}
    assert seen.problems == []
