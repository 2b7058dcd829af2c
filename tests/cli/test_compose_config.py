"""`docker-compose config` prints what scripts made for Docker Compose read: its order, its quotes, its types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from orchestrator.cli import cli

FILE = """
services:
  web:
    image: "web:${TAG:-1}"
    ports: ["127.0.0.1:8080:80"]
    cpus: "1.50"
    logging: {driver: json-file, options: {max-file: 3}}
    environment: [A=1, B=yes]
    env_file: one.env
    volumes: ["./here:/there:z", "data:/data"]
    secrets: [s, {source: s, target: t, mode: 0440}]
    expose: [80]
    deploy: {resources: {limits: {memory: 1g}}}
    depends_on: [db]
  db: {build: ./db, networks: {back: {driver_opts: {n: 1}}}}
  late: {image: late, profiles: [later]}
networks: {back: {driver_opts: {x: 2}}, spare: {}}
volumes: {data: {}, spare: {}}
secrets: {s: {file: ./s.txt}, spare: {file: ./s.txt}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "compose.yaml").write_text(FILE)
    (tmp_path / "one.env").write_text("FROM_FILE=1\n")
    (tmp_path / "s.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(*options: str, before: tuple[str, ...] = ()) -> str:
    done = CliRunner().invoke(cli, ["compose", "-p", "p", *before, "config", *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def read(*options: str, before: tuple[str, ...] = ()) -> Any:
    return yaml.safe_load(shown(*options, before=before))


def test_order_and_quotes(folder: Path) -> None:
    text = shown()
    at = [text.index(f"\n{key}:") for key in ("services", "networks", "volumes", "secrets")]
    assert text.startswith("name: p\n")
    assert at == sorted(at)
    port = [
        "    ports:",
        "      - mode: ingress",
        "        host_ip: 127.0.0.1",
        "        target: 80",
        '        published: "8080"',
        "        protocol: tcp",
    ]
    assert "\n".join(port) in text
    assert '      B: "yes"\n' in text


def test_types_of_values(folder: Path) -> None:
    document = read()
    web = document["services"]["web"]
    assert web["cpus"] == 1.5
    assert web["logging"]["options"] == {"max-file": "3"}
    assert web["environment"] == {"A": "1", "B": "yes", "FROM_FILE": "1"}
    assert web["volumes"][0]["bind"]["selinux"] == "z"
    assert web["secrets"] == [{"source": "s", "target": "/run/secrets/s"}, {"source": "s", "target": "t", "mode": "0440"}]
    assert web["expose"] == ["80"]
    assert web["deploy"]["resources"]["limits"]["memory"] == "1073741824"
    assert document["services"]["db"]["networks"]["back"]["driver_opts"] == {"n": "1"}
    assert document["networks"]["back"]["driver_opts"] == {"x": "2"}


def test_names_without_a_value_have_an_empty_one_but_for_variables(folder: Path) -> None:
    (folder / "compose.yaml").write_text(
        "services: {a: {image: x, environment: [V], labels: [l], annotations: [n], sysctls: {s: },\n"
        "  build: {context: ., labels: [b]}, deploy: {labels: [d]}}}\n"
    )
    a = read()["services"]["a"]
    assert a["environment"] == {"V": None}
    assert [a["labels"], a["annotations"], a["sysctls"]] == [{"l": ""}, {"n": ""}, {"s": ""}]
    assert [a["build"]["labels"], a["deploy"]["labels"]] == [{"b": ""}, {"d": ""}]


def test_what_no_service_uses_is_left_out_unless_all_is_asked_for(folder: Path) -> None:
    assert [*read()["networks"]] == ["back", "default"]
    assert [*read()["volumes"]] == ["data"]
    assert [*read()["secrets"]] == ["s"]
    whole = read(before=("--all-resources",))
    assert all("spare" in whole[section] for section in ("networks", "volumes", "secrets"))
    assert "late" not in read()["services"]
    assert "late" in read(before=("--profile", "later"))["services"]


def test_json_says_that_there_is_no_command(folder: Path) -> None:
    document = json.loads(shown("--format", "json"))
    assert document["services"]["db"]["command"] is None
    assert document["services"]["db"]["entrypoint"] is None
    assert document["networks"]["default"] == {"name": "p_default", "ipam": {}}


def test_services_with_what_they_need(folder: Path) -> None:
    assert [*read("web")["services"]] == ["db", "web"]
    assert [*read("db")["services"]] == ["db"]
    assert "volumes" not in read("db")
    assert [*read("late")["services"]] == ["late"]


def test_what_is_left_as_it_stands(folder: Path) -> None:
    plain = read("--no-normalize")
    assert "networks" not in plain["services"]["web"]
    assert plain["services"]["db"]["build"] == {"context": str(folder / "db")}
    assert "name" not in plain["volumes"]["data"]
    assert read("--no-path-resolution")["services"]["web"]["volumes"][0]["source"] == "./here"
    assert read("--no-path-resolution")["secrets"]["s"]["file"] == "./s.txt"
    web = read("--no-env-resolution")["services"]["web"]
    assert web["env_file"] == [{"path": str(folder / "one.env"), "required": True}]
    assert web["environment"] == {"A": "1", "B": "yes"}
    web = read("--no-interpolate")["services"]["web"]
    assert web["image"] == "web:${TAG:-1}"
    assert web["environment"] == {"A": "1", "B": "yes"}
    assert web["networks"] == {"default": None}
    assert read("--no-interpolate")["services"]["db"]["build"] == {"context": str(folder / "db"), "dockerfile": "Dockerfile"}


def test_without_the_cross_checks_the_form_is_the_same(folder: Path) -> None:
    (folder / "compose.yaml").write_text("services: {a: {image: a, networks: [nowhere], ports: ['80']}}\n")
    assert CliRunner().invoke(cli, ["compose", "config"]).exit_code != 0
    document = read("--no-consistency")
    assert document["services"]["a"]["ports"] == [{"mode": "ingress", "target": 80, "protocol": "tcp"}]
    assert document["services"]["a"]["networks"] == {"nowhere": None}


def test_what_was_printed_is_a_file_that_says_the_same(folder: Path) -> None:
    text = shown("-o", str(folder / "out.yaml"))
    assert text == ""
    again = shown(before=("-f", "out.yaml"))
    assert again == (folder / "out.yaml").read_text()


@pytest.mark.parametrize(
    ("option", "lines"),
    [
        ("--services", ["db", "web"]),
        ("--images", ["p-db", "web:1"]),
        ("--volumes", ["data"]),
        ("--networks", ["back", "default"]),
        ("--profiles", ["later"]),
        ("-q", []),
    ],
)
def test_names_one_a_line(folder: Path, option: str, lines: list[str]) -> None:
    assert sorted(shown(option).splitlines()) == lines


@pytest.mark.parametrize("verb", [("config",), ("ps",), ("down",), ("logs",)])
def test_a_name_that_is_none_is_refused_by_each_verb(
    folder: Path, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = CliRunner().invoke(cli, ["compose", "-p", "Bad!", *verb])
    assert done.exit_code == 1
    assert "-p: name 'Bad!' is not a project name" in str(done.exception) + done.output
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "Bad!")
    done = CliRunner().invoke(cli, ["compose", *verb])
    assert "COMPOSE_PROJECT_NAME: name 'Bad!' is not a project name" in str(done.exception) + done.output


def test_variables_and_hashes(folder: Path) -> None:
    assert shown("--variables").splitlines()[1].split() == ["TAG", "false", "1"]
    (line,) = shown("--hash", "web").splitlines()
    assert line.split()[0] == "web"


def test_a_file_may_come_by_the_standard_input(folder: Path) -> None:
    """Its relative paths begin at the working directory; other files may stand before and after it."""
    words = [sys.executable, "-m", "orchestrator", "compose", "-p", "p", "-f", "-", "-f", "over.yaml", "config"]
    (folder / "base.yaml").write_text("services: {db: {build: ./db}}\n")
    (folder / "over.yaml").write_text("services: {a: {labels: {x: '1'}}}\n")
    text = "services: {a: {image: '${I}', extends: {file: base.yaml, service: db}, volumes: ['./v:/v']}}"
    done = subprocess.run(
        words, input=text, capture_output=True, text=True, check=True, cwd=folder, env={**os.environ, "I": "i"}
    )
    service = yaml.safe_load(done.stdout)["services"]["a"]
    assert (service["image"], service["labels"]) == ("i", {"x": "1"})
    assert service["volumes"][0]["source"] == str(folder / "v")
    assert service["build"]["context"] == str(folder / "db")
    wrong = subprocess.run(words, input="services: {a: {imag: x}}", capture_output=True, text=True, check=False, cwd=folder)
    assert wrong.returncode == 1
    assert "pystack: -:1:" in wrong.stderr


def test_who_is_named_brings_its_profiles(folder: Path) -> None:
    (folder / "compose.yaml").write_text(
        "services:\n  a: {image: a, profiles: [p], depends_on: [b]}\n"
        "  b: {image: b, profiles: [p, q]}\n  c: {image: c, profiles: [q]}\n"
    )
    assert [*read("a")["services"]] == ["a", "b"]
    assert read("c")["services"].keys() == {"c"}
    assert "services" not in read() or not read()["services"]


def test_an_override_of_another_usual_name(folder: Path) -> None:
    (folder / "compose.yaml").rename(folder / "docker-compose.yml")
    (folder / "compose.override.yaml").write_text("services: {db: {labels: {over: '1'}}}\n")
    assert read()["services"]["db"]["labels"] == {"over": "1"}
