"""The order of an update, over a model of a cluster: who is there, who takes connections, what is left when tasks fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.container import Container
from agent.contract.task import Task
from orchestrator.errors import PystackError
from orchestrator.server.rolling_update import UpdateOutcome, update
from orchestrator.server.traffic import Traffic
from orchestrator.stackfile.model import Service, UpdateConfig
from orchestrator.stackfile.workloads import AbortOn

CONFIGS = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 4),
    failure_action=st.sampled_from(["pause", "continue", "rollback"]),
    max_failure_ratio=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    order=st.sampled_from(["stop-first", "start-first"]),
)


def task(index: int, image: str) -> Task:
    return Task(name=f"w-{index}", stack="s", service="w", index=index, container=Container(image=image))


class Model:
    """A cluster in which the tasks *broken* never get up with the new definition."""

    def __init__(self, count: int, broken: frozenset[int], room: bool) -> None:
        self.there = {t.name: t for t in (task(i, "old") for i in range(1, count + 1))}
        self.broken, self.room = broken, room
        self.draining: set[str] = set()
        self.fewest = count
        self.most_at_once = 0

    def look(self) -> None:
        serving = [t for n, t in self.there.items() if n not in self.draining and self.works(t)]
        self.fewest = min(self.fewest, len(serving))

    def works(self, one: Task) -> bool:
        return one.container.image == "old" or one.index not in self.broken

    async def exchange(self, tasks: Sequence[Task]) -> None:
        assert all(t.name in self.there for t in tasks)
        self.most_at_once = max(self.most_at_once, len(tasks))
        self.draining |= {t.name for t in tasks}
        self.look()
        self.there |= {t.name: t for t in tasks}

    async def weigh(self, tasks: Sequence[Task], share: float) -> None:
        raise AssertionError("no canary")

    async def hold(self, seconds: float, phase: str, down: object) -> str:
        raise AssertionError("no canary")

    def observed(self, limits: AbortOn) -> AbstractAsyncContextManager[Traffic]:
        raise AssertionError("no canary")

    async def analyse(self, service: Service, hook: object) -> str:
        raise AssertionError("no canary")

    async def checkpoint(self, done: int, total: int) -> None:
        assert 0 < done < total

    async def mark_ready(self, tasks: Sequence[Task]) -> None:
        self.draining -= {t.name for t in tasks}
        self.look()

    async def surge(self, service: str, count: int, share: float = -1.0) -> list[Task]:
        if not self.room:
            raise PystackError("no node has room")
        spares = [task(len(self.there) + i, "new") for i in range(1, count + 1)]
        self.there |= {t.name: t for t in spares}
        return spares

    async def remove_surge(self, tasks: Sequence[Task]) -> None:
        for one in tasks:
            del self.there[one.name]

    def warn(self, sentence: str) -> None:
        assert sentence

    async def wait_stable(self, one: Task, seconds: float) -> str:
        del seconds
        return "" if self.works(one) else "exited with 1"


@given(CONFIGS, st.integers(1, 6), st.frozensets(st.integers(1, 10)), st.booleans())
def test_what_an_update_leaves(pace: UpdateConfig, count: int, broken: frozenset[int], room: bool) -> None:
    model = Model(count, broken, room)
    before = dict(model.there)
    after = [msgspec.structs.replace(t, container=Container(image="new")) for t in before.values()]
    service = Service(name="w", container=Container(image="new"), where="f:1", update=pace)
    outcome: UpdateOutcome = asyncio.run(update(service, before, after, model, model.wait_stable))
    images = {n: t.container.image for n, t in model.there.items()}
    assert images.keys() == before.keys()  # no spare is left, nobody is lost
    assert not model.draining
    assert model.most_at_once <= (pace.parallelism or count)
    assert {n for n, image in images.items() if image == "old"} == set(outcome.kept)
    if outcome.reverted:
        assert set(outcome.kept) == set(before)
        assert pace.failure_action == "rollback"
    if not broken:
        assert not outcome.reasons
        assert not outcome.kept
        if pace.order == "start-first" and room:
            assert model.fewest == count  # there were never fewer than before
    if pace.failure_action == "continue" or pace.max_failure_ratio == 1:
        assert not outcome.kept
    elif not pace.max_failure_ratio and pace.failure_action == "pause" and outcome.reasons:
        # nobody was exchanged after the first failure was seen
        assert sum(n in images and images[n] == "new" and t.index in broken for n, t in model.there.items()) <= (
            pace.parallelism or count
        )


class Cut(Model):
    """A model in which the *nth* effect, or wait, is cut off: the user goes away."""

    def __init__(self, nth: int) -> None:
        super().__init__(4, frozenset(), room=True)
        self.left = nth

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise asyncio.CancelledError

    async def exchange(self, tasks: Sequence[Task]) -> None:
        await super().exchange(tasks)
        self.step()

    async def wait(self, task: Task, seconds: float) -> str:
        del task, seconds
        self.step()
        return ""


@given(st.integers(1, 20), CONFIGS)
def test_an_update_that_is_cut_off_leaves_nobody_drained(nth: int, config: UpdateConfig) -> None:
    model = Cut(nth)
    before = dict(model.there)
    after = [task(one.index, "new") for one in before.values()]
    with contextlib.suppress(asyncio.CancelledError):
        service = Service(name="w", container=Container(image="new"), where="f:1", update=config)
        asyncio.run(update(service, before, after, model, model.wait))
    assert not model.draining
    assert model.there.keys() == before.keys()
