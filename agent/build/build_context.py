"""What the parts of one build share: its options, inputs and results, and the steps' way to layers and to files of others."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.build import config, plan
from agent.build.build_options import BuildOptions
from agent.build.builder import Builder
from agent.build.cache import Entry
from agent.build.contexts import Origin
from agent.build.inputs import Inputs
from agent.build.report import Channel
from agent.build.running import Running
from agent.build.states import State
from agent.build.words import Expansion
from agent.contract.container import Attachment, Container
from agent.images import platforms
from agent.images.types import Platform

HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"
"""The build argument with the name of the host that RUN sees."""


def running(builder: Builder, options: BuildOptions, folder: Path) -> Running:
    """What runs the commands of a build in *folder*."""
    made = Running(builder.engine, builder.layers, folder / "slots", _limits(options), max(2, os.cpu_count() or 1))
    made.epoch = options.epoch
    return made


class BuildContext(ABC):
    """The build of *options* for one *platform*; *inputs* and *running* are those of all its platforms."""

    def __init__(self, options: BuildOptions, inputs: Inputs, running: Running, platform: Platform) -> None:
        self.builder, self.options, self.folder, self.report = inputs.builder, options, inputs.folder, inputs.report
        self.engine = inputs.engine
        self.limits = inputs.limits
        self.inputs, self.running, self.platform = inputs, running, platform
        self.used: dict[str, Entry] = {}
        """The results of its steps, by their keys."""
        self.epoch = options.epoch
        self.plan: plan.Plan

    def stage_platform(self, number: int) -> Platform:
        """What stage *number* is for: what its FROM says, or that of the stage below. Raises BadRequestError."""
        stage = self.plan.stages[number]
        while not stage.platform and stage.base >= 0:
            stage = self.plan.stages[stage.base]
        return platforms.buildable(stage.platform) if stage.platform else self.platform

    def expansion(self, state: State) -> Expansion:
        """Expands variables by the arguments and the environment of *state*."""
        values = {**state.arguments, **config.environment(state.document)}
        return Expansion(values, self.plan.file.escape)

    def cached(self, number: int) -> bool:
        """Whether stage *number* may use results of the cache."""
        return not self.options.no_cache and self.plan.stages[number].name not in (
            n.lower() for n in self.options.no_cache_filter or ()
        )

    @abstractmethod
    async def layer(
        self,
        number: int,
        state: State,
        key: str,
        note: str,
        make: Callable[[], Awaitable[str]],
        say: Channel,
        *,
        by: str = "",
    ) -> State:
        """*state* with the layer of the step *key*, from the cache or made by *make*."""

    @abstractmethod
    async def origin(self, number: int, name: str) -> Origin | State:
        """The source that `--from=NAME` means in stage *number*: a folder, or a state."""


def _limits(options: BuildOptions) -> Container:
    """The template of all containers of the build."""
    modes = ("", "default", "bridge", "host", "none")
    named = options.network not in modes and ":" not in options.network
    return Container(
        image="",
        network_mode="" if named or options.network in ("default", "bridge") else options.network,
        attachments=(Attachment(network=options.network),) if named else (),
        extra_hosts=tuple(
            (name, address.strip("[]"))
            for name, _, address in (h.replace("=", ":", 1).partition(":") for h in options.extra_hosts)
        ),
        ulimits=options.ulimits,
        shm_size=options.shm_size or 64 << 20,
        memory=options.memory,
        memory_swap=options.memory_swap,
        cpu_shares=options.cpu_shares,
        cpu_period=options.cpu_period,
        cpu_quota=options.cpu_quota,
        cpuset=options.cpuset,
        cgroup_parent=options.cgroup_parent,
        privileged=options.privileged,
        hostname=options.args.get(HOSTNAME, ""),
    )
