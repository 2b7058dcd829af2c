"""What happens in one run: users change stacks, machines and networks fail, then all heals, and the cluster must be right."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.container import Attachment, Container
from orchestrator.errors import PystackError
from orchestrator.server.membership import NodeUpdateRequest
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from orchestrator.stackfile.fence import Fence
from orchestrator.stackfile.model import Reserves, Service, Stack, StackNetwork, UpdateConfig
from tests.simulator.clock import StalledError, VirtualLoop
from tests.simulator.node import INFO
from tests.simulator.world import World, end, simulated

TROUBLE_S, SETTLE_S = 150.0, 150.0
"""How long things fail, and how long the cluster then has to be what it should."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """*violations* of one seed, none if all is well; *history* says what happened, *settled_s* how long it took to be right."""

    seed: int
    violations: list[str]
    history: list[str]
    settled_s: float
    ups: int


WEB_CPUS, HIGH = 3.0, "s0"
"""What a replica reserves in a tight run, so that two fit on a node, and the stack whose replicas have the higher priority."""


def stack_of(name: str, version: int, rng: random.Random, *, tight: bool = False) -> Stack:
    """A version of a stack: replicas, a task that must not run twice, and one on every node. In a *tight* run not all replicas
    of two stacks have room."""
    network = f"{name}_default"

    def container(service: str) -> Container:
        return Container(
            image=f"{service}:{version}",
            restart="always",
            stop_signal="SIGKILL",
            attachments=(Attachment(network=network),),
        )

    order = rng.choice(["start-first", "stop-first"])
    return Stack(
        name=name,
        networks=(StackNetwork(key="default", name=network),),
        services=(
            Service(
                name="web",
                container=container("web"),
                where="f:1",
                replicas=rng.randint(3, 6) if tight else rng.randint(1, 4),
                reserves=Reserves(cpus=WEB_CPUS) if tight else Reserves(),
                priority=10 if tight and name == HIGH else 0,
                update=UpdateConfig(parallelism=1, order=order) if rng.random() < 0.6 else None,
            ),
            Service(name="db", container=container("db"), where="f:2", fence=Fence(boot_wait_s=None)),
            Service(name="all", container=container("all"), where="f:3", mode="global"),
        ),
    )


class Run:
    """One seed."""

    def __init__(self, seed: int, folder: Path, loop: VirtualLoop) -> None:
        self.seed = seed
        self.world = World(loop, seed, folder)
        self.rng = self.world.rng
        self.acknowledged: dict[str, int] = {}
        self.asked: dict[str, int] = {}
        self.ups = 0
        self.drained: set[str] = set()
        self.tight = seed % 4 == 3
        self.removed = self.tight  # with a node less there would not be room for what has to have some

    async def go(self) -> float:
        """Returns how many seconds it took until all was right again."""
        world = self.world
        for name in world.nodes:
            world.power_on(name)
        users = [world.spawn("users", self._use(f"s{n}"), f"user {n}") for n in range(2)]
        await asyncio.sleep(15)
        trouble = world.spawn("trouble", self._trouble(), "trouble")
        await asyncio.sleep(TROUBLE_S)
        trouble.cancel()
        for user in users:
            user.cancel()
        self._heal()
        healed = world.loop.time()
        why = "it was not looked at"
        while world.loop.time() - healed < SETTLE_S:
            await asyncio.sleep(1)
            if not (why := await self._wrong()):
                return world.loop.time() - healed
        world.violate(f"not settled after {SETTLE_S:g} s: {why}")
        return SETTLE_S

    async def begun(self) -> tuple[str, ControlPlane]:
        """All nodes are on: the server that leads, by its node's name."""
        for name in self.world.nodes:
            self.world.power_on(name)
        while not self.world.leading:
            await asyncio.sleep(1)
        await asyncio.sleep(5)
        (found,) = self.world.leading.items()
        return found

    async def _wrong(self) -> str:
        if len(self.world.leading) == 1:
            await self._use_all_nodes(*self.world.leading.values())
        if why := self.world.unsettled():
            return why
        (plane,) = self.world.leading.values()
        if why := self._kept(plane) or (self.crowded(plane) if self.tight else ""):
            return why
        # an `up` that was cut off, or that failed, leaves a mixed stack: the next one ends it
        for name in sorted(plane.state.stacks):
            redeploy = asyncio.ensure_future(plane.rollouts.redeploy(name, lambda event: None))
            await asyncio.wait({redeploy})
            if redeploy.cancelled():
                return "its server does not lead any more"
            if isinstance(error := redeploy.exception(), PystackError):
                return f"{name}: {error}"
            if failures := redeploy.result():
                return f"{failures[0].task}: {failures[0].reason}"
            if name in self.acknowledged:
                self._all_there(plane, name, self.acknowledged[name])
        return self.world.unsettled()

    def _kept(self, plane: ControlPlane) -> str:
        """What was acknowledged is there. Returns why that cannot be judged yet."""
        if going := [name for name, record in plane.rollouts.records.items() if record.state == "running"]:
            return f"the rollout of {going[0]} goes on"
        for name, version in self.acknowledged.items():
            if name not in plane.state.stacks:
                return f"stack {name} is lost"
            self.nothing_shared(plane)
            image = plane.state.stacks[name].stack.services[0].container.image
            if int(image.partition(":")[2]) < version:
                self.world.violate(f"version {version} of {name} was acknowledged, and {image} is what is kept")
            record = plane.rollouts.records.get(name)
            if record is None or record.state not in ("failed", "superseded"):
                self._all_there(plane, name, version)
        return ""

    def nothing_shared(self, plane: ControlPlane) -> None:
        """No two networks have the same subnet or the same number on the wire, no two tasks the same address."""
        networks = list(plane.state.networks.values())
        for what, values in (
            ("subnet", [s.cidr for n in networks for s in n.subnets]),
            ("number", [str(n.vni) for n in networks if n.vni]),
            ("address", [a.ipv4 for t in plane.state.tasks.values() for a in t.container.attachments if a.ipv4]),
        ):
            if twice := [one for one, count in Counter(values).items() if count > 1]:
                self.world.violate(f"two have the {what} {twice[0]}")

    def _all_there(self, plane: ControlPlane, name: str, version: int) -> None:
        """Of a stack as it was acknowledged last every replica is there: a move may not lose one."""
        service = plane.state.stacks[name].stack.services[0]
        there = sum(t.service == service.name and t.planned for t in plane.state.of_stack(name).tasks)
        there += len(plane.state.waiting_for_room(name))
        if service.container.image == f"{service.name}:{version}" and there != service.replicas:
            self.world.violate(f"version {version} of {name} has {there} of {service.replicas} replicas")

    async def _use_all_nodes(self, plane: ControlPlane) -> None:
        """Let nodes that were emptied have tasks again where, with fewer, there would not be room for what has to have some.
        Which ones are is asked of the server: an order of a user may have found no leader, or may have been lost with it."""
        drained = sorted(n for n, m in plane.cluster.members.items() if m.node.availability == "drain")
        if not self.tight and len(drained) < len(plane.cluster.members):
            return
        for name in drained:
            with contextlib.suppress(PystackError):
                await plane.drainer.change(name, NodeUpdateRequest(availability="active"), lambda event: None)

    def crowded(self, plane: ControlPlane) -> str:
        """What priorities promise: those of a higher one lose no place, no node has more than it can take, and nobody waits
        who has room."""
        waiting = [e for name in plane.state.stacks for e in plane.state.waiting_for_room(name).values()]
        for one in waiting:
            if one.stack == HIGH or one.priority >= one.by_priority:
                self.world.violate(f"{one.task} had to go for {one.by}")
        webs = Counter(t.node for t in plane.state.tasks.values() if t.service == "web")
        if any(count * WEB_CPUS > INFO.cpus for count in webs.values()):
            self.world.violate(f"a node has more than it can take: {dict(webs)}")
        free = any((webs[name] + 1) * WEB_CPUS <= INFO.cpus for name in self.world.nodes)
        return f"{waiting[0].task} waits, and there is room" if waiting and free else ""

    # --- users -------------------------------------------------------------------------------------------------

    async def _use(self, name: str) -> None:
        version = 0
        while True:
            await asyncio.sleep(self.rng.uniform(1, 25))
            if not self.world.leading:
                continue
            server = self.rng.choice(sorted(self.world.leading))
            plane = self.world.leading[server]
            version += 1
            stack = stack_of(name, version, self.rng, tight=self.tight)
            self.world.note(f"up {name} version {version} at {server}")
            # the request is the server's: it ends with it
            work = self.world.spawn(
                f"server {server}",
                plane.rollouts.up(stack, UpOptions(timeout_s=40), lambda event: None),
                f"up {name}",
                server=server,
            )
            done, _ = await asyncio.wait({work}, timeout=80)
            if not done:
                work.cancel()
                self.world.note(f"up {name} version {version} was given up")
                continue
            self._outcome(name, version, work)

    def _outcome(self, name: str, version: int, work: asyncio.Task[object]) -> None:
        if work.cancelled():
            return self.world.note(f"up {name} version {version} was cut off")
        error = work.exception()
        if error is not None and not isinstance(error, (PystackError, ExceptionGroup, TimeoutError)):
            raise error
        if error is None and not work.result():
            self.acknowledged[name] = version
            self.ups += 1
        self.world.note(f"up {name} version {version}: {error or work.result() or 'done'}")

    # --- trouble -----------------------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        faults: list[Callable[[], None]] = [
            self._power,
            self._partition,
            self._one_way,
            self._store,
            self._die,
            self._slow,
            self._drain,
            self._remove,
        ]
        while True:
            await asyncio.sleep(self.rng.uniform(1, 20))
            self.rng.choice(faults)()
            if self.rng.random() < 0.3:
                self._heal_network()

    def _power(self) -> None:
        name = self.rng.choice(sorted(self.world.nodes))
        if self.world.nodes[name].up:
            self.world.power_off(name)
        else:
            self.world.power_on(name)

    def _partition(self) -> None:
        self.world.groups = {name: self.rng.randint(0, 1) for name in self.world.nodes}
        self.world.note(f"partition {self.world.groups}")

    def _one_way(self) -> None:
        one, other = self.rng.sample(sorted(self.world.nodes), 2)
        self.world.one_way.add((one, other))
        self.world.note(f"nothing arrives from {one} at {other}")

    def _store(self) -> None:
        name = self.rng.choice(self.world.servers)
        self.world.cut_store ^= {name}
        self.world.note(f"without the store: {sorted(self.world.cut_store)}")

    def _slow(self) -> None:
        name = self.rng.choice(sorted(self.world.nodes))
        self.world.slow ^= {name}
        self.world.note(f"slow: {sorted(self.world.slow)}")

    def _die(self) -> None:
        node = self.world.nodes[self.rng.choice(sorted(self.world.nodes))]
        running = [c for _, c in sorted(node.containers.items()) if c.state == "running" and node.up]
        if running:
            victim = self.rng.choice(running)
            self.world.note(f"{victim.task.name} on {node.name} dies")
            node.die(victim)

    def _order(self, what: str, work: Callable[[ControlPlane], Coroutine[Any, Any, Any]]) -> None:
        """Have a server that leads do *work*, for somebody who does not wait for it."""
        if not self.world.leading:
            return
        server = self.rng.choice(sorted(self.world.leading))
        self.world.note(f"{what} at {server}")
        self.world.spawn(f"server {server}", self._ordered(what, work(self.world.leading[server])), what, server=server)

    async def _ordered(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        try:
            async with asyncio.timeout(80):
                await work
        except (PystackError, ExceptionGroup, TimeoutError) as error:
            self.world.note(f"{what}: {error}")

    def _drain(self) -> None:
        """Empty a node, or let it have tasks again."""
        name = self.rng.choice(sorted(self.world.nodes))
        if name not in self.drained:
            self.drained.add(name)
            wish = NodeUpdateRequest(availability="drain")
            return self._order(f"drain {name}", lambda p: p.drainer.change(name, wish, lambda event: None))
        self.drained.discard(name)
        request = NodeUpdateRequest(availability="active")
        self._order(f"activate {name}", lambda p: p.drainer.change(name, request, lambda event: None))

    def _remove(self) -> None:
        """Remove a node without a server, dead or not, once in a run: it never comes back."""
        name = sorted(self.world.nodes)[-1]
        if not self.removed and self.rng.random() < 0.3:
            self.removed = True
            self._order(f"node rm --force {name}", lambda p: p.membership.remove(name, 1, force=True))

    def _heal_network(self) -> None:
        self.world.groups = {}
        self.world.one_way.clear()
        self.world.slow.clear()
        self.world.note("the network is well")

    def _heal(self) -> None:
        self._heal_network()
        self.world.cut_store.clear()
        for name, node in self.world.nodes.items():
            if not node.up:
                self.world.power_on(name)


def run(seed: int, folder: Path) -> Outcome:
    """One run of *seed*, from the beginning to the end."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    random.seed(seed)
    one = Run(seed, folder, loop)
    settled = 0.0
    try:
        with simulated(one.world):
            settled = loop.run_until_complete(one.go())
            one.world.history += [f"          {n}: {sorted(node.containers)}" for n, node in one.world.nodes.items()]
    except StalledError as error:
        one.world.violate(str(error))
    finally:
        end(loop, one.world)
    return Outcome(seed=seed, violations=one.world.violations, history=one.world.history, settled_s=settled, ups=one.ups)
