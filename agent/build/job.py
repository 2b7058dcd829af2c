"""One build: fetch the context, plan the Dockerfile, run its stages concurrently, write the image.

A stage is a chain of states: layers, configuration and arguments. A step gives the next state; those that touch files go by way
of the builder's cache. Source: Dockerfile reference.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import msgspec

from agent import mounts
from agent.build import checking, config, dockerfile, plan, writing
from agent.build import instructions as steps
from agent.build.build_context import BuildContext, running
from agent.build.build_options import BuildOptions
from agent.build.builder import Builder
from agent.build.cache import Entry, key_of
from agent.build.contexts import Origin
from agent.build.copying import Copying
from agent.build.errors import DockerfileError, RunError
from agent.build.inputs import Client, Inputs
from agent.build.layers import Layer, image_layers
from agent.build.remote_cache import Imports, Sources
from agent.build.report import Channel, Report, shown
from agent.build.running import Running
from agent.build.runsteps import RunSteps
from agent.build.states import State
from agent.build.words import Expansion, WordError
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError, user_message
from agent.images import platforms, pull
from agent.images.reference import parse
from agent.images.store import Image
from agent.images.types import Platform

R = TypeVar("R")
TRIGGERS = 200
"""The most ONBUILD instructions of one image."""
Built: TypeAlias = "tuple[Job, State]"
"""A build for one platform, and the last state of its target."""


class Job(BuildContext):
    """Runs the stages of a build for one platform."""

    def __init__(self, options: BuildOptions, inputs: Inputs, running: Running, platform: Platform) -> None:
        super().__init__(options, inputs, running, platform)
        self.copying = Copying(self)
        self.runsteps = RunSteps(self, self.copying)
        self.imports = Imports(self)
        self.sources = Sources(self.engine.images, options.cache_from)
        self._stages: dict[int, asyncio.Task[State]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._first: BaseException | None = None

    # --- the whole ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Plan the build, whose Dockerfile is there. Raises AgentError."""
        self.plan = plan.make(
            self.inputs.file(),
            target=self.options.target,
            arguments=self.options.args,
            contexts=self.options.contexts,
            platforms=self._platform_arguments(),
        )

    def check(self) -> None:
        """Look at what can be known before the first step of any platform. Raises AgentError."""
        self.report.begin(self.plan.needed)
        checking.check(self)

    async def run(self) -> State:
        """Build, and return the last state of the target. Raises AgentError, OSError."""
        self.report.begin(self.plan.needed, platforms.text_of(self.platform) if len(self.options.platforms) > 1 else "")
        say = self.report.channel(self.plan.needed[0])
        for number, arg in enumerate(self.plan.head, 1):
            say.argument(number, self.plan.total, arg)
        try:
            async with asyncio.TaskGroup() as self._group:
                state = await self.stage(self.plan.target)
        except BaseExceptionGroup as group:
            raise (self._first or _first(group)) from None
        if self.plan.unused:
            self.report.warn(f"One or more build-args [{quoted(' '.join(self.plan.unused))}] were not consumed")
        return state

    async def image(self, state: State, *, named: bool) -> Image:
        """*state* as an image of the store, *named* as the client wants it, or part of an index. Raises AgentError, OSError."""
        with self.report.work("exporting to image"):
            return await writing.image(self.builder, state, self.options, named=named)

    def _platform_arguments(self) -> dict[str, str]:
        own = platforms.text_of(platforms.own())
        return plan.platform_arguments(platforms.text_of(self.platform), own, self.options.target)

    def steps_before(self, number: int) -> int:
        """The number of steps before those of stage *number*."""
        before = [n for n in self.plan.needed if n < number]
        return len(self.plan.head) + sum(1 + len(self.plan.stages[n].steps) for n in before)

    @contextlib.contextmanager
    def located(self, step: steps.Step) -> Iterator[None]:
        """Errors in the context get the position of *step*."""
        try:
            yield
        except (DockerfileError, RunError):
            raise
        except (AgentError, WordError) as error:
            raise self.plan.file.error(step.at, str(error)) from error

    # --- stages ------------------------------------------------------------------------------------------------

    async def stage(self, number: int) -> State:
        """The last state of stage *number*, which is started if it was not yet."""
        assert self._group
        if number not in self._stages:
            self._stages[number] = self._group.create_task(self._staged(number), name=f"stage {number}")
        return await asyncio.shield(self._stages[number])

    async def _staged(self, number: int) -> State:
        stage, say = self.plan.stages[number], self.report.channel(number)
        for _, name in plan.origins(stage):  # what it needs later begins now
            other = None if plan.context(name, self.options.contexts) else self.plan.stage(name, number)
            if other is not None and other not in self._stages:
                assert self._group
                self._stages[other] = self._group.create_task(self._staged(other), name=f"stage {other}")
        step_number = self.steps_before(number) + 1
        try:
            with self.located(stage.origin):
                say.step(step_number, self.plan.total, stage, stage.origin)
                state = await self._begun(stage)
                say.reached(state.short)
            if stage.steps:
                state = state.changed(document=config.with_path(state.document, stage.image), has_command=False)
            with self.located(stage.origin):
                state = await self._triggered(number, state, say)
            for step in stage.steps:
                step_number += 1
                await asyncio.sleep(0)  # there may be thousands that wait for nothing
                say.step(step_number, self.plan.total, stage, step)
                with self.located(step):
                    before, state = state, await self.step(number, state, step, say)
                    if len(before.layers) == len(state.layers) and not isinstance(step, steps.Run | steps.Copy | steps.Workdir):
                        self._recall(number, before, state, say)
                say.reached(state.short)
        except (AgentError, OSError) as error:
            self._first = self._first or error
            self.report.failed(number, user_message(error))
            raise
        self.report.end(number)
        return state

    async def _begun(self, stage: plan.Stage) -> State:
        """The state that FROM begins with."""
        if stage.base >= 0:
            return await self.stage(stage.base)
        platform = self.stage_platform(stage.number)
        if stage.image in self.options.contexts:
            found = await self.inputs.named(stage.image, platform)
            if isinstance(found, Origin):
                return await self.copying.whole(_nothing(platform), found, stage)
            return self.of_image(found)
        return self.of_image(await self.inputs.image(stage.image, platform)) if stage.image else _nothing(platform)

    def of_image(self, image: Image) -> State:
        """The state that *image* is; its layers are kept as long as builds run."""
        document = msgspec.json.decode(self.engine.images.blob(image.id).read_bytes())
        document["config"] = document.get("config") or {}
        layers = tuple(image_layers(self.engine.images, image.digest, image.layers))
        self.builder.transient |= {
            image.digest[7:27],
            image.id[7:27],
            *(layer.name() for layer in layers),
            *(layer.blob.digest[7:27] for layer in layers),
        }
        return State(
            key=key_of("layers", *image.layers), layers=layers, document=document, trail=image.id, shown=image.id[7:19]
        )

    async def _triggered(self, number: int, state: State, say: Channel) -> State:
        """The state after the ONBUILD instructions of the image."""
        triggers = state.document["config"].get("OnBuild") or ()
        if self.plan.stages[number].base >= 0 or not triggers:
            return state
        if len(triggers) > TRIGGERS:
            raise BadRequestError(f"the image has more than {TRIGGERS} ONBUILD instructions")
        say.triggers(len(triggers))
        state = state.changed(document=config.put(state.document, "OnBuild", None))
        await self.inputs.whole()
        for text in triggers:
            file = dockerfile.read(str(text).encode(), "ONBUILD")
            for step in steps.read(file):
                if isinstance(step, steps.From | steps.OnBuild | steps.Maintainer):
                    raise BadRequestError(f"ONBUILD {quoted(str(text))}: {step.at.word} isn't allowed as an ONBUILD trigger")
                if isinstance(step, steps.Run) and (why := await self._refusal(number, step)):
                    raise BadRequestError(f"ONBUILD {quoted(str(text))}: {why}")
                try:
                    state = await self.step(number, state, step, say)
                except (DockerfileError, WordError) as error:
                    raise BadRequestError(f"ONBUILD {quoted(str(text))}: {error}") from None
        return state

    async def _refusal(self, number: int, step: steps.Run) -> str:
        """Why *step*, which no Dockerfile of this build has, is not run; what it needs of the client is fetched first."""
        await self.inputs.lent_to([step])
        return self.runsteps.refusal(step, self.stage_platform(number))

    # --- steps -------------------------------------------------------------------------------------------------

    async def step(self, number: int, state: State, step: steps.Step, say: Channel) -> State:
        """The state after *step*. Raises AgentError, WordError."""
        expand = self.expansion(state)
        match step:
            case steps.Run():
                return await self.runsteps.run(number, state, step, say)
            case steps.Copy():
                return await self.copying.copy(number, state, step, say)
            case steps.Workdir():
                return await self.copying.workdir(number, state, step, say)
            case steps.Arg():
                values = self._arguments(state, step)
                return state.changed(arguments={**state.arguments, **values}).recorded(shown(step), values=values)
            case steps.Expose():
                document = config.expose(state.document, expand.words(step.ports))
            case steps.Cmd():
                state = state.changed(has_command=True)
                document = config.CHANGES[steps.Cmd](state.document, step, expand.word)
            case steps.Entrypoint() if not state.has_command:
                document = config.CHANGES[steps.Entrypoint](config.put(state.document, "Cmd", None), step, expand.word)
            case _:
                document = config.CHANGES[type(step)](state.document, step, expand.word)
        return state.changed(document=document).recorded(shown(step))

    def _arguments(self, state: State, step: steps.Arg) -> dict[str, str]:
        """The values that *step* gives to its names; a name without any has none."""
        values: dict[str, str] = {}
        own, environment = self._platform_arguments(), config.environment(state.document)
        known = {**state.arguments, **environment}
        expand = Expansion(known, self.plan.file.escape)
        for name, default in step.pairs:
            if name in self.options.args:
                values[name] = self.options.args[name]
            elif default is not None:
                values[name] = expand.word(default)
            elif name in self.plan.globals:
                values[name] = self.plan.globals[name]
            elif name in own:
                values[name] = own[name]
            if name in values and name not in environment:
                known[name] = values[name]
        return values

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
        if self.epoch is not None:
            key = key_of("until", self.epoch, key)
        found = self.builder.cache.entries.get(key)
        cached = self.cached(number) and (found is None or self.sources.have(_on(state, found, by or note)))
        entry, known = await self.builder.result(
            key, note, make, cached=cached, elsewhere=self.imports.find if self.options.cache_from else None
        )
        self.used[entry.key] = entry
        if known:
            say.cached()
        after = _on(state, entry, by or note)
        if entry.layer:
            self.builder.transient |= {entry.layer, entry.digest[7:27]}
            if self._is_final(number) and self._group:
                self._group.create_task(_shared(self, after.layers[-1]), name="pack")
        return after

    def _recall(self, number: int, before: State, state: State, say: Channel) -> None:
        """Report whether the step from *before* to *state*, which changes no file, was done by an earlier build."""
        # by the text of the step alone: an ARG with another value is known, and what comes after it is not
        key = key_of("recalled", before.key, before.trail, state.document["history"][-1]["created_by"])
        if self.cached(number) and self.builder.cache.known(key) and self.sources.have(state):
            say.recalled()
        self.builder.cache.remember(key, "done")

    def _is_final(self, number: int) -> bool:
        """Whether the files of stage *number* are part of the image."""
        at = self.plan.target
        while at != number and self.plan.stages[at].base >= 0:
            at = self.plan.stages[at].base
        return at == number

    # --- where files come from ---------------------------------------------------------------------------------

    async def origin(self, number: int, name: str) -> Origin | State:
        """The source that `--from=NAME` means in stage *number*: a folder, or a state."""
        if not name:
            return self.inputs.context
        if named := plan.context(name, self.options.contexts):
            found = await self.inputs.named(named, self.platform)
            return self.of_image(found) if isinstance(found, Image) else found
        other = self.plan.stage(name, number)
        if other is not None:
            return await self.stage(other)
        return self.of_image(await self.inputs.image(name, self.platform))


async def run_build(
    builder: Builder,
    options: BuildOptions,
    context: AsyncIterator[bytes],
    report: Report,
    client: Client,
    finish: Callable[[Sequence[Built]], Awaitable[R]],
) -> R:
    """Build with *options* for each platform, this node's first, and return the result of *finish*. *report* gets each step.
    Raises AgentError."""
    inputs = Inputs(builder, options, builder.begin(), client, report)
    commands = running(builder, options, inputs.folder)
    wanted = sorted(dict.fromkeys(options.platforms), key=lambda one: one != platforms.own()) or [platforms.own()]
    jobs = [Job(options, inputs, commands, platform) for platform in wanted]
    within_s = min(options.timeout_s or math.inf, inputs.limits.build_s)
    try:
        async with asyncio.timeout(within_s) as clock:
            await inputs.bring(context)
            for job in jobs:
                job.prepare()
            await inputs.lent([job.plan for job in jobs])
            for job in jobs:
                job.check()
            return await finish([(job, await job.run()) for job in jobs])
    except TimeoutError:
        if clock.expired():
            raise AgentError(f"the build did not end within {within_s:g} s") from None
        raise
    finally:
        await asyncio.shield(_end(jobs, inputs, commands))


async def _end(jobs: Sequence[Job], inputs: Inputs, commands: Running) -> None:
    try:
        for job in jobs:
            await job.imports.close()
        await inputs.close()
        await commands.close()
    finally:
        for point in mounts.below(inputs.folder):
            mounts.unmount(point)
        await inputs.keep()
        await inputs.builder.end(inputs.folder)


def _nothing(platform: Platform) -> State:
    """The state of `FROM scratch`."""
    document = config.empty(platform.architecture, platform.variant)
    return State(key="scratch", layers=(), document=document, trail=platforms.text_of(platform), shown="")


def _on(state: State, entry: Entry, by: str) -> State:
    """*state* after a step recorded as *by*, of which *entry* is the result."""
    if not entry.layer:
        return state.recorded(by)
    layer = Layer(entry=entry)
    return state.with_layer(layer, key_of("layer", entry.identity)).recorded(by, layer)


async def _shared(job: Job, layer: Layer) -> None:
    """Pack *layer*, which the image of *job* is to have, and send it where the image goes, while the next steps run."""
    await job.builder.layers.pack(layer)
    for name in job.options.push:
        reference = parse(name)
        with contextlib.suppress(AgentError, OSError):  # the image's own push says what is wrong
            credentials = await job.inputs.client.credentials(reference.host)
            await pull.push_layer(job.engine.images, layer.blob, reference, job.engine.settings, credentials)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
