"""What it costs the agent to bring one more endpoint up: namespace, veth, addresses, routes, rules, names.

Run as `python -m bench.attach FOLDER` in a network namespace that is its own."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path

import msgspec

from agent.contract.container import Attachment, Container
from agent.contract.manifest import Manifest
from agent.contract.network import Network, Subnet
from agent.engine.networks.networks import Networks
from agent.engine.records import Record
from agent.paths import Paths
from agent.settings import Settings

COUNT, THERE = 20, 50


async def main(root: Path) -> None:
    """Attach endpoints on a network below *root*; print the median wall and processor time (ms) of the late ones as JSON."""
    paths = Paths(root=root, run=root / "run", tag="bead")
    paths.netns.mkdir(parents=True)
    networks = Networks(paths, Settings())
    networks.set_desired(Manifest(networks=(Network(name="n", subnets=(Subnet(cidr="172.30.0.0/16"),)),)))
    took: list[tuple[float, float]] = []
    records = []
    for number in range(THERE + COUNT):
        container = Container(image="x", attachments=(Attachment(network="n"),))
        record = Record(id=f"{number:064x}"[::-1], name=f"c{number}", container=container, created="")
        wall, own = time.perf_counter(), time.process_time()
        networks.endpoints.reserve(record)
        await networks.open(record)
        await networks.attach(record)
        if number >= THERE:
            took.append((time.process_time() - own, time.perf_counter() - wall))
        records.append(record)
    for record in records:
        networks.endpoints.release(record)
    await networks.sync()
    own, wall = (statistics.median(t[i] for t in took) * 1e3 for i in (0, 1))
    print(json.dumps({"cpu": own, "wall": wall}))
    await networks.dataplane.update(msgspec.structs.replace(networks.desired().dataplane, views={}))
    await networks.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
