"""Docker's own command upon the cluster's socket: what it lists is what the control plane has."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from agent.contract.container import Attachment, Container, Healthcheck, Mount, Port
from agent.contract.frames import frame
from agent.contract.status import NodeInfo, TaskStatus
from agent.contract.task import Task
from orchestrator.errors import RefusedError
from orchestrator.placement.node import Node
from orchestrator.server.members import NodeConnection
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import StackRecord
from orchestrator.stackfile.model import Placement, Service, Stack, StackContent
from orchestrator.store.sqlite import SqliteStore
from orchestrator.swarm import api, changes, logs, objects
from tests import docker_schema

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="there is no `docker` client on PATH")
WEB = Service(
    name="web",
    container=Container(
        image="nginx:1",
        command=("run", "it"),
        environment=(("A", "b=c"),),
        ports=(Port(target=80, published=8080),),
        healthcheck=Healthcheck(test=("CMD", "true")),
        attachments=(Attachment(network="shop_default", ipv4="10.1.0.2"),),
    ),
    where="stack.yml:2:3",
    replicas=2,
    placement=Placement(constraints=("node.role == manager",)),
    labels=(("tier", "front"),),
)
DB = Service(name="db", container=Container(image="postgres:16"), where="stack.yml:3:3", mode="global")
STACK = Stack(
    name="shop", services=(WEB, DB), contents=(StackContent(kind="secret", key="key", name="shop_key", digest="sha256:0"),)
)


class Swarm:
    """The application at a socket, and Docker's command for it."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder

    async def __call__(self, *words: str, code: int = 0) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")} | {
            "DOCKER_HOST": f"unix://{self.folder}/s.sock",
            "DOCKER_CONFIG": str(self.folder / "config"),
            "DOCKER_API_VERSION": "1.48",
        }
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec("docker", *words, stdout=pipe, stderr=pipe, env=environment)
        out, err = await child.communicate()
        assert child.returncode == code, f"docker {' '.join(words)}: {child.returncode}\n{out.decode()}{err.decode()}"
        return (out if code == 0 else err).decode()

    async def json(self, *words: str) -> Any:
        return json.loads(await self(*words))


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    store = await SqliteStore.open(tmp_path / "store.db")
    plane = ControlPlane(store, "n1", tmp_path / "docker.sock", tmp_path / "run", tmp_path / "keys")
    await plane.state.load()  # not all of `start`: no node is connected here
    await plane.contents.start()
    info = NodeInfo(hostname="n1", arch="amd64", cpus=2, memory=1 << 30, version="0.1.0", drivers=("bridge", "overlay"))
    for name, labels in (("n1", ()), ("n2", (("disk", "ssd"),))):
        node = Node(name=name, id=name * 4, labels=labels, info=info, target="" if name == "n1" else "root@10.0.0.2")
        plane.cluster.members[name] = NodeConnection(node, tmp_path / "docker.sock", lambda _: None, lambda _: None)  # type: ignore[arg-type,return-value]
        plane.cluster.members[name].problem = ""
        plane.cluster.members[name].synced.set()
    plane.state.stacks["shop"] = StackRecord(stack=STACK, revision=3, updated="2026-01-02T03:04:05Z")
    tasks = [
        Task(name=f"shop/web-{n}", stack="shop", service="web", index=n, node=f"n{n}", container=WEB.container) for n in (1, 2)
    ]
    tasks.append(Task(name="shop/db-n1", stack="shop", service="db", node="n1", container=DB.container))
    for task in tasks:
        plane.state.tasks[task.name] = task
    plane.statuses.update(
        "n1", TaskStatus(task="shop/web-1", state="running", container="c" * 64, started="2026-01-02T03:04:06Z")
    )
    plane.statuses.update("n2", TaskStatus(task="shop/web-2", state="failed", error="no such image", exit_code=1))
    runner = web.AppRunner(api.make_app(plane))
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s.sock")).start()
    yield Swarm(plane, tmp_path)
    await runner.cleanup()
    for member in plane.cluster.members.values():
        await member.client.close()
    await store.close()


async def test_stacks_services_and_their_tasks(swarm: Swarm) -> None:
    assert (await swarm("stack", "ls", "--format", "{{.Name}} {{.Services}}")).split() == ["shop", "2"]
    rows = (await swarm("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}")).splitlines()
    assert [row.strip() for row in rows] == ["shop_db global 0/1 postgres:16", "shop_web replicated 1/2 nginx:1 *:8080->80/tcp"]
    assert (await swarm("stack", "services", "shop", "--format", "{{.Name}}")).split() == ["shop_db", "shop_web"]
    assert (await swarm("service", "ls", "-q", "--filter", "label=tier=front")).strip() == (
        objects.identity("service", "shop_web")[:12]
    )
    told = (
        await swarm("service", "ps", "shop_web", "--format", "{{.Name}}|{{.Node}}|{{.CurrentState}}|{{.Error}}")
    ).splitlines()
    assert [row.split("|")[:2] for row in told] == [["shop_web.1", "n1"], ["shop_web.2", "n2"]]
    assert "Running" in told[0]
    assert "Failed" in told[1]
    assert "no such image" in told[1]
    assert len((await swarm("stack", "ps", "shop", "-q")).split()) == 3
    assert "shop_web.1" in await swarm("node", "ps", "n1")


async def test_what_inspect_says(swarm: Swarm) -> None:
    (service,) = await swarm.json("service", "inspect", "shop_web")
    spec = service["Spec"]
    assert (spec["Mode"], spec["Labels"]["tier"]) == ({"Replicated": {"Replicas": 2}}, "front")
    assert (
        spec["TaskTemplate"]["ContainerSpec"] | {"Image": "nginx:1", "Args": ["run", "it"], "Env": ["A=b=c"]}
        == (spec["TaskTemplate"]["ContainerSpec"])
    )
    assert "Constraints" in await swarm("service", "inspect", "--pretty", "shop_web")
    (node,) = await swarm.json("node", "inspect", "n2")
    assert (node["Spec"]["Labels"], node["Spec"]["Role"]) == ({"disk": "ssd"}, "worker")
    assert "Architecture" in await swarm("node", "inspect", "--pretty", "n1")
    assert (await swarm("node", "ls", "-q", "--filter", "role=manager")).split() == [objects.identity("node", "n1")]
    task = (await swarm("stack", "ps", "shop", "-q", "--no-trunc")).split()[0]
    assert (await swarm.json("inspect", "--type", "task", task))[0]["ID"] == task


async def test_secrets_and_configs(swarm: Swarm, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("hush")
    ident = (await swarm("secret", "create", "-l", "a=b", "word", str(tmp_path / "word"))).strip()
    assert (await swarm("secret", "ls", "--format", "{{.Name}}")).split() == ["shop_key", "word"]
    (found,) = await swarm.json("secret", "inspect", "word")
    assert (found["ID"], "Data" in found["Spec"]) == (ident, False)
    assert swarm.plane.contents.read("secret", "word") == b"hush"
    assert "there is a secret word already" in await swarm("secret", "create", "word", str(tmp_path / "word"), code=1)
    await swarm("secret", "rm", "word")
    assert "it goes with it" in await swarm("secret", "rm", "shop_key", code=1)
    await swarm("config", "create", "conf", str(tmp_path / "word"))
    assert (await swarm("config", "ls", "--format", "{{.Name}}")).split() == ["conf"]


async def test_what_is_the_stack_files_is_refused(swarm: Swarm) -> None:
    said = await swarm("service", "update", "--limit-memory", "64M", "shop_web", code=1)
    assert "TaskTemplate.Resources.Limits.MemoryBytes: that is the stack file's" in said
    with_nodes_that_answer = await swarm(
        "service", "create", "--mount", "type=npipe,target=/x", "--name", "x", "busybox", code=1
    )
    assert "mount type npipe: bind, volume and tmpfs are known" in with_nodes_that_answer
    assert "pystack node add" in await swarm("swarm", "join", "--token", "x", "10.0.0.1:2377", code=1)
    assert "no such service" in (await swarm("service", "inspect", "none", code=1)).lower()
    assert "Invalid filter" in await swarm("service", "ls", "--filter", "no=1", code=1)


async def test_ids_last_and_differ() -> None:
    assert objects.identity("service", "a") == objects.identity("service", "a") != objects.identity("node", "a")
    assert len(objects.identity("task", "x")) == objects.LENGTH


async def test_frames_are_cut_wherever_they_come_in_pieces() -> None:
    whole = b"".join(frame(1 + n % 2, bytes([n]) * n) for n in range(20))

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(whole), 7):
            yield whole[at : at + 7]

    assert [f async for f in logs.frames(pieces(), raw=False)] == [(1 + n % 2, bytes([n]) * n) for n in range(20)]
    assert logs.marked(b"2026-01-01T00:00:00Z said it\n", b"w=1", timestamps=False) == b"w=1 said it\n"


def sent_back(value: Any) -> Any:
    """As Docker's command sends what it has read: without what is empty."""
    if isinstance(value, dict):
        return {k: sent_back(v) for k, v in value.items() if v not in (None, "", False, 0, [], {})}
    return [sent_back(one) for one in value] if isinstance(value, list) else value


def test_what_a_client_sends_back_is_no_difference_but_for_what_it_changed() -> None:
    mounts = (Mount(kind="volume", source="data", target="/data"), Mount(kind="tmpfs", target="/x"))
    service = msgspec.structs.replace(WEB, container=msgspec.structs.replace(WEB.container, mounts=mounts))
    record = StackRecord(stack=STACK, revision=1, updated="")
    present = objects.service_of(record, service, [], [])["Spec"]
    wanted = sent_back(present)
    assert changes.changed(service, present, wanted) == (service, False)
    wanted["Mode"]["Replicated"]["Replicas"] = 0
    wanted["TaskTemplate"]["ContainerSpec"] |= {"Image": "nginx:2@sha256:" + "0" * 64, "Env": ["A=1", "B"]}
    wanted["TaskTemplate"]["ForceUpdate"] = 1
    made, force = changes.changed(service, present, wanted)
    assert (made.replicas, made.container.image, made.container.environment, force) == (
        0,
        "nginx:2",
        (("A", "1"), ("B", "")),
        True,
    )
    wanted["TaskTemplate"]["ContainerSpec"]["User"] = "1000"
    with pytest.raises(RefusedError, match=r"TaskTemplate\.ContainerSpec\.User: that is the stack file's"):
        changes.changed(service, present, wanted)


def test_a_service_without_anything_is_whole() -> None:
    record = StackRecord(stack=STACK, revision=1, updated="")
    document = objects.service_of(record, DB, [], [])
    assert msgspec.json.decode(msgspec.json.encode(document)) == document


async def test_each_answer_is_as_the_reference_has_it(swarm: Swarm) -> None:
    kinds = {
        "nodes": docker_schema.NODE,
        "services": docker_schema.SERVICE,
        "tasks": docker_schema.TASK,
        "secrets": docker_schema.CONTENT,
    }
    connector = aiohttp.UnixConnector(str(swarm.folder / "s.sock"))
    async with aiohttp.ClientSession("http://docker", connector=connector) as session:
        for path, kind in kinds.items():
            for version in ("", "/v1.43", "/v1.48"):
                async with session.get(f"{version}/{path}?status=true") as reply:
                    found = await reply.json()
                assert found
                assert list(docker_schema.misfits(found, [kind], path)) == []
