"""`pystack check` tells of each file what will differ: a row a finding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli

COMPOSE = """services:
  web:
    image: nginx
    ports: ["80:80"]
    isolation: hyperv
    external_links: [old]
    deploy: {endpoint_mode: vip}
  tools:
    image: busybox
    profiles: [x]
    credential_spec: {file: a.json}
"""
MANIFESTS = """apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: robot
      containers:
      - {name: web, image: nginx, ports: [{containerPort: 80}]}
"""


def checked(path: Path, text: str, *options: str) -> tuple[int, list[tuple[str, str, str]]]:
    (path / "their.yml").write_text(text)
    done = CliRunner().invoke(cli, ["check", "--format", "json", *options, str(path / "their.yml")], catch_exceptions=False)
    rows = json.loads(done.stdout)
    assert all(row["why"] for row in rows)
    return done.exit_code, [(row["where"].rpartition("their.yml")[2], row["what"], row["here"]) for row in rows]


def test_a_compose_file(tmp_path: Path) -> None:
    code, rows = checked(tmp_path, COMPOSE)
    assert code == 0
    assert (":6:5", "services.web.external_links", "no effect") in rows
    assert (":7:14", "services.web.deploy.endpoint_mode", "differs") in rows
    assert (":11:5", "services.tools.credential_spec", "no effect") in rows  # a profile keeps nothing from being told
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), key=lambda w: [int(n) for n in w[1:].split(":")])
    assert checked(tmp_path, COMPOSE, "--strict")[0] == 1


def test_what_keeps_a_service_from_starting(tmp_path: Path) -> None:
    code, rows = checked(tmp_path, "services: {a: {image: i, storage_opt: {size: 1g, dm.fs: xfs}}}")
    assert code == 1
    assert (":1:26", "services.a", "not started") in rows
    code, rows = checked(tmp_path, "services: {a: {image: i, storage_opt: {size: 1g}}}")
    assert code == 0
    assert [row[2] for row in rows] == ["differs"]


def test_what_is_refused_does_not_hide_the_rest(tmp_path: Path) -> None:
    code, rows = checked(tmp_path, COMPOSE + "  bad:\n    image: a\n    comand: x\n    depends_on: [nobody]\n")
    assert code == 1
    assert {row[1:] for row in rows} >= {
        ("services.bad.comand", "refused"),
        ("services.bad.depends_on.nobody", "refused"),
        ("services.web.external_links", "no effect"),
        ("services.web.deploy.endpoint_mode", "differs"),
    }


def test_kubernetes_manifests(tmp_path: Path) -> None:
    code, rows = checked(tmp_path, MANIFESTS)
    assert code == 0
    assert ("", "Deployment web", "no effect") in rows  # its service account


@pytest.mark.parametrize("text", ["services: [", "- 1\n", ""])
def test_what_is_no_stack_is_one_row_or_one_error(tmp_path: Path, text: str) -> None:
    code, rows = checked(tmp_path, text)
    assert code == 1
    assert {here for *_, here in rows} == {"refused"}


def test_a_file_in_which_nothing_differs_says_so(tmp_path: Path) -> None:
    (tmp_path / "their.yml").write_text("services: {a: {image: busybox}}\n")
    done = CliRunner().invoke(cli, ["check", str(tmp_path / "their.yml")])
    assert (done.exit_code, done.stdout) == (0, "nothing differs\n")
