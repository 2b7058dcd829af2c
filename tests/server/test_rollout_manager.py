"""What a new leader does with a rollout that another began, on a simulated cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from bench.simulated import run, stack
from orchestrator.server.events import Failure
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from orchestrator.server.rollouts.records import RolloutRecord
from tests.simulator.world import World


@pytest.mark.parametrize("refused", [False, True], ids=["carried out", "nothing comes of it"])
def test_who_asks_again_before_an_old_rollout_goes_on_is_not_superseded_by_it(tmp_path: Path, refused: bool) -> None:
    """Its client does, where the server went away; the new one waits until it has word of all nodes."""

    async def work(world: World, plane: ControlPlane) -> tuple[list[Failure] | BaseException, str]:
        await plane.rollouts.up(stack(1, 2, 1), UpOptions(), lambda event: None)
        left = plane.rollouts.records["a"]
        plane.rollouts.records["a"] = msgspec.structs.replace(left, stack=stack(1, 2, 2), state="running")
        member = next(iter(plane.cluster.members.values()))
        member.connected_at, member.silent_since = 0.0, asyncio.get_running_loop().time()
        resuming = asyncio.create_task(plane.rollouts.resume_all())
        await asyncio.sleep(0.1)
        assert not resuming.done()
        options = UpOptions(scale={"nobody": 1}) if refused else UpOptions()
        async with plane.state.lock("stack a").hold("scale"):  # so that it has not begun yet
            asked = asyncio.create_task(plane.rollouts.up(stack(1, 2, 3), options, lambda event: None))
            await asyncio.sleep(0.1)
            member.silent_since = None
            await asyncio.sleep(2)
        async with asyncio.timeout(100):
            (answer,) = await asyncio.gather(asked, return_exceptions=True)
            await resuming
            if refused:
                await plane.rollouts.watch("a", lambda event: None)
        return answer, plane.state.stacks["a"].stack.services[0].container.image

    answer, image = run(tmp_path, 2, work)
    if refused:
        assert "nobody" in str(answer)
    else:
        assert answer == []
    assert image == ("s0:2" if refused else "s0:3")


@pytest.mark.parametrize("seed", range(4))
def test_the_last_word_of_one_that_was_superseded_is_not_kept_in_place_of_the_next(tmp_path: Path, seed: int) -> None:
    """Both write at the same moment, and the store takes them in any order."""

    async def work(world: World, plane: ControlPlane) -> list[str]:
        world.rng.seed(seed)
        kept = []
        for number in range(1, 20, 2):
            ups = []
            for version in (number, number + 1):
                one = plane.rollouts.up(stack(1, 2, version), UpOptions(), lambda event: None)
                ups.append(asyncio.create_task(one))
                await asyncio.sleep(0.05)
            await asyncio.gather(*ups, return_exceptions=True)
            entry = await plane.store.get("rollouts/a")
            assert entry
            record = msgspec.json.decode(entry.value, type=RolloutRecord)
            kept.append(f"{record.state} {record.stack.services[0].container.image}")
        return kept

    assert run(tmp_path, 2, work) == [f"succeeded s0:{number + 1}" for number in range(1, 20, 2)]
