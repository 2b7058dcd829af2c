"""Engine API: build. The context is the request's body. Source: Docker Engine API v1.48, ImageBuild."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from agent.api.app_keys import ENGINE, flag, number
from agent.api.context import plain
from agent.api.images import ProgressStream, event, platform_of
from agent.errors import AgentError, BadRequestError
from agent.images import build as builder
from agent.images.reference import parse


def _given(request: web.Request, name: str, kind: type[Any], default: Any) -> Any:
    """A parameter in JSON; null is as good as none. Raises BadRequestError."""
    text = request.query.get(name) or "null"
    try:
        value = json.loads(text)
    except ValueError:
        raise BadRequestError(f"{name}={text}: it is no JSON") from None
    if value and not isinstance(value, kind):
        raise BadRequestError(f"{name}={text}: {'an object' if kind is dict else 'a list'} is wanted here")
    return value or default


def _texts(request: web.Request, name: str) -> dict[str, str]:
    """An object of texts, without those that are null. Raises BadRequestError."""
    found = {k: v for k, v in _given(request, name, dict, {}).items() if v is not None}
    for key, value in found.items():
        if not isinstance(value, str):
            raise BadRequestError(f"{name}: {key} is to be a text")
    return found


def _build_options(request: web.Request) -> builder.BuildOptions:
    query = request.query
    if query.get("version", "1") != "1":
        raise BadRequestError(f"version={query['version']}: this node has the classic builder alone: DOCKER_BUILDKIT=0")
    if flag(request, "squash"):
        raise BadRequestError("squash is an experimental feature, and there is none here")
    platform_of(query.get("platform", ""))
    ulimits = [u if isinstance(u, dict) else {} for u in _given(request, "ulimits", list, [])]
    return builder.BuildOptions(
        dockerfile=query.get("dockerfile") or "Dockerfile",
        tags=tuple(t for t in query.getall("t", []) if t),
        args=_texts(request, "buildargs"),
        target=query.get("target", ""),
        labels=_texts(request, "labels"),
        no_cache=flag(request, "nocache"),
        pull=flag(request, "pull"),
        network="" if query.get("networkmode") == "default" else query.get("networkmode", ""),
        platform=query.get("platform", ""),
        shm_size=number(request, "shmsize"),
        extra_hosts=tuple(h for words in query.getall("extrahosts", []) for h in words.split(",") if h),
        contexts=_texts(request, "contexts"),
        ulimits=tuple(f"{u.get('Name')}={u.get('Soft')}:{u.get('Hard')}" for u in ulimits),
        privileged=flag(request, "privileged"),
    )


class BuildFailureError(AgentError):
    """*code* is the exit status of the command that failed, where it was one."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Steps:
    """What the builder says, in the words that Docker's clients look for."""

    STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP (\d+)/(\d+): (.*)", re.S)
    CACHED, MADE = re.compile(r"--> Using cache ([0-9a-f]{12})"), re.compile(r"--> ([0-9a-f]{11,12})")
    NOISE = re.compile(r'time="|Error: |COMMIT|using \S+ of this node|Getting image source|Copying |Writing manifest|Storing ')
    """What is for the builder's own users: warnings of formats, its last word, and which image is written where."""

    def __init__(self, stream: ProgressStream, *, quiet: bool) -> None:
        self._stream = stream
        self._quiet = quiet
        self._command = ""

    def say(self, text: str) -> None:
        if match := self.STEP.match(text):
            text = f"Step {match[1]}/{match[2]} : {match[3]}"
            self._command = match[3].strip()
        elif match := self.CACHED.match(text):
            text = f" ---> Using cache\n ---> {match[1]}\n"
        elif match := self.MADE.match(text):
            text = f" ---> {match[1]}\n"
        if not self._quiet and not self.NOISE.match(text):
            self._stream.tell({"stream": text})

    def failure(self, error: AgentError) -> AgentError:
        """What *error* of the builder's means to somebody who knows Docker's."""
        said = [line.removeprefix("Error: ") for line in str(error).splitlines() if line.startswith("Error: ")]
        if not said:
            return error
        if match := re.search(r"while running runtime: exit status (\d+)", said[-1]):
            command = re.sub(r"^RUN\s+(--\S+\s+)*", "", self._command)
            return BuildFailureError(f"The command '/bin/sh -c {command}' returned a non-zero code: {match[1]}", int(match[1]))
        text = re.sub(r" &?imagebuilder\.Step\{.*", "", said[-1])  # a dump of the builder's own
        return BuildFailureError(text, 0)


async def build(request: web.Request) -> web.StreamResponse:
    engine, quiet = request.app[ENGINE], flag(request, "q")
    payload = _build_options(request)
    names = [parse(tag) for tag in payload.tags]
    if remote := request.query.get("remote"):
        raise BadRequestError(f"remote={remote}: send the context as the request's body")
    stream = ProgressStream(request)
    steps = Steps(stream, quiet=quiet)

    async def work() -> None:
        before = {engine.images.names.get(name.name, "") for name in names}
        context: AsyncIterator[bytes] = plain(request.content.iter_any())
        try:
            image = await builder.build(
                engine.images, engine.runtime.program, engine.paths.root / "build", context, payload, steps.say
            )
        except AgentError as error:
            raise steps.failure(error) from error
        for digest in before:
            if digest and digest != image.digest and not engine.images.image(digest).names:
                engine.images.keep_untagged(digest)  # as in Docker it stays, without a name, until it is pruned
        stream.tell({"aux": {"ID": image.id}})
        if quiet:
            stream.tell({"stream": f"{image.id}\n"})
            return
        stream.tell({"stream": f"Successfully built {image.id[7:19]}\n"})
        for reference in names:
            event(engine, "tag", image, reference.familiar)
            stream.tell({"stream": f"Successfully tagged {reference.familiar}\n"})

    return await stream.run(work())
