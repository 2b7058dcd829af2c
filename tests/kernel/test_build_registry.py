"""Bases of a build from a real registry: by mirror, by the password that a client sends, and what was built pushed there."""

from __future__ import annotations

import base64
import json
import uuid

import pytest

from tests.builds import Failed, Node
from tests.conftest import Pystack
from tests.images import tar_of
from tests.kernel.test_registry import LOCKED, registry
from tests.registry_server import HOST

__all__ = ("registry",)  # a fixture
pytestmark = pytest.mark.kernel


def test_bases_come_from_the_nodes_own_registries(lab: Pystack, registry: str) -> None:
    node = Node(f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock")
    name = uuid.uuid4().hex[:8]
    node.build("FROM busybox\nRUN echo pushed > /pushed\n", t=f"{HOST}/library/{name}:1")
    lab("image", "push", f"{HOST}/library/{name}:1")
    lab("image", "rm", f"{HOST}/library/{name}:1")
    built = node.build(
        f"FROM {name}:1\nCOPY --from={HOST}/library/{name}:1 /pushed /copied\n"
    )  # a name of the hub: its mirror has it
    assert built.text("copied") == "pushed\n"
    with pytest.raises(Failed, match=r"Dockerfile:1:1: .*none"):
        node.build("FROM none-of-this-name:1\n")


def test_the_clients_password_opens_a_registry(lab: Pystack, registry: str) -> None:
    node = Node(f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock")
    name = uuid.uuid4().hex[:8]
    node.build("FROM busybox\nRUN echo locked > /locked\n", t=f"{HOST}/{name}:1")
    lab("image", "push", f"{HOST}/{name}:1")
    text = f"FROM {LOCKED}/{name}:1\nRUN cat /locked > /seen\n"
    with pytest.raises(Failed, match=r"Dockerfile:1:1: "):
        node.build(text)
    words = {LOCKED: {"username": "someone", "password": "secret"}}
    header = {"X-Registry-Config": base64.urlsafe_b64encode(json.dumps(words).encode()).decode()}
    status, said = node.ask("POST", "/build", tar_of({"Dockerfile": text.encode()}), header)
    assert status == 200
    assert b"Successfully built" in said, said.decode()[-500:]
    assert b"secret" not in said
