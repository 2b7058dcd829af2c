"""The normal form says the same as the file: it loads to the same Stack, and its own normal form is itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import PystackError
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.planning.diff import plan
from orchestrator.planning.expand import SINGLE_NODE, expand
from orchestrator.planning.state import Plan, State
from orchestrator.stackfile.canonical import canonicalize
from orchestrator.stackfile.load import Loaded, Options, load
from orchestrator.stackfile.model import Stack
from tests.stackfile.test_corpora import LOADER, cases, real_stacks


def bare(value: Any) -> Any:
    """Plain data with all defaults, without places in files, which a problem names too, without what a key implied, and
    without the order of what has none."""
    if isinstance(value, msgspec.Struct):
        return bare(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return {
            k: sorted(map(tuple, v)) if k in ("environment", "labels", "annotations", "sysctls") else bare(v)
            for k, v in value.items()
            if k not in ("where", "problem", "implied")
        }
    return [bare(v) for v in value] if isinstance(value, (list, tuple)) else value


def said(loaded: Loaded) -> dict[str, Any]:
    plain: dict[str, Any] = bare(loaded.stack)
    for section, key in (("services", "name"), ("networks", "name"), ("volumes", "name"), ("contents", "name")):
        plain[section] = sorted(plain.get(section, []), key=lambda one: str(one[key]))
    for service in plain["services"]:
        for unordered in ("attachments", "ulimits"):
            service["container"].get(unordered, []).sort(key=json.dumps)
        service.get("depends_on", []).sort(key=json.dumps)
    return plain


def same_again(loaded: Loaded, folder: Path, profiles: tuple[str, ...] = ()) -> None:
    once = canonicalize(loaded)
    (folder / "normal.yml").write_text(yaml.safe_dump(once, sort_keys=False))
    again = load(Options(files=(str(folder / "normal.yml"),), consistency=False, profiles=profiles), {})
    assert said(again) == said(loaded)
    assert canonicalize(again) == once


@pytest.mark.parametrize("path", real_stacks())
def test_real_stacks(path: Path, tmp_path: Path) -> None:
    same_again(load(Options(files=(str(path),)), {}), tmp_path)


@pytest.mark.parametrize("case", [c for c in cases("index.json") if c.values[0] and c.values[0]["expected"] == "ok"])
def test_what_the_reference_loader_accepts(case: dict[str, Any], tmp_path: Path) -> None:
    if case["written"]:
        pytest.skip("its files lie in a folder of its own")
    given_ = case["options"] or {}
    files = tuple(str(LOADER / f) for f in case["files"])
    try:
        loaded = load(
            Options(
                files=files,
                project_name=given_.get("ProjectName") or "p",
                consistency=False,
                profiles=tuple(given_.get("Profiles") or ()),
            ),
            case["environment"],
        )
    except PystackError as error:
        pytest.skip(f"it needs files around it: {str(error).splitlines()[0][-60:]}")
    same_again(loaded, tmp_path, tuple(given_.get("Profiles") or ()))


WORDS = st.text("abc$ =:'\"\\#{}-é", min_size=1, max_size=8)
NAMES = st.sampled_from(["a", "b", "c"])
MAPS = st.dictionaries(st.sampled_from(["A", "B", "x.y"]), WORDS | st.integers(0, 9) | st.booleans(), max_size=2)
LISTS = st.lists(st.sampled_from(["A=1", "B=x y", "C=$$z"]), max_size=2, unique=True)
PORTS = st.sampled_from(
    ["80", "8080:80", "127.0.0.1:9000-9001:90-91/udp", {"target": 5, "published": "50", "mode": "host"}, "[::1]:7:7"]
)
VOLUMES = st.sampled_from(
    [
        "/anon",
        "v:/v:ro",
        "./here:/bind",
        "v:/w:nocopy",
        {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "5m"}},
        {"type": "bind", "source": "rel", "target": "/rel", "bind": {"create_host_path": False}},
        {"type": "volume", "source": "v", "target": "/x", "volume": {"subpath": "s"}},
    ]
)
SERVICE = st.fixed_dictionaries(
    {"image": st.sampled_from(["i", "i:1", "r/i@sha256:" + "0" * 64])},
    optional={
        "command": WORDS.filter(lambda w: not set(w) & set("'\"\\")) | st.lists(WORDS, max_size=3),
        "entrypoint": st.lists(WORDS, max_size=2),
        "environment": MAPS | LISTS,
        "labels": MAPS | LISTS,
        "annotations": MAPS,
        "sysctls": MAPS,
        "ports": st.lists(PORTS, max_size=2, unique_by=str),
        "volumes": st.lists(VOLUMES, max_size=2, unique_by=str),
        "networks": st.sampled_from([["n"], {"n": None}, {"n": {"aliases": ["z"]}, "default": None}]),
        "mem_limit": st.sampled_from(["64m", 67108864, "1g"]),
        "cpus": st.sampled_from([0.5, "1.5"]),
        "healthcheck": st.sampled_from([{"test": "true"}, {"test": ["CMD", "x"], "interval": "1m30s"}, {"disable": True}]),
        "configs": st.just(["c"]),
        "secrets": st.just([{"source": "s", "mode": 0o400}]),
        "tty": st.booleans(),
        "restart": st.sampled_from(["no", "always", "on-failure:3"]),
        "extra_hosts": st.sampled_from([["x:1.2.3.4"], {"x": "::1"}]),
        "dns": st.sampled_from(["1.1.1.1", ["1.1.1.1"]]),
        "tmpfs": st.sampled_from(["/tmp", ["/run:size=1m"]]),
        "build": st.sampled_from([".", {"context": "sub", "args": ["A=1"]}, {"context": ".", "dockerfile_inline": "FROM x"}]),
        "deploy": st.sampled_from([{"replicas": 2}, {"mode": "global"}, {"resources": {"limits": {"memory": "1g"}}}]),
        "ulimits": st.just({"nofile": {"soft": 1, "hard": 2}}),
        "devices": st.just(["/dev/null:/dev/x"]),
        "post_start": st.just([{"command": "echo a b", "environment": ["A=1"]}]),
        "pull_policy": st.just("always"),
    },
)
STACK = st.fixed_dictionaries({"services": st.dictionaries(NAMES, SERVICE, min_size=1)})


EXAMPLES = int(os.environ.get("PYSTACK_EXAMPLES", "200"))
"""10000 in a nightly run."""


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=STACK, later=st.booleans())
def test_random_stacks(document: dict[str, Any], later: bool, tmp_path: Path) -> None:
    names = list(document["services"])
    if later and len(names) > 1:
        document["services"][names[1]]["depends_on"] = {names[0]: {"condition": "service_healthy", "restart": True}}
    document |= {
        "networks": {"n": {"driver_opts": {"a": 1}}},
        "volumes": {"v": {}},
        "configs": {"c": {"content": "$$x\n"}},
        "secrets": {"s": {"file": "secret"}},
    }
    (tmp_path / "secret").write_text("s")
    (tmp_path / "stack.yml").write_text(yaml.safe_dump(document))
    try:
        loaded = load(Options(files=(str(tmp_path / "stack.yml"),), project_name="p", consistency=False), {})
    except PystackError:
        return  # two that do not go together, such as a target that is mounted twice
    same_again(loaded, tmp_path)
    for context in (SINGLE_NODE, THREE):
        nothing_is_left_to_do(loaded.stack, context)


THREE = PlacementContext(
    nodes=tuple(Node(name=f"n{i}", id=f"{i}", underlay=f"10.9.9.{i}") for i in (1, 2, 3)),
    ready=frozenset({"n1", "n2", "n3"}),
    local="n1",
)


def nothing_is_left_to_do(stack: Stack, context: PlacementContext) -> None:
    """What a plan leads to needs no plan: applied, it is empty; and the way back to nothing and here again is the same."""

    def planned(current: State) -> Plan:
        return plan(stack, expand(stack, current, context=context), current, revision=1)

    try:
        first = planned(State())
    except PystackError:
        return  # ports or names that cannot stand together
    done = first.desired
    assert not list(planned(done).changes), "a second up has something to do"
    assert planned(State()).desired == done
