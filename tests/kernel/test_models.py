"""`models:` with the example's provider and server: a service finds its model, under the names that it asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, eventually

pytestmark = pytest.mark.kernel
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "models"


@pytest.fixture
def server(lab: Pystack) -> Iterator[str]:
    """On a machine beside the nodes: its address."""
    words = ["nsenter", "-t", lab.pid(), "-n", sys.executable, str(EXAMPLE / "server.py"), "8123"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        links = json.loads(lab.on("outside", "ip", "-j", "-4", "addr", "show", "scope", "global"))
        address = next(a["local"] for link in links for a in link.get("addr_info") or ())

        def up() -> None:
            assert "example/echo" in lab.on("outside", "curl", "-s", f"http://{address}:8123/v1/models", check=False)

        try:
            eventually(up)
            yield f"http://{address}:8123/v1"
        finally:
            process.terminate()


def test_services_are_told_where_their_model_is(
    stack: Stack, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client, which asks the provider, is where the server can be reached: beside the nodes."""
    asked = tmp_path / "docker-model"
    # the client of these tests runs outside the lab's networks
    asked.write_text(f'#!/bin/sh\nexec nsenter -t {stack.pystack.pid()} -n {sys.executable} {EXAMPLE}/docker-model "$@"\n')
    asked.chmod(0o755)
    monkeypatch.setitem(stack.pystack.environment, "PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setitem(stack.pystack.environment, "MODEL_SERVER", server)
    stack.up((EXAMPLE / "stack.yml").read_text().replace("    command:", "    stop_signal: SIGKILL\n    command:"))
    assert stack.exec("chat", "sh", "-c", 'echo "$LLM_URL $LLM_MODEL"') == f"{server} example/echo\n"
    said = stack.exec("search", "sh", "-c", 'echo "$OPENAI_BASE_URL $OPENAI_MODEL$LLM_URL"')
    assert said == f"{server} example/echo\n"
    there = json.loads(stack.exec("search", "sh", "-c", 'wget -qO- "$OPENAI_BASE_URL/models"'))
    assert there["data"][0]["id"] == "example/echo"
    planned = stack.run("plan", "--exit-code").stdout
    assert planned == "run provider llm: the plan takes it to give what it gave before\nnothing to do\n"
    asked.write_text("#!/bin/sh\necho a plan asks nobody >&2; exit 1\n")
    stack.run("plan", "--exit-code")
    asked.write_text(f'#!/bin/sh\nexec nsenter -t {stack.pystack.pid()} -n {sys.executable} {EXAMPLE}/docker-model "$@"\n')
    wrong = stack.up((EXAMPLE / "stack.yml").read_text().replace("example/echo", "example/none"), check=False)
    assert wrong.returncode == 1
    assert "models.llm: provider model: " in wrong.stderr
    assert "has no model example/none; it has example/echo" in wrong.stderr
