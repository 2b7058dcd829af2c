"""Whoever builds the same commit gets the same bytes: at another time, in another place, with another umask."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("builder", "patterns"), [("dist", ("*.whl", "*.tar.gz")), ("build-deb", ("*.deb",))])
def test_built_again_it_is_the_same(release: Path, tmp_path: Path, builder: str, patterns: tuple[str, ...]) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "TZ": "Pacific/Auckland", "HOME": str(tmp_path), "PIP_QUIET": "2"}
    command = f"umask 077; exec bash packaging/{builder} {tmp_path}/again"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    made = sorted(path for pattern in patterns for path in (tmp_path / "again").glob(pattern))
    assert len(made) == 2
    for path in made:
        assert filecmp.cmp(path, release / path.name, shallow=False), f"{path.name} is not what it was"
