"""Devices by name: a CDI file as vendors write it, and what a container then sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.kernel
FILE = """
cdiVersion: 0.6.0
kind: acme.example/gpu
containerEdits:
  env: [ACME_DRIVER=7]
  mounts:
  - {hostPath: /etc/hostname, containerPath: /usr/lib/acme.txt, options: [ro, nosuid, bind]}
devices:
- name: "0"
  containerEdits: {deviceNodes: [{path: /dev/acme0, hostPath: /dev/zero, permissions: rw}]}
- name: "1"
  containerEdits: {deviceNodes: [{path: /dev/acme1, hostPath: /dev/full}], env: [ACME_SECOND=yes]}
- name: all
  containerEdits: {deviceNodes: [{path: /dev/acme0, hostPath: /dev/zero}, {path: /dev/acme1, hostPath: /dev/full}]}
"""
LOOK = (
    "ls /dev | grep acme; echo $$ACME_DRIVER $$ACME_SECOND; cat /usr/lib/acme.txt >/dev/null && echo mounted; "
    "head -c 3 /dev/acme0 | wc -c; sleep 10000"
)
SECOND = "{driver: acme, device_ids: ['1', '0'], capabilities: [gpu]}"
SERVICE = """
  {name}:
    image: busybox
    command: [sh, -c, "{look}"]
    stop_signal: SIGKILL
    {ask}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        folder = f"{pystack.environment['PYSTACK_ROOT']}/cdi"
        Path(folder).mkdir()
        Path(f"{folder}/acme.yaml").write_text(FILE)
        Path(f"{folder}/broken.json").write_text('{"kind": 5}')
        # /var/run is the machine's own, /etc is everybody's
        pystack.on("n1", "sh", "-c", f"mkdir -p /var/run/cdi && cp {folder}/* /var/run/cdi/")
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")  # nodes say at their start what they have

        def back() -> None:
            assert {r["state"] for r in pystack.json("node", "ls", "--format", "json")} == {"ready"}

        eventually(back, 20)
        yield pystack


def said(stack: Stack, service: str) -> list[str]:
    def written() -> None:
        assert "3" in stack.run("logs", "--no-log-prefix", service).stdout.split()

    eventually(written, 10)
    return stack.run("logs", "--no-log-prefix", service).stdout.split()


def test_what_a_device_brings(stack: Stack) -> None:
    asks = {
        "every": "gpus: all",
        "first": "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}",
        "second": "deploy: {resources: {reservations: {devices: [" + SECOND + "]}}}",
        "named": "devices: [acme.example/gpu=0]",
    }
    stack.up("services:" + "".join(SERVICE.format(name=n, look=LOOK, ask=a) for n, a in asks.items()))
    assert said(stack, "every") == ["acme0", "acme1", "7", "mounted", "3"]
    assert said(stack, "first") == ["acme0", "7", "mounted", "3"]
    assert said(stack, "second") == ["acme0", "acme1", "7", "yes", "mounted", "3"]
    assert said(stack, "named") == ["acme0", "7", "mounted", "3"]
    assert {str(t["node"]) for t in stack.ps().values()} == {"n1"}  # the other node has none
    assert stack.run("exec", "-T", "first", "sh", "-c", "head -c 1 /dev/zero > /dev/acme0").returncode == 0
    why = json.loads(stack.run("why", f"{stack.name}-first-1", "--format", "json").stdout)
    (other,) = (c for c in why["candidates"] if c["node"] == "n2")
    assert [r["detail"] for r in other["reasons"] if r["filter"] == "devices"] == [
        "asks for gpu (1 asked for); it has none (CDI files in /etc/cdi)"
    ]


def test_what_nobody_has_is_refused_with_what_there_is(stack: Stack) -> None:
    many = "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 3}]}}}"
    done = stack.up("services:" + SERVICE.format(name="a", look="true", ask=many), check=False)
    assert done.returncode == 1
    assert "asks for gpu (3 asked for); it has acme.example/gpu" in done.stderr
    assert stack.ps() == {}


def test_engine_api_and_container_run(lab: Pystack) -> None:
    done = lab("container", "run", "--rm", "--gpus", "1", "busybox", "ls", "/dev/acme0")
    assert done.stdout.strip() == "/dev/acme0"
    done = lab("container", "run", "--rm", "--device", "acme.example/gpu=1", "busybox", "ls", "/dev/acme1")
    assert done.stdout.strip() == "/dev/acme1"
    done = lab("container", "run", "--rm", "--gpus", "9", "busybox", "true", check=False)
    assert "there is no gpu (9 asked for) on this node" in done.stderr
