"""Swarm's templates on two nodes: what each task then sees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Pystack, Stack, cluster_of

pytestmark = pytest.mark.kernel
FILE = """
services:
  web:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    hostname: "{{.Service.Name}}-{{.Task.Slot}}"
    environment: {NODE: "{{.Node.Hostname}} {{.Node.ID}}", RULE: '{{ index .Labels "x" }}'}
    volumes: ["data:/data"]
    configs: [{source: conf, target: /app.conf}]
    secrets: [key]
    deploy: {replicas: 2, placement: {max_replicas_per_node: 1}}
volumes: {data: {name: "own-{{.Task.Slot}}"}}
configs:
  conf: {template_driver: golang, content: 'slot={{.Task.Slot}} key={{secret "key"}} node={{env "NODE"}}'}
secrets: {key: {file: key}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        yield pystack


def test_each_task_sees_its_own(stack: Stack, lab: Pystack) -> None:
    (stack.directory / "key").write_text("k3y")
    stack.up(FILE)
    rows = stack.ps()
    ids = {row["name"]: row["id"] for row in lab.json("node", "ls", "--format", "json")}
    assert {rows[f"web-{i}"]["node"] for i in (1, 2)} == {"n1", "n2"}
    for index in (1, 2):
        look = 'hostname; echo "$NODE"; echo "$RULE"; cat /app.conf; echo; touch /data/own'
        said = stack.run("exec", "-T", "--index", str(index), "web", "sh", "-c", look).stdout.splitlines()
        node = rows[f"web-{index}"]["node"]
        there = lab.on(str(node), "hostname").strip()
        assert said == [
            f"{stack.name}_web-{index}",
            f"{there} {ids[node]}",
            '{{ index .Labels "x" }}',
            f"slot={index} key=k3y node={there} {ids[node]}",
        ]
        assert f"own-{index}" in stack.pystack("volume", "ls").stdout
    look = 'hostname; echo "$NODE"; echo "$MINE"; cat /app.conf; echo; ls /data'
    words = ("--rm", "-T", "--name", f"{stack.name}-once", "-e", "MINE={{.Task.Slot}}", "web", "sh", "-c", look)
    said = stack.run("run", *words).stdout.splitlines()
    (there,) = {lab.on(node, "hostname").strip() for node in ("n1", "n2") if ids[node] in said[1]}
    node = said[1].split()[1]
    assert said[:4] == [f"{stack.name}_web-1", f"{there} {node}", "1", f"slot=1 key=k3y node={there} {node}"]
    assert stack.run("plan", "--exit-code").stdout == "nothing to do\n"


def test_an_unknown_placeholder_has_its_line(stack: Stack) -> None:
    done = stack.up(FILE.replace('{{.Task.Slot}}"\n    env', '{{.Task.Sloth}}"\n    env'), check=False)
    assert done.returncode == 1
    assert "stack.yml:7:5: services.web.hostname: {{.Task.Sloth}}: there is no .Task.Sloth" in done.stderr
