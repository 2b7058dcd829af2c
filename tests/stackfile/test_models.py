"""`models:`: what a provider is asked for, and who is told what."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.stackfile.load import Loaded, Options, load
from orchestrator.stackfile.problem import StackFileError


def read(folder: Path, text: str) -> Loaded:
    (folder / "stack.yml").write_text(text)
    return load(Options(files=(str(folder / "stack.yml"),), project_name="p"), {})


def test_a_model_is_asked_for_once_for_all_its_users(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
services:
  a: {image: i, models: [my-llm]}
  b: {image: i, models: {my-llm: {endpoint_var: URL}, other: }}
  c: {image: i}
models:
  my-llm: {model: ai/x, context_size: 4096, runtime_flags: ["--a", "--b=1"]}
  other: {model: ai/y}
  nobodys: {model: ai/z}
""",
    )
    first, second = found.providers
    assert first.service.provider is not None
    assert first.service.provider.options == (
        ("model", "ai/x"),
        ("context-size", "4096"),
        ("runtime-flags", "--a"),
        ("runtime-flags", "--b=1"),
    )
    assert first.names == (("a", "MY_LLM_URL", "MY_LLM_MODEL"), ("b", "URL", "MY_LLM_MODEL"))
    assert (second.service.name, second.users) == ("other", ("b",))
    assert not found.warnings


def test_a_model_that_nobody_declares_is_told(tmp_path: Path) -> None:
    with pytest.raises(StackFileError, match=r"stack.yml:1:35: services.a.models.x: model 'x' is not declared"):
        read(tmp_path, "services: {a: {image: i, models: {x: }}}")
