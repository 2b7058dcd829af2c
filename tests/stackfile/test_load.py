"""Loading: problems with their places, all at once; real files of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.stackfile.interpolate import InvalidError, substitute
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.problem import StackFileError
from orchestrator.stackfile.units import parse_bytes, parse_duration
from tests.conftest import SHARED

PROBLEMS = {
    "a network that would not be encrypted": (
        "services: {a: {image: x}}\nnetworks:\n  n:\n    driver: bridge\n    driver_opts: {encrypted: ''}\n",
        "5:19: networks.n.driver_opts.encrypted: a network with the driver bridge cannot be encrypted",
    ),
    "an unknown key names the nearest one": (
        "services:\n  web:\n    image: a\n    depnds_on: [b]\n",
        "4:5: services.web.depnds_on: no such key",
    ),
    "a port that does not exist": (
        "services:\n  web:\n    image: a\n    ports: ['99999:80']\n",
        "4:13: services.web.ports[0]: port 99999 does not exist",
    ),
    "a key that stands twice": ("services:\n  web: {image: a}\n  web: {image: b}\n", "3:3: key 'web' stands twice"),
    "broken YAML": ("services:\n  web: [\n", "3:1: this is not YAML"),
    "a tab": ("services:\n\tweb: {image: a}\n", "2:1: this is not YAML"),
    "neither image nor build": ("services:\n  web: {command: x}\n", "2:3: services.web: has neither image nor build"),
    "an update that does not know where to go": (
        "services:\n  w: {image: a, deploy: {update_config: {order: sideways}}}\n",
        "2:42: services.w.deploy.update_config.order: 'sideways' is not known",
    ),
    "a share that is none": ("services:\n  w: {image: a, deploy: {update_config: {max_failure_ratio: two}}}\n", "'two' is no"),
    "an undeclared volume": ("services:\n  w: {image: a, volumes: ['d:/x']}\n", "volume 'd' is not declared"),
    "an undeclared network": ("services:\n  w: {image: a, networks: [n]}\n", "network 'n' is not declared"),
    "a size without sense": ("services:\n  w: {image: a, mem_limit: 10q}\n", "2:17: services.w.mem_limit"),
    "a cycle, with its lines": (
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n",
        "the services wait for each other",
    ),
    "a missing env_file": ("services:\n  w: {image: a, env_file: nope.env}\n", "nope.env does not exist"),
    "an alias that contains itself": ("services: &a\n  w: *a\n", "more than 100 levels"),
    "a name of a network without end": (
        f"services: {{a: {{image: x}}}}\nnetworks: {{n: {{name: {'x' * 300}}}}}\n",
        "has more than 255 characters",
    ),
}


def read(tmp_path: Path, text: str, **environment: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "stack.yml"
    path.write_text(text)
    return load(Options(files=(str(path),)), environment)


@pytest.mark.parametrize(("text", "expected"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(StackFileError) as caught:
        read(tmp_path, text)
    assert expected in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "services:\n  a: {image: x, nope: 1, mem_limit: z}\n  b: {ports: ['0:0']}\n"
    with pytest.raises(StackFileError) as caught:
        read(tmp_path, text)
    assert len(caught.value.problems) == 4


def test_a_bomb_of_anchors_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(StackFileError, match="unfolds to more than"):
        read(tmp_path, "\n".join(lines))


INTERPOLATION = {
    "plain": ("$A-${A}", "1-1"),
    "default": ("${X:-d}${X-e}", "de"),
    "empty is unset with a colon": ("${E:-d}${E-d}", "d"),
    "replacement": ("${A:+y}${X:+n}", "y"),
    "a dollar sign": ("$$A", "$A"),
    "nested": ("${X:-${Y:-${A}}}", "1"),
}


@pytest.mark.parametrize(("text", "expected"), INTERPOLATION.values(), ids=INTERPOLATION)
def test_interpolation(text: str, expected: str) -> None:
    assert substitute(text, {"A": "1", "E": ""}) == expected


def test_a_required_variable_says_what_it_wants() -> None:
    with pytest.raises(InvalidError, match="required variable X is missing a value: set it"):
        substitute("${X:?set it}", {})


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_interpolation_ends_with_text_or_a_clear_refusal(text: str, variables: dict[str, str]) -> None:
    try:
        assert isinstance(substitute(text, variables), str)
    except InvalidError as error:
        assert str(error)


def test_units() -> None:
    assert [parse_bytes(v) for v in ("64m", 10, "1.5gb", "2kib")] == [64 << 20, 10, 3 << 29, 2048]
    assert [parse_duration(v) for v in ("1m30s", "500ms", "1h", 3)] == [90.0, 0.5, 3600.0, 3.0]


def test_files_merge_as_the_specification_says(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        "name: t\nservices:\n  w: {image: a, command: [x], environment: {A: '1', B: '1'}, ports: ['80']}\n"
    )
    (tmp_path / "b.yml").write_text("services:\n  w: {command: [y], environment: ['B=2'], ports: ['81']}\n")
    loaded = load(Options(files=(str(tmp_path / "a.yml"), str(tmp_path / "b.yml"))), {})
    container = loaded.stack.services[0].container
    assert container.command == ("y",)
    assert dict(container.environment) == {"A": "1", "B": "2"}
    assert [p.target for p in container.ports] == [80, 81]


REAL = sorted((SHARED / "corpora" / "awesome-compose").glob("*/compose.y*ml"))


@pytest.mark.skipif(not REAL, reason="the corpora are not beside this checkout")
@pytest.mark.parametrize("path", REAL, ids=lambda p: p.parent.name)
def test_a_real_file_loads(path: Path) -> None:
    loaded = load(Options(files=(str(path),)), {"HOME": "/root", "TUNNEL_TOKEN": "x"})
    assert loaded.stack.services


def test_the_network_with_the_highest_priority_is_attached_first(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(
        "services: {a: {image: i, networks: {low: {priority: 1}, none: , high: {priority: 9}}}}\n"
        "networks: {low: , none: , high: }\n"
    )
    loaded = load(Options(files=(str(tmp_path / "stack.yml"),), project_name="p"), {})
    assert [a.network for a in loaded.stack.services[0].container.attachments] == ["p_high", "p_low", "p_none"]
