"""Each answer of a node is as the Engine API's reference has it, in the version that was asked in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import docker_schema as schema
from tests.builds import Node
from tests.conftest import Pystack, Stack

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("version", ["/v1.43", "/v1.48"])
def test_answers_fit_the_reference(version: str, lab: Pystack, stack: Stack) -> None:
    stack.up(
        "services:\n  a:\n    image: busybox\n    command: [sleep, '1000']\n    stop_grace_period: 0s\n    ports: ['8080']\n"
        "    volumes: ['data:/data', '/tmp/x']\n    healthcheck: {test: ['CMD', 'true'], interval: 1s}\nvolumes: {data: {}}\n"
    )
    node = Node(f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock")

    def ask(path: str) -> Any:
        status, body = node.ask("GET", f"{version}{path}")
        assert status == 200, body
        return json.loads(body)

    rows = ask("/containers/json?all=1&size=1")
    images, networks, volumes = ask("/images/json"), ask("/networks"), ask("/volumes")
    assert all((rows, images, networks, volumes["Volumes"]))
    wrong = [
        *schema.misfits(rows, [schema.CONTAINER_ROW], "containers"),
        *schema.misfits(images, [schema.IMAGE_ROW], "images"),
        *schema.misfits(networks, [schema.NETWORK], "networks"),
        *schema.misfits(volumes["Volumes"], [schema.VOLUME], "volumes"),
        *schema.misfits(ask("/info"), schema.INFO, "info"),
        *(w for row in rows for w in schema.misfits(ask(f"/containers/{row['Id']}/json"), schema.CONTAINER, "container")),
        *(w for row in images for w in schema.misfits(ask(f"/images/{row['Id']}/json"), schema.IMAGE, "image")),
        *(w for row in networks for w in schema.misfits(ask(f"/networks/{row['Id']}"), schema.NETWORK, "network")),
    ]
    assert wrong == []
