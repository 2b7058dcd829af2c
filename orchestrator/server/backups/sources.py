"""What a backup is made of: the volume, its node, the repository and what opens it, the tasks that use it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.contract.backup import BackupOrder, BackupReport, BackupVerb, Repository
from agent.contract.task import Task
from agent.contract.volume import Volume
from orchestrator.errors import RefusedError
from orchestrator.server.contents import Contents
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.jobs.book import Owner
from orchestrator.stackfile.model import StackVolume
from orchestrator.stackfile.workloads import Backup, BackupCommand

KINDS = ("backup", "verify")


def owner(stack: str, key: str, kind: str) -> Owner:
    """Under what name runs for the volume *key* of *stack* are kept: no service is called so."""
    return stack, f"{key}@{kind}"


class BackupSources:
    """Reads what there is; writes nothing."""

    def __init__(self, dispatcher: Dispatcher, contents: Contents) -> None:
        self._dispatcher, self._state, self._cluster = dispatcher, dispatcher.state, dispatcher.cluster
        self._contents = contents

    def declared(self) -> list[tuple[str, StackVolume, Backup]]:
        """(stack, volume, its backup) for each that says one."""
        return [
            (name, volume, volume.backup)
            for name, record in sorted(self._state.stacks.items())
            for volume in record.stack.volumes
            if volume.backup and not volume.external
        ]

    def of(self, volume: Volume) -> Backup:
        """What the stack file says of the backup of *volume*. Raises RefusedError (409) where it says nothing."""
        for stack, declared, backup in self.declared():
            if (stack, declared.key) == (volume.stack, volume.key):
                return backup
        raise RefusedError(f"volume {volume.name} has no x-backup: the stack file says where its backups go", 409)

    def volumes(self, stack: str, key: str) -> list[Volume]:
        """The volumes that *key* of *stack* stands for: one, or one for each replica of a stable service."""
        return sorted(
            (v for v in self._state.volumes.values() if (v.stack, v.key) == (stack, key)), key=lambda v: (len(v.name), v.name)
        )

    def users(self, volume: Volume) -> list[Task]:
        """The tasks that mount *volume*."""
        return [t for t in self._state.tasks.values() if uses(t, volume)]

    def node(self, volume: Volume) -> str:
        """The node on which the content of *volume* can be read. Raises RefusedError (409)."""
        if volume.shared and not volume.node:
            nodes = [t.node for t in self.users(volume) if t.node in self._cluster.ready and self.container(t)]
            if not nodes:
                raise RefusedError(f"volume {volume.name} is mounted nowhere now: a task that uses it must run", 409)
            return min(nodes)
        if not volume.node:
            raise RefusedError(f"volume {volume.name} is on no node yet", 409)
        return volume.node

    def container(self, task: Task) -> str:
        """The ID of the container of *task* if that runs, or is paused; "" otherwise."""
        status = self._dispatcher.statuses.by_task.get(task.name)
        return status.container if status and status.state in ("running", "paused") else ""

    def repository(self, volume: Volume) -> Repository:
        """The repository of *volume*, with what opens it. Raises RefusedError."""
        backup, stack = self.of(volume), self._state.get_stack(volume.stack).stack
        digests = {c.key: c.digest for c in stack.contents if c.kind == "secret"}

        def secret(key: str) -> bytes:
            if not key:
                return b""
            found = self._contents.read_digest(digests.get(key, ""))
            if found is None:
                raise RefusedError(f"{backup.where}: secret {key!r} is not there", 409)
            return found

        return Repository(
            place=backup.place,
            password=secret(backup.password),
            credentials=secret(backup.credentials),
            ssh_key=secret(backup.ssh_key),
            known_hosts=secret(backup.known_hosts),
            rclone=secret(backup.rclone),
        )

    async def execute(self, volume: Volume, command: BackupCommand) -> tuple[int, list[str]]:
        """Run *command* in a running task of its service, of the volume's own node if there is one. Returns its exit code, and
        what it said. Raises RefusedError, UnreachableError."""
        service = command.service or next((t.service for t in self.users(volume)), "")
        tasks = [
            t
            for t in self._state.of_stack(volume.stack).tasks
            if t.service == service and t.planned and t.node in self._cluster.ready and self.container(t)
        ]
        if not tasks:
            raise RefusedError(f"no task of service {service} runs, in which {command.hook.command[0]} could", 409)
        task = min(
            tasks, key=lambda t: (t.node != volume.node, not any(m.source == volume.name for m in t.container.mounts), t.index)
        )
        return await self._cluster.get(task.node).client.execute(self.container(task), command.hook)

    async def ask(
        self,
        node: str,
        verb: BackupVerb,
        volume: Volume,
        *,
        snapshot: str = "latest",
        into: str = "",
        paused: Sequence[str] = (),
        keep: tuple[tuple[str, int], ...] = (),
    ) -> BackupReport:
        """Have *node* do *verb* for *volume*; a restore goes *into* another one, if that is named. Raises RefusedError with the
        node's words, UnreachableError."""
        member = self._cluster.get(node)
        if not member.ready:
            raise RefusedError(f"node {node} does not answer: {member.problem}", 409)
        order = BackupOrder(
            verb=verb,
            repository=self.repository(volume),
            owner=volume.name,
            volume=into or volume.name,
            snapshot=snapshot,
            paused=tuple(paused),
            keep=keep,
        )
        found = await member.client.call("POST", "/pystack/backup", data=msgspec.json.encode(order))
        return msgspec.convert(found, BackupReport)


def uses(task: Task, volume: Volume) -> bool:
    """Whether *task* mounts *volume*."""
    return any(m.kind == "volume" and m.source == volume.name for m in task.container.mounts)
