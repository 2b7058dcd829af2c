"""Runs of a service for trial: a container like its own, beside its tasks, on fresh volumes, that is removed afterwards."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agent.contract.container import Container
from agent.contract.frames import FrameDecoder
from agent.contract.task import Task
from orchestrator.errors import PystackError, RefusedError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.options import StackOptions
    from orchestrator.cli.output import Progress
    from orchestrator.stackfile.load import Loaded
    from orchestrator.stackfile.model import Service

EVERY_S = 0.2
GO_DIRECTORY = 1 << 31
"""os.ModeDir, the bit of a folder in the modes of Docker's API."""


class Running(msgspec.Struct, frozen=True):
    """A container that runs for trial: its ID at the client of its node."""

    at: Any
    ident: str

    def get(self, what: str) -> Any:
        """The node's answer about *what* of it."""
        return self.at.engine("GET", f"/containers/{self.ident}/{what}")

    def observed(self) -> Any:
        """The system calls that were seen, and the profile of them."""
        return self.at.engine("GET", f"/pystack/containers/{self.ident}/observed")

    def entries(self, path: str) -> Iterator[str]:
        """The paths of all that lies below the folder *path* of it. Raises PystackError."""
        from agent.trees.bounds import Bounds
        from agent.trees.errors import TreeError
        from agent.trees.tar_reader import TarReader

        reply = self.at.request("GET", f"{self.at.base}/containers/{self.ident}/archive", query={"path": path})
        try:
            for member in TarReader(reply, "archive of the container", Bounds()).entries():
                if below := member.name.partition("/")[2].rstrip("/"):
                    yield f"{path}/{below}"
        except TreeError as error:
            raise PystackError(str(error)) from error

    def is_directory(self, path: str) -> bool:
        """Whether *path* of it is a folder."""
        reply = self.at.request("HEAD", f"{self.at.base}/containers/{self.ident}/archive", query={"path": path})
        mode = json.loads(base64.b64decode(reply.getheader("X-Docker-Container-Path-Stat")))["mode"]
        return bool(mode & GO_DIRECTORY)

    def run(self, command: str, within_s: float) -> bool:
        """Whether *command* ends with 0 in there."""
        body = {"Cmd": ["/bin/sh", "-c", command], "AttachStdout": False, "AttachStderr": False}
        ident = self.at.engine("POST", f"/containers/{self.ident}/exec", body=body)["Id"]
        self.at.engine("POST", f"/exec/{ident}/start", body={"Detach": True, "Tty": False})
        end = time.monotonic() + within_s
        while (seen := self.at.engine("GET", f"/exec/{ident}/json"))["Running"] and time.monotonic() < end:
            time.sleep(EVERY_S)
        return not seen["Running"] and seen["ExitCode"] == 0

    def last_words(self) -> str:
        """The last two lines of its output, as one."""
        query = {"stdout": 1, "stderr": 1, "tail": 5}
        raw = self.at.request("GET", f"{self.at.base}/containers/{self.ident}/logs", query=query).read()
        text = b"".join(payload for _, payload in FrameDecoder().feed(raw)).decode(errors="replace")
        return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-2:])

    def outcome(self, test: str, for_s: float, within_s: float) -> str:
        """Why the service does not do its work, "" if it does: *test* passes, or it is healthy, or it runs for *for_s*, or has
        ended with 0."""
        begun = time.monotonic()
        while True:
            state = self.get("json")["State"]
            if state["Status"] not in ("running", "created"):
                if state["ExitCode"] == 0 and not test and not state["Error"]:
                    return ""
                return state["Error"] or f"it ended with {state['ExitCode']}: {self.last_words()}"
            health = (state.get("Health") or {}).get("Status", "none")
            spent = time.monotonic() - begun
            if test:
                with contextlib.suppress(RefusedError):  # it may end meanwhile
                    if self.run(test, max(1.0, within_s - spent)):
                        return ""
            elif health == "healthy" or (health in ("", "none") and spent > for_s):
                return ""
            elif health == "unhealthy":
                return "it is unhealthy"
            if spent > within_s:
                return f"{'the test does not pass' if test else 'it is not healthy'} after {within_s:.0f} s"
            time.sleep(EVERY_S)


class Trials:
    """Trial runs of one service of a stack, whose image, networks and needed services are there."""

    def __init__(self, options: StackOptions, service: str, publish: Sequence[str] = ()) -> None:
        """Bring up what *service* depends on, and its image and networks. Raises PystackError."""
        from orchestrator.cli.client import Client
        from orchestrator.cli.output import Progress
        from orchestrator.cli.project_files import with_project_labels
        from orchestrator.cli.run import one_off, prepare

        loaded = options.load(named=(service,))
        self.loaded: Loaded = msgspec.structs.replace(loaded, stack=with_project_labels(loaded))
        wanted = next((s for s in self.loaded.stack.services if s.name == service), None)
        if wanted is None:
            names = ", ".join(s.name for s in loaded.stack.services)
            raise PystackError(f"stack {loaded.stack.name} has no service {service}; there is: {names}")
        self.service: Service = wanted
        self.client: Client = Client(start=True)
        shown: Progress = Progress("quiet")
        prepare(self.client, self.loaded, shown, service, tuple(d.service for d in wanted.depends_on), pull=None)
        nothing: dict[str, Any] = {"user": "", "workdir": "", "entrypoint": None, "use_aliases": False, "service_ports": False}
        nothing |= dict.fromkeys(("env_from_file", "env", "volume", "label", "cap_add", "cap_drop"), ()) | {"publish": publish}
        made = one_off(wanted, (), self.loaded.environment, tty=False, stdin=False, **nothing)
        fresh = (msgspec.structs.replace(m, source="") if m.kind == "volume" else m for m in made.mounts)
        self.container = msgspec.structs.replace(made, mounts=tuple(fresh), stop_grace_s=min(made.stop_grace_s, 10.0))
        """As its file has it, with fresh volumes."""

    @contextlib.contextmanager
    def running(self, container: Container) -> Iterator[Running]:
        """*container*, started; it is gone afterwards. Raises RefusedError where it cannot be started."""
        stack = self.loaded.stack.name
        name = f"{stack}-{self.service.name}-trial-{os.urandom(6).hex()}"
        route = f"/v1/stacks/{stack}/oneoff"
        requested = {"name": name, "service": self.service.name, "container": msgspec.to_builtins(container)}
        task = msgspec.convert(self.client.json("POST", route, body=requested), Task)
        at = self.client.at(task.node)
        try:
            query = {"name": name, "stack": stack, "service": self.service.name, "auto_remove": 0}
            ident = at.engine("POST", "/pystack/containers", query=query, body=msgspec.json.encode(task.container))["Id"]
            try:
                at.engine("POST", f"/containers/{ident}/start")
                yield Running(at, ident)
            finally:
                with contextlib.suppress(RefusedError):
                    at.engine("DELETE", f"/containers/{ident}", query={"force": 1, "v": 1})
        finally:
            self.client.json("DELETE", f"{route}/{name}")

    def outcome(self, container: Container, test: str, for_s: float, within_s: float) -> str:
        """Why the service does not do its work as *container*, "" if it does."""
        try:
            with self.running(container) as running:
                return running.outcome(test, for_s, within_s)
        except RefusedError as error:
            return str(error)
