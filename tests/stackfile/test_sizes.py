"""Sizes of writable layers and volumes, as a stack file asks for them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.stackfile.load import Loaded, Options, load


def read(folder: Path, text: str) -> Loaded:
    file = folder / "stack.yml"
    file.write_text(text)
    return load(Options(files=(str(file),), project_name="s"), {})


def test_sizes_are_bytes(tmp_path: Path) -> None:
    text = "services: {a: {image: i, storage_opt: {size: 1.5G}, volumes: ['v:/v']}}\nvolumes: {v: {driver_opts: {size: 2g}}}"
    stack = read(tmp_path, text).stack
    assert stack.services[0].container.storage_size == 3 << 29
    assert dict(stack.volumes[0].options) == {"size": "2g"}


def test_another_option_of_the_layer_keeps_the_service_from_starting(tmp_path: Path) -> None:
    (service,) = read(tmp_path, "services: {a: {image: i, storage_opt: {size: 1G, dm.basesize: 2G}}}").stack.services
    assert "a size here and no other option: take dm.basesize out" in service.problem
