"""`x-metrics`: what is read, and what is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.model import MetricsEndpoint
from orchestrator.stackfile.problem import StackFileError


def read(folder: Path, value: str, more: str = "") -> MetricsEndpoint | None:
    path = folder / "stack.yml"
    path.write_text(f"services:\n  web:\n    image: i\n    x-metrics: {value}\n{more}")
    return load(Options(files=(str(path),)), {}).stack.services[0].metrics


def test_a_port_and_a_path(tmp_path: Path) -> None:
    assert read(tmp_path, "{port: 9090}") == MetricsEndpoint(port=9090, path="/metrics")
    assert read(tmp_path, "{port: '80', path: /a/b}") == MetricsEndpoint(port=80, path="/a/b")


@pytest.mark.parametrize(
    ("value", "place", "why"),
    [
        ("{port: 0}", "4:17: services.web.x-metrics.port", "whole number"),
        ("{port: 65536}", "4:17: services.web.x-metrics.port", "whole number"),
        ("{path: /m}", "4:5: services.web.x-metrics", "port"),
        ("{port: 80, path: m}", "4:27: services.web.x-metrics.path", "is not a path"),
        ('{port: 80, path: "/m?a=b"}', "4:27: services.web.x-metrics.path", "is not a path"),
        ("{port: 80, way: /m}", "4:27: services.web.x-metrics.way", "no such key"),
        ("[80]", "4:5: services.web.x-metrics", "must be a mapping"),
    ],
)
def test_what_is_no_endpoint_is_told_with_its_place(tmp_path: Path, value: str, place: str, why: str) -> None:
    with pytest.raises(StackFileError) as error:
        read(tmp_path, value)
    assert f"stack.yml:{place}" in str(error.value)
    assert why in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(StackFileError) as error:
        read(tmp_path, "{port: 0, path: x}")
    assert "x-metrics.port" in str(error.value)
    assert "x-metrics.path" in str(error.value)


def test_a_task_without_an_address_cannot_answer(tmp_path: Path) -> None:
    with pytest.raises(StackFileError, match=r"x-metrics: network_mode none has no address of its own"):
        read(tmp_path, "{port: 80}", "    network_mode: none\n")
