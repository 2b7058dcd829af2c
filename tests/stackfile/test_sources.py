"""`extends`, `include`, `!reset` and `!override`: several files become one, and errors keep their places."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.stackfile.load import Loaded, Options, load
from orchestrator.stackfile.problem import StackFileError


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def loaded(folder: Path, *names: str, environment: dict[str, str] | None = None) -> Loaded:
    return load(Options(files=tuple(str(folder / f"{n}.yml") for n in names), project_name="p"), environment or {})


def problems(folder: Path, *names: str) -> str:
    with pytest.raises(StackFileError) as caught:
        loaded(folder, *names)
    return str(caught.value)


def test_a_service_extends_one_of_another_folder(tmp_path: Path) -> None:
    """Lists append, scalars are replaced, and relative paths stay those of their file."""
    write(
        tmp_path,
        stack="""
services:
  web:
    extends: {file: common/base.yml, service: app}
    environment: {LEVEL: debug}
    ports: ["8080:80"]
""",
        common__base="""
services:
  app:
    extends: ground
    build: ./src
    environment: [LEVEL=info, KIND=app]
    volumes: ["./conf:/etc/conf"]
    ports: ["8443:443"]
  ground: {image: ground, init: true}
  other: {image: "${NOT_SET:?never asked}"}
""",
    )
    [web] = loaded(tmp_path, "stack").stack.services
    assert web.name == "web"
    assert web.container.image == "ground"
    assert web.container.init
    assert dict(web.container.environment) == {"LEVEL": "debug", "KIND": "app"}
    assert {p.published for p in web.container.ports} == {8080, 8443}
    assert web.container.mounts[0].source == str(tmp_path / "common/conf")
    assert web.build is not None
    assert web.build.context == str(tmp_path / "common/src")


def test_services_that_extend_each_other_are_told(tmp_path: Path) -> None:
    write(tmp_path, stack="services:\n  a: {extends: b, image: x}\n  b: {extends: a}\n")
    assert "extend each other" in problems(tmp_path, "stack")
    write(
        tmp_path,
        stack="services: {a: {extends: {file: other.yml, service: b}}}",
        other="services: {b: {extends: {file: stack.yml, service: a}}}",
    )
    assert "extend each other" in problems(tmp_path, "stack")


def test_an_error_in_a_base_has_the_bases_place(tmp_path: Path) -> None:
    write(
        tmp_path,
        stack="services:\n  a:\n    extends: {file: base.yml, service: b}\n",
        base="services:\n  b:\n    image: x\n    imagee: y\n",
    )
    assert "base.yml:4:5" in problems(tmp_path, "stack")
    write(tmp_path, stack="services:\n  a:\n    extends: {file: base.yml, service: c}\n")
    assert "service 'c' is not there" in problems(tmp_path, "stack")


def test_include_has_its_own_folder_and_variables(tmp_path: Path) -> None:
    write(
        tmp_path,
        stack="""
include:
  - db/stack.yml
  - {path: [cache/a.yml, cache/b.yml], project_directory: ., env_file: cache/own.env}
services:
  web: {image: web, depends_on: [db, cache]}
""",
        db__stack="""
services:
  db: {image: "db:${TAG}", volumes: ["./data:/data"]}
""",
        cache__a='services: {cache: {image: "cache:${TAG}", command: one}}',
        cache__b="services: {cache: {command: two}}",
    )
    (tmp_path / "db/.env").write_text("TAG=16\n")
    (tmp_path / "cache/own.env").write_text("TAG=7\n")
    services = {s.name: s.container for s in loaded(tmp_path, "stack").stack.services}
    assert services["db"].image == "db:16"
    assert services["db"].mounts[0].source == str(tmp_path / "db/data")
    assert services["cache"].image == "cache:7"
    assert services["cache"].command == ("two",)
    over = {s.name: s.container for s in loaded(tmp_path, "stack", environment={"TAG": "1"}).stack.services}
    assert over["db"].image == "db:1", "the client's own environment wins"


def test_circles_of_includes_are_told(tmp_path: Path) -> None:
    write(tmp_path, stack="include: [other.yml]", other="include: [stack.yml]\nservices: {a: {image: x}}")
    assert "include each other" in problems(tmp_path, "stack")
    write(tmp_path, stack="include: [nowhere.yml]")
    assert "does not exist" in problems(tmp_path, "stack")


def test_a_file_lies_over_what_it_includes(tmp_path: Path) -> None:
    """And the files after it over both."""
    write(
        tmp_path,
        stack="include: [db/stack.yml]\nservices: {db: {command: mine, volumes: ['./own:/own']}}",
        db__stack="services: {db: {image: one, command: theirs, volumes: ['./data:/data'], ports: ['80:80']}}",
        over="services: {db: {image: two, ports: !reset []}}",
    )
    [db] = loaded(tmp_path, "stack", "over").stack.services
    assert (db.container.image, db.container.command, db.container.ports) == ("two", ("mine",), ())
    assert {m.source for m in db.container.mounts} == {str(tmp_path / "own"), str(tmp_path / "db/data")}


def test_what_two_included_files_say_of_one_service_is_told(tmp_path: Path) -> None:
    write(
        tmp_path,
        stack="include: [one.yml, two.yml]",
        one="services: {a: {image: one, init: true}}",
        two="services: {a: {image: two}}",
    )
    found = loaded(tmp_path, "stack")
    [a] = found.stack.services
    assert (a.container.image, a.container.init) == ("two", True)
    [note] = found.notes
    assert (note.what, str(note.where).rpartition("/")[2]) == ("services.a", "stack.yml:1:20")
    write(tmp_path, two="services: {a: {image: one, init: true}}")
    assert loaded(tmp_path, "stack").notes == (), "the same thing twice is no news"


def test_a_service_of_an_include_finds_its_variables(tmp_path: Path) -> None:
    write(
        tmp_path,
        stack="include: [{path: m/stack.yml, env_file: own.env}]\nservices: {b: {image: x, environment: [V]}}",
        m__stack="services: {a: {image: x, environment: [V], env_file: a.env}}",
    )
    (tmp_path / "own.env").write_text("V=own\n")
    (tmp_path / "m/a.env").write_text("W=${V}-w\n")
    services = {s.name: dict(s.container.environment) for s in loaded(tmp_path, "stack").stack.services}
    assert services == {"a": {"V": "own", "W": "own-w"}, "b": {}}


def test_reset_takes_away_and_override_replaces(tmp_path: Path) -> None:
    write(
        tmp_path,
        stack="""
services:
  a:
    image: x
    ports: ["80:80"]
    environment: {A: one, B: two}
    dns: [9.9.9.9]
  b: {image: y}
""",
        over="""
services:
  a:
    ports: !override ["81:81"]
    environment: {A: !reset null}
    dns: !reset []
  b: !reset null
""",
    )
    [a] = loaded(tmp_path, "stack", "over").stack.services
    assert [p.published for p in a.container.ports] == [81]
    assert dict(a.container.environment) == {"B": "two"}
    assert a.container.dns == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("22:22", "22:22"),
        ("true", "true"),
        ("0o17", "15"),
        ("1e3", "1000"),
        ("12_000", "12000"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: str) -> None:
    write(tmp_path, stack=f"services: {{a: {{image: x, environment: {{V: {text}}}}}}}")
    [a] = loaded(tmp_path, "stack").stack.services
    assert dict(a.container.environment)["V"] == value


def test_documents_of_one_file_lie_over_each_other(tmp_path: Path) -> None:
    write(
        tmp_path,
        stack="""---
services: {a: {image: x, command: one, ports: ["80:80"]}}
---
---
services:
  a: {command: two, ports: !reset []}
  b: {image: y, imagee: z}
""",
    )
    assert "stack.yml:7:17" in problems(tmp_path, "stack")
    write(
        tmp_path,
        stack="services: {a: {image: x, ports: ['80:80']}}\n---\nservices: {a: {command: two, ports: !reset []}}\n",
        base="services: {c: {image: y}}",
        more="services: {c: {image: z}}\n---\nservices: {c: {command: w}}\n",
        user="services: {d: {extends: {file: more.yml, service: c}}}",
    )
    [a] = loaded(tmp_path, "stack").stack.services
    assert (a.container.command, a.container.ports) == (("two",), ())
    [d] = loaded(tmp_path, "user").stack.services
    assert (d.container.image, d.container.command) == ("z", ("w",))


def test_the_projects_name_is_a_variable(tmp_path: Path) -> None:
    write(
        tmp_path,
        stack="name: ${N:-from-file}\nservices: {a: {image: 'i:${COMPOSE_PROJECT_NAME}', environment: [COMPOSE_PROJECT_NAME]}}",
    )

    def image(**given: str) -> str:
        [a] = load(Options(files=(str(tmp_path / "stack.yml"),), project_name=given.pop("p", "")), given).stack.services
        assert dict(a.container.environment)["COMPOSE_PROJECT_NAME"] == a.container.image[2:]
        return a.container.image

    assert image() == "i:from-file"
    assert image(N="other") == "i:other"
    assert image(p="given") == "i:given"
    assert image(COMPOSE_PROJECT_NAME="outer") == "i:outer"
