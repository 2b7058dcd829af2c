"""Swarm's templates, from the file to the tasks: what each placeholder stands for, and what is wrong with its line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.contract.status import NodeInfo
from agent.contract.swarm_placeholder import identifier
from agent.engine.config_templates import filled
from agent.errors import BadRequestError
from agent.images.types import RunConfig
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.planning.diff import plan
from orchestrator.planning.expand import expand
from orchestrator.planning.state import State
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.model import Stack
from orchestrator.stackfile.problem import StackFileError

CLUSTER = PlacementContext(
    nodes=tuple(
        Node(
            name=f"n{i}",
            id=f"id{i}",
            underlay=f"10.9.9.{i}",
            info=NodeInfo(hostname=f"host{i}", arch="amd64", cpus=2.0, memory=1 << 30),
        )
        for i in (1, 2)
    ),
    ready=frozenset({"n1", "n2"}),
    local="n1",
)
SHOP = """
services:
  web:
    image: i
    hostname: "{{.Service.Name}}-{{.Task.Slot}}"
    environment:
      NODE: "{{.Node.Hostname}}/{{.Node.ID}}/{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}"
      SERVICE: '{{.Service.ID}} {{index .Service.Labels "tier"}}'
      TASK: "{{.Task.Name}} {{.Task.ID}}"
      RULE: 'Host(`{{ index .Labels "x" }}`)'
    volumes: ["data:/data", "/srv/{{.Node.Hostname}}:/srv/{{.Task.Slot}}"]
    configs: [{source: conf, target: /etc/app.conf}, plain]
    secrets: [key]
    deploy: {replicas: 2, labels: {tier: front}, placement: {max_replicas_per_node: 1}}
volumes: {data: {name: "data-{{.Task.Slot}}"}}
configs:
  conf:
    template_driver: golang
    content: "slot={{.Task.Slot}} key={{secret \\"key\\"}} env={{env \\"NODE\\"}} other={{config \\"plain\\"}}"
  plain: {content: "{{.Left.Alone}}"}
secrets: {key: {environment: KEY}}
"""


def stack(folder: Path, text: str = SHOP) -> Stack:
    (folder / "stack.yml").write_text(text)
    return load(Options(files=(str(folder / "stack.yml"),), project_name="shop"), {"KEY": "k3y"}).stack


def test_each_task_has_its_own(tmp_path: Path) -> None:
    state = expand(stack(tmp_path), State(), context=CLUSTER)
    assert {t.node for t in state.tasks} == {"n1", "n2"}
    for task in state.tasks:
        c, i = task.container, task.index
        node = next(n for n in CLUSTER.nodes if n.name == task.node)
        own = identifier("task", f"shop-web-{i}")
        assert c.hostname == f"shop_web-{i}"
        assert dict(c.environment) == {
            "NODE": f"{node.info.hostname}/{node.id}/linux/amd64",
            "SERVICE": f"{identifier('service', 'shop_web')} front",
            "TASK": f"shop_web.{i}.{own} {own}",
            "RULE": 'Host(`{{ index .Labels "x" }}`)',
        }
        assert [(m.source, m.target) for m in c.mounts] == [
            (f"data-{i}", "/data"),
            (f"/srv/{node.info.hostname}", f"/srv/{i}"),
        ]
    assert {v.name: v.node for v in state.volumes} == {f"data-{t.index}": t.node for t in state.tasks}
    again = plan(stack(tmp_path), expand(stack(tmp_path), state, context=CLUSTER), state, revision=2)
    assert not list(again.changes)


def test_a_config_is_filled_in_with_what_it_names(tmp_path: Path) -> None:
    task = expand(stack(tmp_path), State(), context=CLUSTER).tasks[0]
    contents = {c.key: c.content or b"" for c in stack(tmp_path).contents}
    by_source = {f.source: f for f in task.container.files}
    assert not by_source["plain"].template

    def made(source: str) -> bytes:
        return filled(by_source[source], task.container, RunConfig(env=("NODE=image's",)), lambda f: contents[f.source])

    node = dict(task.container.environment)["NODE"]
    assert made("conf") == f"slot={task.index} key=k3y env={node} other={{{{.Left.Alone}}}}".encode()
    contents["conf"] = b'a\n{{secret "other"}}'
    with pytest.raises(BadRequestError, match=r"config conf, line 2: .*the service has no secret 'other'"):
        made("conf")


def test_a_global_service_has_its_nodes_for_slots(tmp_path: Path) -> None:
    text = "services: {a: {image: i, hostname: '{{.Task.Slot}}', deploy: {mode: global}}}"
    state = expand(stack(tmp_path, text), State(), context=CLUSTER)
    assert {t.container.hostname for t in state.tasks} == {"id1", "id2"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "services:\n  a:\n    image: i\n    hostname: '{{.Task.Slto}}'",
            "stack.yml:4:5: services.a.hostname: {{.Task.Slto}}: there is no",
        ),
        (
            "services:\n  a:\n    image: i\n    environment:\n      X: '{{.Node.Name}}'",
            "stack.yml:5:7: services.a.environment.X",
        ),
        (
            "services:\n  a:\n    image: i\n    volumes:\n      - '/a:/b'\n      - '/x:/{{.Service.Slot}}'",
            "stack.yml:6:9: services.a.volumes[1]",
        ),
        ("services: {a: {image: i, hostname: '{{index .Service.Labels \"no\"}}'}}", "there is no 'no'; there is none"),
        (
            "services: {a: {image: i, configs: [c]}}\nconfigs:\n  c:\n    template_driver: golang\n"
            "    content: 'x {{.Tsk.Slot}}'",
            "stack.yml:5:5: configs.c.content: line 1 of it: {{.Tsk.Slot}}",
        ),
        (
            "services: {a: {image: i, configs: [c]}}\nconfigs:\n  c: {template_driver: jinja, content: x}",
            "'jinja' is not known",
        ),
        (
            "services: {a: {image: i, configs: [c]}}\nconfigs:\n  c: {template_driver: golang, content: '{{if .Task.ID}}'}",
            "without its",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StackFileError) as caught:
        stack(tmp_path, text)
    assert words in str(caught.value)


def test_a_task_keeps_its_texts_when_others_come(tmp_path: Path) -> None:
    before = expand(stack(tmp_path), State(), context=CLUSTER)
    more = msgspec.structs.replace(CLUSTER, nodes=(*CLUSTER.nodes, Node(name="n3", id="id3", underlay="10.9.9.3")))
    after = expand(
        stack(tmp_path, SHOP.replace("replicas: 2", "replicas: 3")),
        before,
        context=msgspec.structs.replace(more, ready=frozenset({"n1", "n2", "n3"})),
    )
    old = {t.name: t.container for t in before.tasks}
    assert {t.name: t.container for t in after.tasks if t.name in old} == old
