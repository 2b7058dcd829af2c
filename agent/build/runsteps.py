"""RUN as a step: its dependencies, mounts and command. Source: Dockerfile reference, RUN, "RUN --mount"."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import re
import secrets
import socket
from pathlib import Path
from typing import Any

import msgspec

from agent import files, mounts
from agent.build import config
from agent.build.build_context import BuildContext
from agent.build.cache import key_of
from agent.build.contexts import Origin
from agent.build.copying import Copying
from agent.build.instructions import Run, RunMount
from agent.build.layers import fresh
from agent.build.plan import PREDEFINED
from agent.build.report import Channel
from agent.build.running import Command
from agent.build.selection import Pick, digest
from agent.build.states import State
from agent.build.words import Expansion
from agent.contract.container import Mount
from agent.contract.printable import quoted
from agent.contract.sizes import parse_size
from agent.errors import BadRequestError, NotFoundError
from agent.images import platforms
from agent.images.types import Platform
from netplugins.linux.uapi import MS_BIND

NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
"""The build argument that keeps cache mounts apart from those of other builds."""
SCRIPTS = "/run/pipes"
"""The path of a heredoc that names its own interpreter."""


class RunSteps:
    """The RUN steps of *job*."""

    def __init__(self, job: BuildContext, copying: Copying) -> None:
        self.job, self._copying = job, copying

    def refusal(self, step: Run, platform: Platform) -> str:
        """Why *step* is not run in a stage for *platform*, as far as that is known before; "" if it is."""
        options, inputs = self.job.options, self.job.inputs
        if not platforms.is_run(platform):
            return (
                f"RUN for {platforms.text_of(platform)}: this node runs linux/{platforms.architecture()}, and no emulator for "
                f"{platform.architecture} is registered with its kernel (`apt-get install qemu-user-static`)"
            )
        if step.network == "host" and options.network != "host" and "network.host" not in options.entitlements:
            return "network.host is not allowed: build with --network host, or allow network.host"
        if step.security == "insecure" and not options.privileged and "security.insecure" not in options.entitlements:
            return "security.insecure is not allowed: the build has to be privileged, or allow security.insecure"
        for mount in step.mounts:
            is_known = "$" not in mount.id + mount.target
            if mount.kind == "secret" and mount.required and is_known and mount.name not in inputs.secrets:
                return f"secret {quoted(mount.name)}: not found"
            if mount.kind == "ssh" and mount.required and "$" not in mount.id and mount.name not in inputs.agents:
                return f"ssh: no agent {quoted(mount.name)} came with the build, and this mount is required"
        return ""

    async def run(self, number: int, state: State, step: Run, say: Channel) -> State:
        """The state of stage *number* after *step*. Raises AgentError, WordError."""
        job = self.job
        expand = job.expansion(state)
        asked = [_expanded(m, expand) for m in step.mounts]
        arguments = {k: v for k, v in state.arguments.items() if k not in PREDEFINED}
        words, script = self._words(state, step)
        environment = config.environment(state.document)
        whence = [await self._whence(number, m) for m in asked]
        user = state.document["config"].get("User") or ""
        key = key_of(
            "run",
            state.key,
            words,
            script,
            environment,
            arguments,
            user,
            config.workdir(state.document),
            [msgspec.to_builtins(m) for m in asked],
            [content for _, content in whence],
            step.network,
            step.security,
            job.options.extra_hosts if step.network == "default" else (),
            *([job.running.limits.hostname] if job.running.limits.hostname else []),
        )
        by = f"RUN {_arguments(arguments)}{' '.join(words)}"

        async def make() -> str:
            return await self._made(state, step, asked, [origin for origin, _ in whence], words, script, say)

        return await job.layer(number, state, key, by, make, say)

    def _words(self, state: State, step: Run) -> tuple[list[str], str]:
        """The command line, and the text of the script that it runs, "" for none."""
        if not step.at.heredocs or not step.command.shell:
            return config.command(state.document, step.command), ""
        line, docs = step.command.words[0], step.at.heredocs
        if len(docs) == 1 and re.fullmatch(r"<<-?\S+", line.strip()):
            if docs[0].content.startswith("#!"):
                return [f"{SCRIPTS}/{docs[0].name}"], docs[0].plain
            return [*config.shell(state.document), docs[0].plain], ""
        whole = line + "".join(f"\n{doc.content}{doc.name}" for doc in docs)
        return [*config.shell(state.document), whole], ""

    # --- mounts ------------------------------------------------------------------------------------------------

    async def _whence(self, number: int, mount: RunMount) -> tuple[Any, str]:
        """The origin of the files of a mount, and a key for their content as far as the step depends on it."""
        if mount.kind == "cache":
            return (await self.job.origin(number, mount.origin) if mount.origin else None), ""
        if mount.kind != "bind":
            return None, ""
        origin, cache = await self.job.origin(number, mount.origin), self.job.builder.cache
        look = key_of("bound", origin.key, mount.source) if isinstance(origin, State) else ""
        if look and (known := cache.known(look)):
            return origin, known
        found, where = await self._bound(origin, mount.source)
        content = digest(found.listing, [Pick(where, "/", False)], owners=found.owners)
        if look:
            cache.remember(look, content)
        return origin, content

    async def _bound(self, origin: Origin | State, source: str) -> tuple[Origin, str]:
        """*origin* as a folder, and the path in it that *source* leads to. Raises BadRequestError."""
        found = await self.job.inputs.looked_into(origin, [source or "/"])
        where = found.listing.resolve(source)
        if where is None or (where and found.ignored and found.ignored.ignores(where)):
            raise BadRequestError(f"--mount source {quoted(source)}: there is no such file or folder")
        return found, where

    async def _made(
        self,
        state: State,
        step: Run,
        asked: list[RunMount],
        whence: list[Any],
        words: list[str],
        script: str,
        say: Channel,
    ) -> str:
        job = self.job
        if not state.layers:
            raise BadRequestError(f"there is nothing to run {quoted(words[0])} in: the stage has no files yet")
        folder = job.folder / f"run-{secrets.token_hex(8)}"
        folder.mkdir()
        workdir = config.workdir(state.document)
        values = {k: v for k, v in job.options.args.items() if k in PREDEFINED}
        command = Command(
            words=words,
            environment={**values, **state.arguments, **config.environment(state.document)},
            user=state.document["config"].get("User") or "",
            workdir=workdir,
            network=step.network,
            insecure=step.security == "insecure",
        )
        async with contextlib.AsyncExitStack() as held:
            held.callback(files.remove_tree, folder)
            held.callback(_unmount, folder)
            found: list[Mount] = []
            for place, (mount, origin) in enumerate(zip(asked, whence, strict=True)):
                made = await self._mount(mount, origin, folder / str(place), workdir, command, held)
                found += [made] if made else []
            if script:
                path = folder / "script"
                path.write_text(script)
                path.chmod(0o755)
                found.append(Mount(kind="bind", target=words[0], source=str(path), read_only=True))
            command.mounts = tuple(found)
            async with job.running.slot(step.network) as slot:
                say.running(slot.record.short)
                made_layer = await job.running.run(slot, state.layers, command, say)
                say.removed(slot.record.short)
            return made_layer

    async def _mount(
        self, mount: RunMount, origin: Any, folder: Path, workdir: str, command: Command, held: contextlib.AsyncExitStack
    ) -> Mount | None:
        target = posixpath.normpath(posixpath.join(workdir, mount.target)) if mount.target else ""
        match mount.kind:
            case "bind":
                return self._bind(mount, await self._bound(origin, mount.source), folder, target)
            case "cache":
                return await self._cache(mount, origin, folder, target, held)
            case "tmpfs":
                return Mount(kind="tmpfs", target=target, size=parse_size(mount.size, least=0) if mount.size else 0)
            case "secret":
                await self._secret(mount, target, command)
            case "ssh":
                return await self._agent(mount, folder, target, command, held)
        return None

    @staticmethod
    def _bind(mount: RunMount, found: tuple[Origin, str], folder: Path, target: str) -> Mount:
        root, where = found[0].root, found[1]
        if mount.read_only is False:  # files written there are lost
            own = fresh(folder)
            point = folder / "point"
            point.mkdir()
            if mounts.is_mounted(root):
                lower = folder / "lower"
                lower.mkdir()
                mounts.mount(str(root), lower, "none", MS_BIND)
                root = lower
            mounts.overlay(point, [root], own)
            root = point
        return Mount(
            kind="bind",
            target=target,
            source=str(files.resolve_in_root(root, where or ".")),
            read_only=mount.read_only is not False,
        )

    async def _cache(self, mount: RunMount, origin: Any, folder: Path, target: str, held: contextlib.AsyncExitStack) -> Mount:
        caches = self.job.builder.cache_mounts
        ident = "/".join(filter(None, (self.job.options.args.get(NAMESPACE), mount.id or target)))
        if mount.sharing == "locked":
            await held.enter_async_context(caches.lock(ident))
        place, new = caches.place(ident, private=mount.sharing == "private")
        caches.used[place.parent] += 1
        held.callback(caches.used.subtract, {place.parent: 1})
        if new:
            if origin is not None:
                await self._copying.filled(place, origin, mount.source)
            await asyncio.to_thread(os.chown, place, _number(mount.uid, 0), _number(mount.gid, 0))
            place.chmod(int(mount.mode or "755", 8))
        source = place
        if mount.source and origin is None:
            files.make_in_root(place, mount.source, directory=True)
            source = files.resolve_in_root(place, mount.source)
        return Mount(kind="bind", target=target, source=str(source), read_only=bool(mount.read_only))

    async def _agent(
        self, mount: RunMount, folder: Path, target: str, command: Command, held: contextlib.AsyncExitStack
    ) -> Mount | None:
        """A socket that leads to the client's SSH agent."""
        inputs = self.job.inputs
        if mount.name not in inputs.agents and not await inputs.client.has_agent(mount.name):
            if mount.required:
                raise NotFoundError(f"ssh: no agent {quoted(mount.name)} came with the build, and this mount is required")
            return None
        folder.mkdir()
        place = folder / "agent"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(folder, os.O_PATH)
        try:
            listening.bind(f"/proc/self/fd/{directory}/agent")  # a socket's path is 107 bytes long at most
        finally:
            os.close(directory)
        os.chown(place, _number(mount.uid, 0), _number(mount.gid, 0))
        place.chmod(int(mount.mode or "600", 8))

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await inputs.client.forward(mount.name, reader, writer)

        server = await asyncio.start_unix_server(answer, sock=listening)
        held.callback(server.close)
        target = target or f"/run/buildkit/ssh_agent.{folder.name}"
        command.environment = {**command.environment, "SSH_AUTH_SOCK": target}
        return Mount(kind="bind", target=target, source=str(place))

    async def _secret(self, mount: RunMount, target: str, command: Command) -> None:
        ident = mount.name
        data = await self.job.inputs.secret(ident)
        if data is None:
            if mount.required:
                raise NotFoundError(f"secret {quoted(ident)}: not found")
            return
        if mount.env:
            command.environment = {**command.environment, mount.env: data.decode(errors="surrogateescape")}
        if target or not mount.env:
            place = target or f"/run/secrets/{ident}"
            entry = (place, data, int(mount.mode or "400", 8), _number(mount.uid, 0), _number(mount.gid, 0))
            command.secrets = (*command.secrets, entry)


def _unmount(folder: Path) -> None:
    for point in mounts.below(folder):
        mounts.unmount(point)


def _number(text: str, default: int) -> int:
    return int(text) if text else default


def _arguments(values: dict[str, str]) -> str:
    """The arguments in the form that the history of Docker's images has."""
    return f"|{len(values)} {' '.join(f'{k}={v}' for k, v in sorted(values.items()))} " if values else ""


def _expanded(mount: RunMount, expand: Expansion) -> RunMount:
    """*mount* with its variables expanded. Raises BadRequestError for values that are not valid."""
    names = ("target", "source", "id", "mode", "uid", "gid", "size", "env")
    made = msgspec.structs.replace(mount, **{name: expand.word(getattr(mount, name)) for name in names})
    if made.mode and not re.fullmatch(r"0?[0-7]{1,4}", made.mode):
        raise BadRequestError(f"--mount mode={quoted(made.mode)}: an octal number")
    for name in ("uid", "gid"):
        if (text := getattr(made, name)) and not re.fullmatch(r"[0-9]{1,9}", text):
            raise BadRequestError(f"--mount {name}={quoted(text)}: a number")
    if made.size:
        try:
            parse_size(made.size, least=0)
        except ValueError as error:
            raise BadRequestError(f"--mount size={quoted(made.size)}: {error}") from None
    if made.kind == "secret" and not made.name:
        raise BadRequestError("--mount=type=secret needs an id, a target or env")
    return made
