"""Layers, and archives of images, into a store: all the way that they go in the daemon, with a program started for each."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from agent.errors import AgentError
from agent.images.archive import load
from agent.images.store import ImageStore
from agent.paths import Paths
from agent.trees.removal import remove_tree
from tests.fuzz import mutate
from tests.fuzz.archives import LIMITS, spoiled
from tests.fuzz.area import HANG_S, Area, Run, told, unfit
from tests.images import archive


class Images(Area):
    name = "images"
    share = 0.001

    def run(self, inputs: Iterable[int], run: Run) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-images-") as folder:
            asyncio.run(self._all(inputs, run, Path(folder)))

    async def _all(self, inputs: Iterable[int], run: Run, folder: Path) -> None:
        for index in inputs:
            run.begin(index)
            run.done(refused=await self._try(index, run, folder))

    async def _try(self, index: int, run: Run, folder: Path) -> bool:
        rng, root, refused = run.rng(index), folder / "root", True
        store = ImageStore(Paths(root, root / "run", "t"), LIMITS)
        try:
            await asyncio.wait_for(_taken(rng, store, root), HANG_S)
            refused = False
        except AgentError as error:
            if "fault of pystack" in str(error) or unfit(str(error)):
                run.fault(index, f"the program says {str(error)[:500]!r} {unfit(str(error))}")
        except TimeoutError:
            run.fault(index, f"the program was not done after {HANG_S:.0f} s", late=True)
        except BaseException as error:
            run.fault(index, f"the program: {told(error)}")
        left = {p.name for d in (root, store.root, store.layers, store.blobs) for p in d.iterdir() if ".tmp" in p.name}
        if left or os.listdir(folder) != ["root"]:
            run.fault(index, f"the program left {left} {os.listdir(folder)}")
        remove_tree(root)
        return refused


async def _taken(rng: random.Random, store: ImageStore, root: Path) -> None:
    data = spoiled(rng)
    if rng.random() < 0.5:

        async def source() -> AsyncIterator[bytes]:
            yield data

        await store.unpack(source(), digest="", diff_id="")
    else:
        path = archive(root / "image", [data], name="docker.io/library/a:1", compress=rng.choice(("gzip", "zstd", "none")))
        path.write_bytes(mutate.some(rng, path.read_bytes()) if rng.random() < 0.7 else path.read_bytes())
        await load(store, path)
