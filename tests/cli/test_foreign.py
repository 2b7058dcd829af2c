"""The client alone serves on systems that are not Linux, and with its own few dependencies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
EVERY_MODULE = """
import importlib, pathlib
from tests.cli.foreign import take_away
take_away()
for path in sorted(pathlib.Path("orchestrator/cli").rglob("*.py")):
    if path.stem != "stack_artifact":  # speaks to registries, with the node's own means
        importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
"""


def foreign(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYSTACK_", "COMPOSE_"))}
    command = [sys.executable, "-m", "tests.cli.foreign", *words]
    return subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=False)


def test_every_module_of_the_command_is_imported_without_linux() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_is_read_without_linux() -> None:
    done = foreign("-f", "examples/quickstart/stack.yml", "config", "--services")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 1


def test_without_a_server_to_ask_it_says_how_to_name_one() -> None:
    done = foreign("ls")
    assert done.returncode == 1
    assert done.stderr == ("pystack: servers run on Linux: name one with PYSTACK_HOST=ssh://user@host or https://host:port\n")


def test_what_the_client_alone_cannot_do_is_one_sentence() -> None:
    done = foreign("-f", "oci://registry.invalid/shop", "config")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'pystack-orchestrator[server]'" in done.stderr


def test_the_clients_own_dependencies_are_few() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) <= 7


def test_the_packages_hold_all_that_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {re.split(r"[<>=\[]", line)[0].lower() for line in (*project["dependencies"], *extras["node"], *extras["server"])}
    held = {line.split("==")[0] for line in (ROOT / "packaging/requirements.txt").read_text().splitlines() if "==" in line}
    assert wanted - held - {"pystack-orchestrator"} == set(), "run `python packaging/lock.py`"
