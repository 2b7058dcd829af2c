"""Limits of disks, bursts and huge pages in a stack file."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.container import Container
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.problem import StackFileError


def container(folder: Path, text: str) -> Container:
    file = folder / "stack.yml"
    file.write_text(f"services:\n  a: {{image: i, volumes: ['data:/data'], {text}}}\nvolumes: {{data: }}\n")
    return load(Options(files=(str(file),), project_name="s"), {}).stack.services[0].container


def test_a_volume_is_limited_where_it_is_mounted(tmp_path: Path) -> None:
    c = container(tmp_path, "blkio_config: {device_read_bps: [{path: data, rate: 4mb}, {path: /dev/sda, rate: 1mb}]}")
    assert [(r.what, r.path, r.rate) for r in c.blkio] == [("read_bps", "/data", 4 << 20), ("read_bps", "/dev/sda", 1 << 20)]


def test_a_burst_and_huge_pages_are_read(tmp_path: Path) -> None:
    c = container(tmp_path, "cpus: 0.5, x-cpu-burst: 20ms, x-hugepages: {2m: 64m}")
    assert (c.cpu_burst, c.hugepages) == (20_000, (("2MB", str(64 << 20)),))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("blkio_config: {device_read_bps: [{path: datq, rate: 4mb}]}", "'datq' is neither a path nor a volume of this service"),
        ("x-cpu-burst: 20ms", "needs a quota to be saved from"),
        ("cpus: 0.1, x-cpu-burst: 20ms", "is 20000 microseconds, and its quota 10000 a period"),
        ("x-hugepages: {2MB: 3m}", "3m are not whole pages of 2MB"),
        ("x-hugepages: {big: 3m}", "a size is a number above 0"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(StackFileError, match=error) as raised:
        container(tmp_path, text)
    assert "stack.yml:2:" in str(raised.value)
