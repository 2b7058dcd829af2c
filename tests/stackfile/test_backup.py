"""`x-backup`: what is read, and what is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.problem import StackFileError
from orchestrator.stackfile.workloads import Backup, Schedule

FILE = """services:
  db: {image: i, volumes: ["data:/d"]%s}
  other: {image: i, volumes: ["data:/d"]}
volumes:
  data:
    x-backup: %s
secrets:
  pw: {environment: PW}
  key: {environment: PW}
"""


def read(folder: Path, value: str, more: str = "") -> Backup | None:
    path = folder / "stack.yml"
    path.write_text(FILE % (more, value))
    return load(Options(files=(str(path),)), {"PW": "x"}).stack.volumes[0].backup


def test_what_is_not_said_is_each_day_and_tried_each_month(tmp_path: Path) -> None:
    found = read(tmp_path, "{to: /srv, password: pw}")
    assert found
    assert (found.schedule, found.verify) == (Schedule(cron="@daily"), Schedule(cron="@monthly"))
    assert found.keep == (("daily", 7), ("weekly", 4), ("monthly", 12))
    assert found.secrets == ("pw",)


def test_its_secrets_come_along_and_never_is_never(tmp_path: Path) -> None:
    path = tmp_path / "stack.yml"
    path.write_text(
        FILE % ("", "{to: 'sftp:a@b:/c', password: pw, ssh_key: key, known_hosts: key, cron: never, verify: never}")
    )
    stack = load(Options(files=(str(path),)), {"PW": "x"}).stack
    backup = stack.volumes[0].backup
    assert backup
    assert (backup.schedule, backup.verify) == (None, None)
    assert {c.key: c.content for c in stack.contents} == {"pw": b"x", "key": b"x"}


@pytest.mark.parametrize(
    ("value", "place", "why"),
    [
        ("{to: srv, password: pw}", "6:16: volumes.data.x-backup.to", "not a place of a repository"),
        ("{to: /srv}", "6:5: volumes.data.x-backup", "password"),
        ("{to: /srv, password: no}", "6:26: volumes.data.x-backup.password", "there is no secret 'no'"),
        (
            "{to: /srv, password: pw, cron: 0 0 31 2 *}",
            "6:40: volumes.data.x-backup.cron",
            "never fires: its months have no such day",
        ),
        ("{to: /srv, password: pw, cron: daily}", "6:40: volumes.data.x-backup.cron", "is not a cron line"),
        ("{to: /srv, password: pw, timezone: Mars}", "6:40: volumes.data.x-backup.timezone", "no time zone"),
        ("{to: /srv, password: pw, keep: {daily: 0}}", "6:47: volumes.data.x-backup.keep.daily", "whole number"),
        ("{to: 'sftp:a@b:/c', password: pw}", "6:5: volumes.data.x-backup", "sftp: needs the key ssh_key"),
        ("{to: 'rclone:a:/c', password: pw}", "6:5: volumes.data.x-backup", "rclone: needs the key rclone"),
        ("{to: /srv, password: pw, before: {command: x}}", "6:40: volumes.data.x-backup.before", "2 services mount it"),
        (
            "{to: /srv, password: pw, before: {service: no, command: x}}",
            "6:49: volumes.data.x-backup.before.service",
            "service 'no' is not in the file",
        ),
    ],
)
def test_what_cannot_be_is_told_with_its_place(tmp_path: Path, value: str, place: str, why: str) -> None:
    with pytest.raises(StackFileError) as error:
        read(tmp_path, value)
    assert f"stack.yml:{place}" in str(error.value)
    assert why in str(error.value)


def test_a_volume_on_each_node_has_no_backup(tmp_path: Path) -> None:
    with pytest.raises(StackFileError) as error:
        read(tmp_path, "{to: /srv, password: pw}", ", deploy: {mode: global}")
    assert "stack.yml:6:5: volumes.data.x-backup: service db has one such volume on each node" in str(error.value)
