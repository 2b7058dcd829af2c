"""What images, archives, volumes, stack files and repositories try: nothing of it reaches the host, and each attempt does where
its guard is off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from tests.escape import copies, images, layers, repositories, volumes
from tests.escape.conftest import Field
from tests.escape.ground import Content, Ground

pytestmark = pytest.mark.kernel
ROWS: tuple[Content, ...] = (*layers.ROWS, *images.ROWS, *copies.ROWS, *volumes.ROWS, *repositories.ROWS)
TRIED = [("runc", row) for row in ROWS] + [("crun", row) for row in ROWS if row.runtime]


@pytest.fixture
def grounds(fields: Callable[[str], Field], runtime: str, tmp_path: Path) -> Iterator[Callable[[str], Ground]]:
    field = fields(runtime)
    client = docker.DockerClient(base_url=f"unix://{field.root}/run/docker.sock", timeout=60)
    made: list[Ground] = []

    def ground(name: str) -> Ground:
        made.append(Ground(field, client, tmp_path / name))
        return made[-1]

    yield ground
    for one in made:
        one.clean()
    client.close()


@pytest.mark.parametrize(("runtime", "row"), TRIED, ids=[f"{runtime}-{row.name}" for runtime, row in TRIED])
def test_attack(runtime: str, row: Content, grounds: Callable[[str], Ground]) -> None:
    guarded = grounds("guarded")
    said = row.attack(guarded) or ""
    assert guarded.gained() == "", f"{row.what}: {said}"
    assert row.says in said
    assert "Traceback" not in said
    bare = grounds("bare")
    row.twin(bare)
    assert bare.gained(), f"{row.what}, without its guard ({row.guard})"
