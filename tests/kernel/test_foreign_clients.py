"""Client libraries of others on a node's Docker socket, the newest and an old one of each, used as documented.

Each program runs beside the node, in its network namespace, so that published ports are where its user looks for them. The
same programs pass against Docker's own daemon.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Pystack, eventually
from tests.docker_clients import modules_of_npm, python_with
from tests.foreign import reaper_image
from tests.images import archive

pytestmark = [pytest.mark.long, pytest.mark.kernel, pytest.mark.timeout(400 * PATIENCE)]
PROGRAMS = Path(__file__).parents[1] / "foreign"
REAPER = "testcontainers/ryuk:0.8.1"
OF_PYTHON = {
    "aiodocker": ["aiodocker==0.27.0"],
    "aiodocker-old": ["aiodocker==0.21.0"],
    "whales": ["python-on-whales==0.81.0"],
    "whales-old": ["python-on-whales==0.60.1", "pydantic<2"],
    "testcontainers": ["testcontainers==4.15.0", "docker==7.2.0"],
    "testcontainers-old": ["testcontainers==4.8.2", "docker==7.0.0", "requests<2.32"],
}
OF_NODE = {"dockerode": "dockerode@5.0.1", "dockerode-old": "dockerode@3.3.5"}


def interpreter(client: str) -> Path:
    found = python_with(*OF_PYTHON[client])
    if found is None:
        pytest.skip(f"PyPI cannot be asked for {', '.join(OF_PYTHON[client])}")
    return found


class Host:
    """Where a user of the node sits."""

    def __init__(self, lab: Pystack) -> None:
        self.lab = lab
        self.socket = f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"

    def runs(self, *command: str | Path, **environment: str) -> list[str]:
        """The cases that went well; what failed is the failure."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.lab.pid('n1')}/ns/net", *map(str, command)],
            capture_output=True,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
            | {"DOCKER_HOST": f"unix://{self.socket}", **environment},
            timeout=380 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
        return [line.removeprefix("ok ") for line in done.stdout.splitlines() if line.startswith("ok ")]


@pytest.fixture
def host(lab: Pystack) -> Host:
    return Host(lab)


@pytest.fixture
def reaper(lab: Pystack, tmp_path: Path) -> Iterator[None]:
    """The image that Testcontainers takes for its reaper's."""
    (packages,) = interpreter("testcontainers").parents[1].glob("lib/python*/site-packages")
    path = archive(tmp_path / "reaper.tar", [reaper_image.rootfs(packages)], config=reaper_image.CONFIG, name=REAPER)
    lab("image", "load", "-i", str(path))
    yield
    eventually(lambda: lab("image", "rm", REAPER), 30)  # the last reaper waits for its clients for a while


@pytest.mark.parametrize("client", ["aiodocker", "aiodocker-old"])
def test_aiodocker(host: Host, client: str) -> None:
    assert len(host.runs(interpreter(client), PROGRAMS / "aiodocker_use.py")) == 14


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no `docker` client on PATH")
@pytest.mark.parametrize("client", ["whales", "whales-old"])
def test_python_on_whales(host: Host, client: str, tmp_path: Path) -> None:
    # without a configuration of the user's own, and by the builder that needs no plug-in
    assert (
        len(host.runs(interpreter(client), PROGRAMS / "whales_use.py", DOCKER_CONFIG=str(tmp_path), DOCKER_BUILDKIT="0")) == 11
    )


@pytest.mark.usefixtures("reaper")
@pytest.mark.parametrize("client", ["testcontainers", "testcontainers-old"])
def test_testcontainers_with_its_reaper(host: Host, client: str, tmp_path: Path) -> None:
    environment = {"RYUK_CONTAINER_IMAGE": REAPER, "RYUK_RECONNECTION_TIMEOUT": "2s", "HOME": str(tmp_path)}
    assert len(host.runs(interpreter(client), "-W", "ignore", PROGRAMS / "testcontainers_use.py", **environment)) == 7


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on PATH")
@pytest.mark.parametrize("client", OF_NODE)
def test_dockerode(host: Host, client: str) -> None:
    modules = modules_of_npm(OF_NODE[client])
    if modules is None:
        pytest.skip(f"npm cannot be asked for {OF_NODE[client]}")
    assert len(host.runs("node", PROGRAMS / "dockerode_use.js", NODE_PATH=str(modules))) == 13
