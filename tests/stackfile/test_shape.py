"""Files are held against the schema: every value of another shape is a problem with its place, and nothing crashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.errors import PystackError
from orchestrator.stackfile import schema
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.problem import StackFileError
from tests.conftest import SHARED

UPSTREAM = SHARED / "corpora" / "compose-go" / "compose-spec.json"
ODD: list[Any] = [
    None,
    True,
    5,
    -3,
    1.5,
    "x",
    "",
    "5",
    [],
    ["a"],
    [1],
    [{}],
    {},
    {"a": "b"},
    {"a": 1},
    {"a": None},
    [["a"]],
    {"bogus": 1},
    "10s",
    "1g",
    [{"bogus": 1}],
    {"a": {"bogus": 1}},
    [None],
    "a:b:c:d",
    {"a": []},
    ["a", "a"],
]


def refusal(folder: Path, document: Any) -> str:
    """Why it is refused, "" where it is not."""
    file = folder / "compose.yml"
    file.write_text(json.dumps(document))
    try:
        load(Options(files=(str(file),), project_name="p", consistency=False), {})
    except PystackError as error:
        return str(error)
    return ""


def places(shape: Any, root: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of the schema *root*, by its path; * is a name, [] an entry."""
    if "$ref" in shape:
        shape = root["$defs"][shape["$ref"].rpartition("/")[2]]
    out = []
    for one in (*shape.get("oneOf", ()), *shape.get("anyOf", ())):
        out += places(one, root, path)
    for name, inner in shape.get("properties", {}).items():
        out += [(*path, name), *places(inner, root, (*path, name))]
    rest = shape.get("additionalProperties")
    for inner in (
        *(s for p, s in shape.get("patternProperties", {}).items() if p != "^x-"),
        *([rest] if isinstance(rest, dict) else []),
    ):
        out += places(inner, root, (*path, "*"))
    if "items" in shape:
        out += places(shape["items"], root, (*path, "[]"))
    return list(dict.fromkeys(out))


NEEDED: dict[tuple[str, ...], dict[str, Any]] = {
    ("services", "*"): {"image": "i"},
    ("services", "*", "build"): {"context": "."},
    ("models", "*"): {"model": "m"},
    ("services", "*", "depends_on", "*"): {"condition": "service_started"},
    ("services", "*", "provider"): {"type": "t"},
    ("services", "*", "extends"): {"service": "b"},
    ("services", "*", "devices", "[]"): {"source": "/dev/null"},
    ("services", "*", "env_file", "[]"): {"path": "compose.yml"},
    ("services", "*", "develop", "watch", "[]"): {"path": ".", "action": "rebuild"},
    ("services", "*", "develop", "watch", "[]", "exec"): {"command": "c"},
    ("services", "*", "post_start", "[]"): {"command": "c"},
    ("services", "*", "pre_stop", "[]"): {"command": "c"},
    ("services", "*", "ulimits", "*"): {"soft": 1, "hard": 2},
    ("services", "*", "volumes", "[]"): {"type": "volume", "target": "/v"},
    ("services", "*", "ports", "[]"): {"target": 1},
    ("services", "*", "deploy", "resources", "reservations", "devices", "[]"): {"capabilities": ["gpu"]},
    ("services", "*", "gpus", "[]"): {"capabilities": ["gpu"]},
}


def document(path: tuple[str, ...], value: Any, at: int = 0) -> Any:
    """The smallest document that has *value* at *path*."""
    if at == len(path):
        return value
    if path[at] == "[]":
        return [document(path, value, at + 1)]
    name = "a" if path[at] == "*" else path[at]
    return {
        **NEEDED.get(path[:at], {}),
        **({"services": {"a": {"image": "i"}}} if at == 0 and path[0] != "services" else {}),
        name: document(path, value, at + 1),
    }


@pytest.mark.slow
@pytest.mark.parametrize("section", ["service", "network", "volume", "config", "secret", "top"])
def test_what_the_specifications_schema_refuses_is_refused_and_nothing_crashes(section: str, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    if not UPSTREAM.exists():
        pytest.skip("the shared corpora are not here")
    theirs = json.loads(UPSTREAM.read_text())
    validator = jsonschema.Draft202012Validator(theirs)
    ours = jsonschema.Draft202012Validator(schema.document())
    accepted = []
    for path in places(theirs, theirs):
        top = {"services": "service", "networks": "network", "volumes": "volume", "configs": "config", "secrets": "secret"}
        if top.get(path[0], "top") != section or path[0] in ("include", "models"):
            continue
        for value in ODD:
            tried = document(path, value)
            why = refusal(tmp_path, tried)
            assert "must be" not in why or ":" in why.splitlines()[0], why
            if not validator.is_valid(tried) and (not why or ours.is_valid(tried)):
                accepted.append((".".join(path), value, "editors" if why else "loader"))
    # a number or a flag may be written as text: interpolation makes nothing else of ${X}
    left = [a for a in accepted if not (isinstance(a[1], str) and (a[1] == "5" or a[1] in ("true", "false")))]
    # a list that says a thing once is cleared of doubles before it is checked, as in Compose
    left = [a for a in left if not (a[1] == ["a", "a"] and a[2] == "loader")]
    assert left == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: {a: {image: i, ports: 80}}", ["services.a.ports: must be a list, not a number", "stack.yml:1:"]),
        (
            "services: {a: {image: i, environment: 5, tty: maybe}}",
            ["environment: must be a mapping or a list of NAME=VALUE, not a number", "tty: must be true or false, not 'maybe'"],
        ),
        (
            "services: {a: {image: i, depends_on: {b: {condition: never}}}}",
            ["depends_on.b.condition: 'never' is not known", "one of"],
        ),
        ("services: {a: {image: i, security_opt: [A, A]}}", ["security_opt[1]: is in the list twice"]),
        ("services: {a: {image: i, volumes: [{target: /x}]}}", ["volumes[0]: needs type"]),
        ("services: {a: {image: i, oom_score_adj: 5000}}", ["oom_score_adj: must be -1000 to 1000, not 5000"]),
        ("services: {a b: {image: i}}", ["services.a b: a name is letters, digits"]),
        ("services: {a: {image: i, helthcheck: {}}}", ["helthcheck: no such key", "did you mean healthcheck?"]),
        ("services: {a: {image: i}}\nnetwroks: {}", ["netwroks: no such key", "did you mean networks?"]),
        ("services: {a: {image: i, environment: }}", ["environment: must be", "not nothing"]),
        ("services: {a: null}", ["services.a: must be a mapping, not nothing"]),
        ("services: [a]", ["services: must be a mapping, not a list"]),
        ("networks: {n: {ipam: {config: {subnet: 10.0.0.0/8}}}}\nservices: {a: {image: i}}", ["ipam.config: must be a list"]),
    ],
)
def test_the_problem_is_told_with_its_place(text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(text)
    with pytest.raises(StackFileError) as caught:
        load(Options(files=(str(tmp_path / "stack.yml"),)), {})
    for word in words:
        assert word in str(caught.value)


def test_numbers_and_flags_may_come_from_variables(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(
        yaml.safe_dump(
            {
                "services": {
                    "a": {
                        "image": "i",
                        "tty": "${T}",
                        "scale": "${N}",
                        "read_only": "no",
                        "cpus": "${C}",
                    }
                }
            }
        )
    )
    one = load(Options(files=(str(tmp_path / "stack.yml"),)), {"T": "true", "N": "3", "C": "0.5"}).stack.services[0]
    assert (one.container.tty, one.replicas, one.container.read_only, one.container.cpus) == (True, 3, False, 0.5)
