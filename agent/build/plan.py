"""Which stages a build needs, and what their FROM lines mean.

Pure. Source: Dockerfile reference, "Understand how ARG and FROM interact", "Automatic platform ARGs in the global scope";
docs.docker.com, "Multi-stage builds", "Additional build contexts".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from agent.build.dockerfile import Dockerfile, Instruction
from agent.build.errors import DockerfileError, raise_together
from agent.build.instructions import Arg, Copy, From, Run, Step, read
from agent.build.words import Expansion, WordError
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError
from agent.images.reference import parse

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PREDEFINED = (*PROXIES, *(name.lower() for name in PROXIES))
"""Arguments that need no ARG, and count for no cache."""
CONTEXT = "context"
SETTINGS = ("SOURCE_DATE_EPOCH", "BUILDKIT_")
"""Arguments that are for the builder itself: whether a Dockerfile names them or not."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """*base* is the number of another stage, or -1 where *image* names what it begins with ("" is nothing at all)."""

    number: int
    name: str
    base: int
    image: str
    platform: str
    origin: From
    steps: tuple[Step, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """*needed* are numbers of stages, in the file's order; *target* the last of them. *globals* are the values of the ARGs
    before the first FROM; *unused* build arguments that no ARG names."""

    file: Dockerfile
    stages: tuple[Stage, ...]
    target: int
    needed: tuple[int, ...]
    head: tuple[Arg, ...]
    globals: dict[str, str]
    unused: tuple[str, ...]

    def stage(self, name: str, before: int) -> int | None:
        """The number of the stage *name*, a name or a number, that stands above stage *before*."""
        return _find(self.stages, name, before)

    @property
    def total(self) -> int:
        """The number of steps that the output counts."""
        return len(self.head) + sum(1 + len(self.stages[n].steps) for n in self.needed)


def platform_arguments(target: str, own: str, stage: str = "") -> dict[str, str]:
    """The global arguments about *target*, `linux/arm64/v8`, the machine that builds, *own*, and the *stage* that is asked
    for."""
    out = {"TARGETSTAGE": stage or "default"}
    for prefix, text in (("TARGET", target), ("BUILD", own)):
        system, _, rest = text.partition("/")
        machine, _, variant = rest.partition("/")
        out |= {f"{prefix}PLATFORM": text, f"{prefix}OS": system, f"{prefix}ARCH": machine, f"{prefix}VARIANT": variant}
    return out


def make(
    file: Dockerfile,
    *,
    target: str = "",
    arguments: Mapping[str, str] | None = None,
    platforms: Mapping[str, str] | None = None,
    contexts: Collection[str] = (),
) -> Plan:
    """What is to be done for *target*, a stage's name or number, the last one by default. *contexts* are names of further
    contexts: they come before stages and images. Raises DockerfileError, BadRequestError."""
    arguments, platforms = arguments or {}, platforms or {}
    head, bodies = _cut(file, read(file))
    values = _head(file, head, arguments, platforms)
    stages: list[Stage] = []
    for number, (origin, steps) in enumerate(bodies):
        stages.append(_stage(file, stages, origin, steps, {**platforms, **values}, contexts, number))
    chosen = len(stages) - 1
    if target:
        named = _find(stages, target, len(stages))
        if named is None:
            raise BadRequestError(
                f"failed to reach build target {quoted(target)} in Dockerfile: stages are "
                f"{', '.join(s.name or str(s.number) for s in stages)}"
            )
        chosen = named
    needed = _needed(stages, chosen, contexts)
    _check_origins(file, stages, needed, contexts)
    declared = {name for arg in head for name, _ in arg.pairs}
    declared |= {name for stage in stages for step in stage.steps if isinstance(step, Arg) for name, _ in step.pairs}
    unused = tuple(n for n in arguments if n not in declared and n not in PREDEFINED and not n.startswith(SETTINGS))
    return Plan(file=file, stages=tuple(stages), target=chosen, needed=needed, head=tuple(head), globals=values, unused=unused)


def _cut(file: Dockerfile, steps: list[Step]) -> tuple[list[Arg], list[tuple[From, tuple[Step, ...]]]]:
    head: list[Arg] = []
    bodies: list[tuple[From, list[Step]]] = []
    for step in steps:
        if isinstance(step, From):
            bodies.append((step, []))
        elif bodies:
            bodies[-1][1].append(step)
        elif isinstance(step, Arg):
            head.append(step)
        else:
            raise file.error(step.at, f"no build stage in current context: {step.at.word} stands before the first FROM")
    if not bodies:
        raise DockerfileError("no build stage: there is no FROM", 1, name=file.name, text=file.text)
    return head, [(origin, tuple(steps)) for origin, steps in bodies]


def _head(file: Dockerfile, head: list[Arg], arguments: Mapping[str, str], platforms: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    known = dict(platforms)
    for arg in head:
        for name, default in arg.pairs:
            if name in arguments:
                values[name] = arguments[name]
            elif default is not None:
                values[name] = _expanded(file, arg.at, default, known)
            elif name in platforms:
                values[name] = platforms[name]
            known |= {name: values[name]} if name in values else {}
    return values


def _expanded(file: Dockerfile, at: Instruction, text: str, values: Mapping[str, str]) -> str:
    try:
        return Expansion(values, file.escape).word(text)
    except WordError as error:
        raise file.error(at, f"failed to process {quoted(text)!r}: {error}") from None


def _stage(
    file: Dockerfile,
    before: list[Stage],
    origin: From,
    steps: tuple[Step, ...],
    values: Mapping[str, str],
    contexts: Collection[str],
    number: int,
) -> Stage:
    image = _expanded(file, origin.at, origin.image, values)
    if not image:
        raise file.error(origin.at, f"base name ({quoted(origin.image)}) should not be blank")
    if origin.name and any(s.name == origin.name for s in before):
        raise file.error(origin.at, f"duplicate name {origin.name}: another stage is called so")
    image = context(image, contexts) or image
    base = _find(before, image, len(before)) if image not in contexts and not image.isdecimal() else None
    return Stage(
        number=number,
        name=origin.name,
        base=-1 if base is None else base,
        image="" if image == "scratch" else image,
        platform=_expanded(file, origin.at, origin.platform, values),
        origin=origin,
        steps=steps,
    )


def context(name: str, contexts: Collection[str]) -> str:
    """Which of *contexts* the word *name* means: itself, or as one image has several names (alpine, docker.io/library/alpine);
    "" for none."""
    if not contexts or name in contexts:
        return name if contexts else ""
    short = _familiar(name)
    return next((one for one in contexts if _familiar(one) == short), "")


def _familiar(name: str) -> str:
    try:
        return parse(name).familiar.removesuffix(":latest")
    except AgentError:
        return name


def _find(stages: list[Stage] | tuple[Stage, ...], name: str, before: int) -> int | None:
    lower = name.lower()
    for stage in reversed(stages[:before]):
        if stage.name == lower and stage.name:
            return stage.number
    if name.isascii() and name.isdecimal() and len(name) < 6 and int(name) < before:
        return int(name)
    return None


def origins(stage: Stage) -> list[tuple[Step, str]]:
    """The stages, images and named contexts that the steps of *stage* take files from."""
    return [(step, name) for step in stage.steps for name in origins_of(step)]


def origins_of(step: Step) -> list[str]:
    """The names that *step* takes files from, besides the context."""
    if isinstance(step, Copy) and step.origin:
        return [step.origin]
    if isinstance(step, Run):
        return [m.origin for m in step.mounts if m.origin]
    return []


def _needed(stages: list[Stage], target: int, contexts: Collection[str]) -> tuple[int, ...]:
    pending, found = [target], set()
    while pending:
        number = pending.pop()
        if number in found:
            continue
        found.add(number)
        stage = stages[number]
        if stage.base >= 0:
            pending.append(stage.base)
        for _, name in origins(stage):
            other = None if context(name, contexts) else _find(stages, name, number)
            if other is not None:
                pending.append(other)
    return tuple(sorted(found))


def _check_origins(file: Dockerfile, stages: list[Stage], needed: tuple[int, ...], contexts: Collection[str]) -> None:
    """Raises DockerfileError."""
    mistakes = []
    for number in needed:
        for step, name in origins(stages[number]):
            if not context(name, contexts) and (why := _why_no_origin(stages, number, name)):
                mistakes.append(file.error(step.at, why))
    raise_together(mistakes)


def _why_no_origin(stages: list[Stage], number: int, name: str) -> str:
    """Why stage *number* takes nothing from the stage *name*; "" if it does, or if an image may be meant."""
    if _find(stages, name, number) is not None:
        return ""
    if name.isdecimal():
        return f"invalid from flag value {quoted(name)}: there is no stage of that number above"
    if stages[number].name and name.lower() == stages[number].name:
        return f"circular dependency detected on stage: {quoted(name)}"
    if _find(stages, name, len(stages)) is not None:
        return f"stage {quoted(name)} stands below: a stage takes files from those above it alone"
    return ""
