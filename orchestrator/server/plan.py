"""What `up` would do, and why a task is where it is. Reads only: nothing in here can write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agent.contract.timings import Histogram
from orchestrator.errors import RefusedError, require_services
from orchestrator.placement.explain import Why, explain, with_reasons
from orchestrator.planning.diff import PlanOptions
from orchestrator.planning.diff import plan as make_plan
from orchestrator.planning.expand import Existing, expand
from orchestrator.planning.following import missing_owners
from orchestrator.planning.ingress import ingress_steps
from orchestrator.planning.state import Plan, State
from orchestrator.server.contents import Contents
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.images import Images
from orchestrator.server.inputs import Inputs
from orchestrator.server.records import UpOptions
from orchestrator.server.trust import TrustCheck
from orchestrator.stackfile.graph import needed
from orchestrator.stackfile.model import Service, Stack
from orchestrator.tracing.spans import span


class Planner:
    """Makes plans from the state, the statuses and the nodes as they are now."""

    def __init__(self, dispatcher: Dispatcher, contents: Contents, images: Images, inputs: Inputs) -> None:
        self._state = dispatcher.state
        self._statuses = dispatcher.statuses
        self._cluster = dispatcher.cluster
        self._contents = contents
        self._images = images
        self._inputs = inputs
        self.trust = TrustCheck(dispatcher.cluster, images)
        self.checks: list[Callable[[Stack], Sequence[str]]] = []
        """What packages above the server have against a stack, each with its place; the contents have their digests."""
        self.inquiries: list[Callable[[Stack], Awaitable[Sequence[str]]]] = []
        """The same, of what has to be asked of others."""
        self.timing = Histogram()
        """How long plans took to make, placement included."""

    async def plan(self, stack: Stack, options: UpOptions) -> Plan:
        """The steps from the present state to *stack*. Raises RefusedError, PystackError."""
        with self.timing.timed(), span("plan", stack=stack.name) as attributes:
            made = await self._plan(stack, options)
            attributes |= {"steps": len(made.changes), "tasks": len(made.desired.tasks)}
            return made

    async def _plan(self, stack: Stack, options: UpOptions) -> Plan:
        stack = self._contents.with_digests(stack)
        await self._cluster.refresh_info(problems_only=not any(n.parent for n in stack.networks))
        current = self._state.of_stack(stack.name)
        named = frozenset(options.services)
        require_services(named, stack.name, (s.name for s in stack.services))
        only = chosen_services(stack, options)
        if only and (wrong := missing_owners(stack, only, current.tasks, self._statuses.by_task)):
            raise RefusedError("\n".join(wrong), 409)
        if against := [why for check in self.checks for why in check(stack)]:
            raise RefusedError("\n".join(against), 409)
        if against := [why for inquiry in self.inquiries for why in await inquiry(stack)]:
            raise RefusedError("\n".join(against), 409)
        moved = await self.trust.moved(stack)
        # from here on without a pause: who plans next knows what is taken
        desired = await self.desired(stack, options)
        if against := self._inputs.quotas.problems(stack, desired.tasks, desired.volumes):
            raise RefusedError("\n".join(against), 409)
        force = frozenset(s.name for s in stack.services if options.force_recreate and (not named or s.name in named))
        if options.force_deps:
            force |= (only or frozenset(s.name for s in stack.services)) - named
        made = make_plan(
            stack,
            desired,
            current,
            revision=self._state.revision,
            statuses=self._statuses.by_task,
            options=PlanOptions(
                only=only,
                force=force,
                remove_orphans=options.remove_orphans,
                ignore_orphans=options.ignore_orphans,
                left_out=frozenset(options.left_out),
                starting=not options.no_start,
                keep=options.no_recreate,
                again=frozenset(s.name for s in stack.services if options.again and _runs_with_up(s)),
            ),
        )
        before = self._state.stacks.get(stack.name)
        steps = (*made.steps, *ingress_steps(before.stack if before else None, stack))
        return msgspec.structs.replace(made, steps=steps, warnings=(*made.warnings, *moved))

    async def desired(self, stack: Stack, options: UpOptions) -> State:
        """The tasks, networks and volumes that *stack* asks for, placed and addressed, with what their images are held to.
        Raises PystackError."""
        trust = await self.trust.trusted(stack, chosen_services(stack, options))
        by_hand, images = await self._inputs.networks_by_hand(), await self._images.ids(stack)
        volumes = frozenset(await self._inputs.volume_names(stack))
        made = expand(
            stack,
            self._state.of_stack(stack.name),
            existing=Existing(
                networks=(*by_hand, *self._state.networks_beside(stack.name)),
                coming=self._state.networks_to_come(stack.name),
                images=images,
                volumes=volumes,
                vxlan_port=self._inputs.vxlan_port,
            ),
            only=chosen_services(stack, options),
            scale=options.scale,
            context=msgspec.structs.replace(self._inputs.placement(stack.name), moves=options.moves),
        )
        tasks = tuple(msgspec.structs.replace(t, trust=trust.get(t.service)) for t in made.tasks)
        return msgspec.structs.replace(made, tasks=tasks)

    async def why(self, stack: str, service: str, task: str) -> Why:
        """Every node's verdict on *task* of *stack*, or on one more task of *service* if there is no such task.

        Raises RefusedError (404) if there is no such stack or service."""
        self._state.get_service(stack, service)
        await self._cluster.refresh_info(problems_only=True)
        known = self._state.stacks[stack].stack
        found = explain(known, service, task, self._state.of_stack(stack).tasks, self._inputs.placement(stack))
        one = next(s for s in known.services if s.name == service)
        if task not in self._state.tasks:
            found = with_reasons(found, "quota", self._inputs.quotas.against_more(known, service))
        if waiting := self._state.waiting_for_room(stack).get(task):
            found = msgspec.structs.replace(found, preempted=waiting.reason)
        return with_reasons(found, "image", await self.trust.problems(known, one))


def chosen_services(stack: Stack, options: UpOptions) -> frozenset[str] | None:
    """The services that *options* names, and those that they depend on; None stands for all services."""
    named = frozenset(options.services)
    return None if not named else named if options.no_deps else frozenset(needed(stack.services, named))


def _runs_with_up(service: Service) -> bool:
    """Whether its tasks run for as long as the stack does: neither to an end, nor when something else begins."""
    return not (service.is_job or service.is_pre_start_of or service.schedule)
