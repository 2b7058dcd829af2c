"""Builds by Docker Compose of Debian 12, through the classic builder and through BuildKit's protocol."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.builds import Built, Node
from tests.conftest import Pystack
from tests.docker_clients import debian_compose, debian_docker

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("kit", ["0", "1"])
def test_docker_compose_builds(lab: Pystack, tmp_path: Path, kit: str) -> None:
    """Version 1.29 by its library, and by the docker command that it calls."""
    compose, docker = debian_compose(), debian_docker()
    if compose is None or docker is None:
        pytest.skip("Debian cannot be asked for docker-compose and docker.io")
    name = f"composed{uuid.uuid4().hex[:8]}"
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS base\nARG WORD\nRUN echo $WORD > /word\nFROM base AS last\nCOPY file /file\nFROM base\nRUN false\n"
    )
    (tmp_path / "file").write_text("of the context")
    (tmp_path / "docker-compose.yml").write_text(
        "version: '3.7'\nservices:\n  a:\n"
        f"    image: {name}:1\n    build: {{context: ., target: last, args: {{WORD: said}}, labels: {{x: y}}}}\n"
    )
    socket = f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"
    done = subprocess.run(
        [str(compose / "docker-compose"), "build"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{docker.parent}:{os.environ['PATH']}",
            "DOCKER_HOST": f"unix://{socket}",
            "COMPOSE_DOCKER_CLI_BUILD": kit,
            "DOCKER_BUILDKIT": kit,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    image = Built(Node(socket), f"{name}:1", "")
    assert image.text("word") == "said\n"
    assert image.text("file") == "of the context"
    assert image.config["Labels"] == {"x": "y"}
