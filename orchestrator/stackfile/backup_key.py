"""`x-backup` of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.contract.backup import KEEP
from orchestrator.stackfile.field_readers import Fields, ServiceContext, command_line, flag, integer, read_hook, scalar
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import Service, StackContent, StackVolume
from orchestrator.stackfile.workload_keys import check_times
from orchestrator.stackfile.workloads import JOBS, Backup, BackupCommand, Schedule

NEVER = "never"
USUAL = (("daily", 7), ("weekly", 4), ("monthly", 12))
PLACES = ("/", "sftp:", "s3:", "rclone:", "rest:", "b2:", "azure:", "gs:", "swift:")
"""How a place begins. Source: restic's documentation, Preparing a new repository."""


def x_backup(reading: LoadContext, value: Any, path: Path_) -> Backup | None:
    """Read volumes.*.x-backup; None, and a problem, where it cannot be carried out."""
    body = reading.mapping(value, path)
    if not reading.is_valid(path):
        return None
    draft = ServiceContext(reading, str(path[1]), {})
    place = scalar(body.get("to"))
    if not place.startswith(PLACES):
        reading.problem((*path, "to"), f"{place!r} is not a place of a repository", "write /FOLDER, sftp:…, s3:… or rclone:…")
    for needed in (
        ("ssh_key", "known_hosts") if place.startswith("sftp:") else ("rclone",) if place.startswith("rclone:") else ()
    ):
        if needed not in body:
            reading.check(
                path, f"a repository at {place.partition(':')[0]}: needs the key {needed}", f"{needed}: the key of a secret"
            )
    history = integer("history", 1, 1000)(draft, body["history"], (*path, "history")) if "history" in body else {}
    keep: dict[str, int] = {}
    for rule, number in reading.mapping(body.get("keep"), (*path, "keep")).items():
        keep |= integer(rule, 1)(draft, number, (*path, "keep", rule))
    return Backup(
        place=place,
        **{name: scalar(body.get(name)) for name in ("password", "credentials", "ssh_key", "known_hosts", "rclone")},
        schedule=_times(reading, body, path, "cron", "@daily", history),
        verify=_times(reading, body, path, "verify", "@monthly", history),
        keep=tuple((rule, keep[rule]) for rule in KEEP if rule in keep) or USUAL,
        before=_command(draft, body.get("before"), (*path, "before")),
        after=_command(draft, body.get("after"), (*path, "after")),
        pause=flag(body.get("pause")),
        where=str(reading.mark(path)),
    )


def _times(reading: LoadContext, body: dict[str, Any], path: Path_, key: str, usual: str, history: Fields) -> Schedule | None:
    line, zone = " ".join(scalar(body.get(key, usual)).split()), scalar(body.get("timezone", "UTC"))
    if line == NEVER:
        return None
    check_times(reading, line, zone, (*path, key), (*path, "timezone"))
    return Schedule(cron=line, timezone=zone, **history)


def _command(draft: ServiceContext, value: Any, path: Path_) -> BackupCommand | None:
    if value is None:
        return None
    words = command_line("command")(draft, value.get("command"), (*path, "command")).get("command")
    if not words:
        draft.problem(path, "needs a command", f"{path[-1]}: {{service: db, command: ./program}}")
        return None
    return BackupCommand(service=scalar(value.get("service")), hook=read_hook(draft, value, words))


def check_backups(
    reading: LoadContext, services: Sequence[Service], volumes: Sequence[StackVolume], contents: Sequence[StackContent]
) -> None:
    """What backups name is there, and their volumes lie in one place."""
    secrets = {c.key for c in contents if c.kind == "secret"}
    for volume in volumes:
        if volume.backup is None:
            continue
        path: Path_ = ("volumes", volume.key, "x-backup")
        body = reading.tree.value["volumes"][volume.key]["x-backup"]
        users = [s for s in services if any(m.kind == "volume" and m.source == volume.name for m in s.container.mounts)]
        if volume.external:
            reading.check(path, "is for volumes of this stack: an external one is another's", "say it where it is made")
        if every := [s.name for s in users if s.mode in ("global", "global-job") and not volume.shared]:
            reading.check(path, f"service {every[0]} has one such volume on each node", "give it a shared driver")
        for name in ("password", "credentials", "ssh_key", "known_hosts", "rclone"):
            if name in body and scalar(body[name]) not in secrets:
                known = ", ".join(sorted(secrets)) or "none"
                reading.check(
                    (*path, name), f"there is no secret {scalar(body[name])!r}", f"declare it under secrets:; there is: {known}"
                )
        for name, command in (("before", volume.backup.before), ("after", volume.backup.after)):
            if command:
                _check_service(reading, command, (*path, name), services, users)


def _check_service(
    reading: LoadContext, command: BackupCommand, path: Path_, services: Sequence[Service], users: Sequence[Service]
) -> None:
    named = [s for s in services if s.name == command.service] if command.service else users
    if not named and command.service:
        reading.check((*path, "service"), f"service {command.service!r} is not in the file", "name one of them")
    elif len(named) != 1:
        reading.check(path, f"{len(named)} services mount it", "name the service in which the command runs")
    elif named[0].mode in JOBS or named[0].schedule:
        reading.check(path, f"service {named[0].name} does not run all the time", "name one that does")
