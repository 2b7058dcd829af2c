"""What the steps of one build work with: its options and plan, where its files come from, and the layers that it makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.build import config
from agent.build.build_options import BuildOptions
from agent.build.cache import key_of
from agent.build.contexts import Origin
from agent.build.inputs import Inputs
from agent.build.instructions import Arg
from agent.build.layers import Layer, image_layers
from agent.build.plan import Plan, platform_arguments
from agent.build.report import Tell
from agent.build.results import BuildResults
from agent.build.states import State
from agent.build.words import Expansion
from agent.images.auth import Credentials
from agent.images.pull import architecture
from agent.images.store import Image


class BuildSession:
    """One build below its *folder*. Its *plan* is set once its Dockerfile is read."""

    def __init__(
        self,
        results: BuildResults,
        options: BuildOptions,
        folder: Path,
        credentials: Mapping[str, Credentials],
        progress: Callable[[dict[str, object]], None],
    ) -> None:
        self.results, self.options, self.folder = results, options, folder
        self.engine = results.engine
        self.limits = self.engine.settings.limits
        self.inputs = Inputs(results, options, folder, credentials, progress)
        self.plan: Plan
        self.epoch = options.epoch
        """No file of a layer is newer than that, in seconds since 1970; None: files keep their times."""
        self.architecture = architecture()
        self.stage: Callable[[int], Awaitable[State]]
        """The last state of a stage by its number, set by the job that runs them."""
        self.begin: Callable[[Coroutine[Any, Any, None]], object]
        """Begins work that the build waits for in the end, set by the job."""

    @property
    def platform(self) -> str:
        """The platform of this node, for which images are built."""
        return f"linux/{self.architecture}"

    def platform_arguments(self) -> dict[str, str]:
        """The arguments that tell a Dockerfile the platform (TARGETPLATFORM and the like)."""
        return platform_arguments(self.options.platform or self.platform, self.platform)

    # --- states ------------------------------------------------------------------------------------------------

    def nothing(self) -> State:
        """The state that `FROM scratch` gives."""
        return State(key="scratch", layers=(), document=config.empty(self.architecture), shown="")

    def of_image(self, image: Image) -> State:
        """The state that `FROM` an image of the store gives; the build holds the image from now on."""
        document = msgspec.json.decode(self.engine.images.blob(image.id).read_bytes())
        document["config"] = document.get("config") or {}
        layers = tuple(image_layers(self.engine.images, image.digest, image.layers))
        self.results.transient |= {
            image.digest[7:27],
            image.id[7:27],
            *(layer.name() for layer in layers),
            *(layer.blob.digest[7:27] for layer in layers),
        }
        return State(key=key_of("layers", *image.layers), layers=layers, document=document, shown=image.id[7:19])

    def expansion(self, state: State) -> Expansion:
        """The variables of *state*: arguments, and above them the environment."""
        values = {**state.arguments, **config.environment(state.document)}
        return Expansion(values, self.plan.file.escape)

    def arguments(self, state: State, step: Arg) -> dict[str, str]:
        """The arguments after *step*: as given with the build, by default, or as known before the first FROM."""
        values = dict(state.arguments)
        platforms = self.platform_arguments()
        for name, default in step.pairs:
            expand = Expansion({**values, **config.environment(state.document)}, self.plan.file.escape)
            if name in self.options.args:
                values[name] = self.options.args[name]
            elif default is not None:
                values[name] = expand.word(default)
            elif name in self.plan.globals:
                values[name] = self.plan.globals[name]
            elif name in platforms:
                values[name] = platforms[name]
        return values

    def cached(self, number: int) -> bool:
        """Whether the steps of stage *number* may be taken from the cache."""
        return not self.options.no_cache and self.plan.stages[number].name not in (
            n.lower() for n in self.options.no_cache_filter or ()
        )

    async def layer(
        self,
        number: int,
        state: State,
        key: str,
        note: str,
        make: Callable[[], Awaitable[str]],
        say: Tell,
        *,
        by: str = "",
    ) -> State:
        """The state of stage *number* with the layer that the step *key* gives, from the cache or by *make*, which returns its
        name. *note* describes the step in the cache, *by* (else *note*) in the image's history."""
        if self.epoch is not None:
            key = key_of("until", self.epoch, key)
        entry, known = await self.results.result(key, note, make, cached=self.cached(number))
        if known:
            say(" ---> Using cache\n")
        if not entry.layer:
            return state.recorded(by or note)
        layer = Layer(entry=entry)
        self.results.transient |= {entry.layer, entry.digest[7:27]}
        if self.plan.is_in_image(number):
            self.begin(self.results.layers.pack(layer))
        return state.with_layer(layer, key_of("layer", entry.identity)).recorded(by or note, layer)

    # --- where files come from ---------------------------------------------------------------------------------

    async def origin(self, number: int, name: str) -> Origin | State:
        """What `--from=NAME` is in stage *number*: a folder, or a state whose layers are to be looked into."""
        if not name:
            return self.inputs.context
        if name in self.options.contexts:
            found = await self.inputs.named(name)
            return self.of_image(found) if isinstance(found, Image) else found
        other = self.plan.stage(name, number)
        if other is not None:
            return await self.stage(other)
        return self.of_image(await self.inputs.image(name))
