"""The wheel and the sdist, in empty virtual environments."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from agent.contract.version import VERSION
from tests.packaging.conftest import python_environment

pytestmark = pytest.mark.slow
STACK = "services: {web: {image: busybox}}\n"


def test_the_client_alone_is_small_and_works(release: Path, tmp_path: Path) -> None:
    (wheel,) = release.glob("*.whl")
    programs = python_environment(tmp_path / "client", str(wheel))
    listed = json.loads(subprocess.check_output([programs / "pip", "list", "--format", "json"]))
    assert len({row["name"] for row in listed} - {"pip", "setuptools", "wheel"}) <= 12
    (tmp_path / "stack.yml").write_text(STACK)
    nobody = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}

    def pystack(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / "pystack", *words], cwd=tmp_path, env=nobody, capture_output=True, text=True, check=False
        )

    assert pystack("--version").stdout == f"pystack, version {VERSION}\n"
    assert pystack("config", "--services").stdout == "web\n"
    refused = pystack("server")
    assert refused.returncode == 1
    assert "pip install 'pystack-orchestrator[server]'" in refused.stderr


def test_the_server_has_all_that_it_imports(release: Path, tmp_path: Path) -> None:
    (sdist,) = release.glob("*.tar.gz")
    programs = python_environment(tmp_path / "server", f"{sdist}[server]")
    subprocess.run([programs / "pip", "check"], check=True)
    every = "import importlib, pkgutil\nfor top in ('agent', 'netplugins', 'orchestrator'):\n"
    every += " for m in pkgutil.walk_packages(importlib.import_module(top).__path__, top + '.'):\n"
    every += "  m.name.endswith('__main__') or importlib.import_module(m.name)\n"
    subprocess.run([programs / "python", "-c", every], check=True, cwd=tmp_path)


def test_checksums_and_the_list_of_parts_are_right(release: Path) -> None:
    subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], cwd=release, check=True)
    parts = {row["name"] for row in json.loads((release / "SBOM.cdx.json").read_text())["components"]}
    assert {"aiohttp", "click", "pyroute2", "grpcio"} <= parts
    assert (release / "CHANGES.md").read_text().startswith("- ")
