"""One build: its context is brought, its file planned, its stages run side by side, its image written.

A stage is a chain of states: layers, configuration and arguments. A step gives the next state; those that touch files go by way
of the builder's cache. Source: Dockerfile reference.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from agent.build import config, contexts, dockerfile, plan, writing
from agent.build import instructions as steps
from agent.build.build_options import BuildOptions
from agent.build.contexts import Origin
from agent.build.copying import Copying
from agent.build.errors import DockerfileError, RunError
from agent.build.report import Report, Tell
from agent.build.results import BuildResults
from agent.build.running import Running
from agent.build.runsteps import RunSteps
from agent.build.selection import MissingError, choose
from agent.build.session import BuildSession
from agent.build.states import State
from agent.build.words import WordError
from agent.contract.container import Attachment, Container
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError
from agent.images.auth import Credentials
from agent.images.platforms import platform_of
from agent.images.store import Image

T = TypeVar("T")

TRIGGERS = 200
"""ONBUILD instructions of one image."""


class Job:
    """One build: its stages side by side, and the image in the end."""

    def __init__(
        self,
        results: BuildResults,
        options: BuildOptions,
        folder: Path,
        report: Report,
        credentials: Mapping[str, Credentials],
        progress: Callable[[dict[str, object]], None],
    ) -> None:
        self.session = BuildSession(results, options, folder, credentials, progress)
        self.session.stage = self.stage
        self.session.begin = lambda work: self._begin(work, "pack")
        self.report = report
        at_once = max(2, os.cpu_count() or 1)
        self.running = Running(results.engine, results.layers, folder / "slots", _limits(options), at_once)
        self.running.epoch = options.epoch
        self.copying = Copying(self.session)
        self.runsteps = RunSteps(self.session, self.copying, self.running)
        self._stages: dict[int, asyncio.Task[State]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._first: BaseException | None = None

    # --- the whole ---------------------------------------------------------------------------------------------

    async def run(self, body: AsyncIterator[bytes]) -> Image:
        """Take the build context from the tar *body* and build the image. Raises AgentError, OSError."""
        options, inputs = self.session.options, self.session.inputs
        await inputs.bring(body)
        self.session.plan = plan.make(
            inputs.file(),
            target=options.target,
            arguments=options.args,
            contexts=options.contexts,
            platforms=self.session.platform_arguments(),
        )
        self._check()
        self.report.begin(self.session.plan.needed)
        say = self.report.channel(self.session.plan.needed[0])
        for number, arg in enumerate(self.session.plan.head, 1):
            say(f"Step {number}/{self.session.plan.total} : {quoted(arg.at.shown)}\n")
        try:
            async with asyncio.TaskGroup() as self._group:
                state = await self.stage(self.session.plan.target)
        except BaseExceptionGroup as group:
            raise (self._first or _first(group)) from None
        image = await writing.image(self.session.results, state, options)
        if unused := self.session.plan.unused:
            self.report.say(f"[Warning] One or more build-args {quoted(str(list(unused)))} were not consumed\n")
        return image

    async def close(self) -> None:
        """Take away what it holds beside its folder."""
        await self.session.inputs.close()
        await self.running.close()

    def _check(self) -> None:
        """What can be known before the first step. Raises DockerfileError."""
        if self.session.options.platform:
            self._check_platform(self.session.options.platform, None)
        for number in self.session.plan.needed:
            stage = self.session.plan.stages[number]
            if stage.platform:
                self._check_platform(stage.platform, stage.origin)
            for step in stage.steps:
                if isinstance(step, steps.Run):
                    self.runsteps.check(step)
                elif isinstance(step, steps.Copy) and not step.origin and not any("$" in w for w in step.sources):
                    self._check_sources(step)

    def _check_sources(self, step: steps.Copy) -> None:
        context = self.session.inputs.context
        local = [s for s in step.sources if not (step.add and (contexts.is_url(s) or contexts.repository(s)))]
        with self.located(step):
            try:
                choose(context.listing, local, "/", parents=step.parents, ignored=context.ignored)
            except MissingError as error:
                raise BadRequestError(f"{step.at.word} failed: {error}") from None

    def _check_platform(self, text: str, at: steps.Step | None) -> None:
        try:
            platform_of(text)
        except AgentError as error:
            why = f"{error}: images for other machines are not built here"
            raise (self.session.plan.file.error(at.at, why) if at else BadRequestError(why)) from None

    @contextlib.contextmanager
    def located(self, step: steps.Step) -> Iterator[None]:
        """Errors inside are told with the place of *step*."""
        try:
            yield
        except (DockerfileError, RunError):
            raise
        except (AgentError, WordError) as error:
            raise self.session.plan.file.error(step.at, str(error)) from error

    # --- stages ------------------------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        assert self._group
        return self._group.create_task(work, name=name)

    async def stage(self, number: int) -> State:
        """The last state of a stage, which is begun where it was not yet."""
        if number not in self._stages:
            self._stages[number] = self._begin(self._staged(number), f"stage {number}")
        return await asyncio.shield(self._stages[number])

    async def _staged(self, number: int) -> State:
        stage, say = self.session.plan.stages[number], self.report.channel(number)
        for _, name in plan.origins(stage):  # what it needs later begins now
            other = None if name in self.session.options.contexts else self.session.plan.stage(name, number)
            if other is not None and other not in self._stages:
                self._stages[other] = self._begin(self._staged(other), f"stage {other}")
        before = [n for n in self.session.plan.needed if n < number]
        step_number = len(self.session.plan.head) + sum(1 + len(self.session.plan.stages[n].steps) for n in before) + 1
        try:
            with self.located(stage.origin):
                say(f"Step {step_number}/{self.session.plan.total} : {quoted(stage.origin.at.shown)}\n")
                state = await self._begun(stage)
                say(f" ---> {state.short}\n")
            state = await self._triggered(number, state, say)
            for step in stage.steps:
                step_number += 1
                say(f"Step {step_number}/{self.session.plan.total} : {_shown(step)}\n")
                with self.located(step):
                    state = await self.step(number, state, step, say)
                say(f" ---> {state.short}\n")
        except (AgentError, OSError) as error:
            self._first = self._first or error
            self.report.failed(number)
            raise
        self.report.end(number)
        return state

    async def _begun(self, stage: plan.Stage) -> State:
        """What FROM gives."""
        if stage.base >= 0:
            return await self.stage(stage.base)
        if stage.image in self.session.options.contexts:
            found = await self.session.inputs.named(stage.image)
            if isinstance(found, Origin):
                return await self.copying.whole(self.session.nothing(), found, stage)
            return self.session.of_image(found)
        return self.session.of_image(await self.session.inputs.image(stage.image)) if stage.image else self.session.nothing()

    async def _triggered(self, number: int, state: State, say: Tell) -> State:
        """ONBUILD instructions of the image are carried out first."""
        triggers = state.document["config"].get("OnBuild") or ()
        if self.session.plan.stages[number].base >= 0 or not triggers:
            return state
        if len(triggers) > TRIGGERS:
            raise BadRequestError(f"the image has more than {TRIGGERS} ONBUILD instructions")
        say(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        state = state.changed(document=config.put(state.document, "OnBuild", None))
        for text in triggers:
            file = dockerfile.read(str(text).encode(), "ONBUILD")
            for step in steps.read(file):
                if isinstance(step, steps.From | steps.OnBuild | steps.Maintainer):
                    raise BadRequestError(f"ONBUILD {quoted(str(text))}: {step.at.word} isn't allowed as an ONBUILD trigger")
                try:
                    state = await self.step(number, state, step, say)
                except (DockerfileError, WordError) as error:
                    raise BadRequestError(f"ONBUILD {quoted(str(text))}: {error}") from None
        return state

    # --- steps -------------------------------------------------------------------------------------------------

    async def step(self, number: int, state: State, step: steps.Step, say: Tell) -> State:
        """The state after *step*. Raises AgentError, WordError."""
        expand = self.session.expansion(state)
        match step:
            case steps.Run():
                return await self.runsteps.run(number, state, step, say)
            case steps.Copy():
                return await self.copying.copy(number, state, step, say)
            case steps.Workdir():
                return await self.copying.workdir(number, state, step, say)
            case steps.Arg():
                return state.changed(arguments=self.session.arguments(state, step)).recorded(_shown(step))
            case steps.Expose():
                document = config.expose(state.document, expand.words(step.ports))
            case _:
                document = config.CHANGES[type(step)](state.document, step, expand.word)
        return state.changed(document=document).recorded(_shown(step))


def _shown(step: steps.Step) -> str:
    return quoted(step.at.shown) if len(step.at.shown) < 100 else "".join(c if c.isprintable() else " " for c in step.at.shown)


def _limits(options: BuildOptions) -> Container:
    """What all containers of the build are like."""
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
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
