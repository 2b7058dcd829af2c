"""Quotas: what several stacks take together, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.contract.container import Container, Mount
from agent.contract.task import Task
from agent.contract.volume import Volume
from orchestrator.planning.quotas import Quota, problems
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.model import Stack

FILE = """services:
  web:
    image: i
    deploy: {resources: {limits: {cpus: "1.5", memory: 256m}, reservations: {cpus: "0.5"}}}
    x-ingress: [{host: a.team.example.org, port: 80}]
  small: {image: i, mem_limit: 64m, volumes: ["one:/one", "two:/two"]}
volumes: {one: {}, two: {external: true}}
"""


OTHERS = Volume(name="team-blog_v", stack="team-blog", key="v", node="n1", options=(("size", "6g"),))


def loaded(folder: Path, name: str = "team-shop") -> Stack:
    (folder / "stack.yml").write_text(FILE)
    return load(Options(files=(str(folder / "stack.yml"),), project_name=name), {}).stack


def tasks(stack: str, service: str, count: int) -> list[Task]:
    return [
        Task(name=f"{stack}-{service}-{n}", stack=stack, service=service, container=Container(image="i")) for n in range(count)
    ]


def found(
    folder: Path, quota: Quota, mine: list[Task], others: Sequence[Task] = (), volumes: Sequence[Volume] = ()
) -> list[str]:
    stack, other = loaded(folder), loaded(folder, "team-blog")
    services = {(other.name, s.name): s for s in other.services}
    return [p.partition("stack.yml:")[2] for p in problems([quota], stack, mine, others, services, volumes)]


def test_stacks_of_a_pattern_take_together(tmp_path: Path) -> None:
    quota = Quota(pattern="team-*", cpus=4.0)
    mine, others = tasks("team-shop", "web", 1), tasks("team-blog", "web", 1)
    assert found(tmp_path, quota, mine, others) == []
    assert found(tmp_path, quota, [*mine, *mine], others) == ["2:3: quota team-*: CPUs: 4.5 with this, and 4 are allowed"]
    assert found(tmp_path, Quota(pattern="other-*", cpus=0.0), mine, others) == []
    assert found(tmp_path, quota, [*mine, *mine], tasks("far-blog", "web", 9)) == [], "of another pattern"


def test_a_limit_counts_where_it_is_more_than_the_reservation(tmp_path: Path) -> None:
    mine = tasks("team-shop", "web", 2)
    assert found(tmp_path, Quota(pattern="team-shop", cpus=2.9), mine) != []
    assert found(tmp_path, Quota(pattern="team-shop", cpus=3.0, memory=512 << 20, tasks=2), mine) == []
    assert "memory: 536.9 MB with this, and 536.9 MB" in found(tmp_path, Quota(pattern="*", memory=(512 << 20) - 1), mine)[0]
    assert "tasks: 2 with this, and 1" in found(tmp_path, Quota(pattern="*", tasks=1), mine)[0]


def test_who_does_not_say_what_it_takes_is_refused(tmp_path: Path) -> None:
    why = found(tmp_path, Quota(pattern="*", cpus=9.0), tasks("team-shop", "small", 1))
    assert why == ["6:3: quota *: service small does not say how much cpus it takes: give it deploy.resources.limits.cpus"]
    assert found(tmp_path, Quota(pattern="*", memory=1 << 40), tasks("team-shop", "small", 1)) == []


def test_hosts_and_volumes(tmp_path: Path) -> None:
    assert found(tmp_path, Quota(pattern="*", hosts=("*.team.example.org",)), []) == []
    assert "host a.team.example.org is not one of its own (none)" in found(tmp_path, Quota(pattern="*", hosts=()), [])[0]
    assert found(tmp_path, Quota(pattern="*", volumes=2), [], volumes=[OTHERS]) == [], "external ones are another's"
    assert "2 volumes, and 1 are allowed" in found(tmp_path, Quota(pattern="*", volumes=1), [], volumes=[OTHERS])[0]


def test_sizes_of_volumes_add_up(tmp_path: Path) -> None:
    quota = Quota(pattern="team-*", volume_size=10 << 30)
    one = Volume(name="team-shop_one", stack="team-shop", key="one", node="n1", options=(("size", "4g"),))
    assert found(tmp_path, quota, [], volumes=[OTHERS, one]) == []
    more = msgspec.structs.replace(OTHERS, options=(("size", "7g"),))
    (why,) = found(tmp_path, quota, [], volumes=[more, one])
    assert why == "7:11: quota team-*: size of volumes: 11.8 GB with this, and 10.7 GB are allowed"
    assert found(tmp_path, quota, [], volumes=[msgspec.structs.replace(more, stack="far"), one]) == [], "of another pattern"
    (why,) = found(tmp_path, quota, [], volumes=[msgspec.structs.replace(one, options=())])
    assert why == "7:11: quota team-*: volume one does not say how large it is: give it driver_opts.size"
    each = msgspec.structs.replace(one, node="")
    mount = Container(image="i", mounts=(Mount(target="/d", kind="volume", source=one.name),))
    on = [msgspec.structs.replace(t, container=mount, node=f"n{t.name[-1]}") for t in tasks("team-shop", "web", 3)]
    assert "12.9 GB with this" in found(tmp_path, quota, on, volumes=[each])[0], "each node has its own"
