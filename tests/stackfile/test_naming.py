"""The quick way to a stack's name agrees with the whole reading of its file, or says that it cannot tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.stackfile import naming
from orchestrator.stackfile.load import Options, load

BODY = "services: {a: {image: x}}\n"


@pytest.mark.parametrize(
    ("text", "env", "quick"),
    [
        (BODY, "", "my_app"),
        ("name: shop\n" + BODY, "", "shop"),
        (BODY + "name: shop\n", "", "shop"),
        ("name: 'shop'\n" + BODY, "", None),
        ("name: shop # a word\n" + BODY, "", None),
        ("name: ${X:-shop}\n" + BODY, "", None),
        ("{name: shop, services: {a: {image: x}}}\n", "", None),
        (BODY, "COMPOSE_PROJECT_NAME=other\n", None),
        ("x-note:\n  name: inner\n" + BODY, "", "my_app"),
        ("name: a\nname: b\n" + BODY, "", None),
    ],
)
def test_agrees_with_the_reading(tmp_path: Path, text: str, env: str, quick: str | None) -> None:
    folder = tmp_path / "My_App!"
    folder.mkdir()
    file = folder / "stack.yml"
    file.write_text(text)
    if env:
        (folder / ".env").write_text(env)
    assert naming.plain_name([file], folder, ()) == quick
    if quick:
        assert load(Options(files=(str(file),)), {}).stack.name == quick
