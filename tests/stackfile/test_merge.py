"""Two files about one key, key by key: what `config` shows of a service. Source: Compose Specification, 13-merge.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.stackfile.canonical import canonicalize
from orchestrator.stackfile.load import Loaded, Options, load
from orchestrator.stackfile.problem import StackFileError

AROUND: dict[str, Any] = {
    "services": {"b": {"image": "b"}, "c": {"image": "c"}},
    "networks": {"n": {}, "o": {}},
    "secrets": {"s": {"environment": "E"}, "t": {"environment": "E"}},
    "configs": {"s": {"environment": "E"}, "t": {"environment": "E"}},
    "models": {"m": {"model": "m"}, "l": {"model": "l"}},
}


def laid(folder: Path, base: dict[str, Any], over: str) -> Loaded:
    document = {**AROUND, "services": {**AROUND["services"], "a": {"image": "i", **base}}}
    (folder / "base.yml").write_text(yaml.safe_dump(document))
    (folder / "over.yml").write_text(f"services:\n  a:\n    {over}\n")
    for name in ("x.env", "y.env"):
        (folder / name).write_text(f"X={name[0]}\n")
    files = tuple(str(folder / f"{n}.yml") for n in ("base", "over"))
    return load(Options(files=files, project_name="p"), {"E": "e"})


def port(published: str, **more: Any) -> dict[str, Any]:
    return {"mode": "ingress", "protocol": "tcp", "published": published, "target": 80, **more}


CASES: dict[str, tuple[dict[str, Any], str, Any]] = {
    "a port that is there already": ({"ports": ["80:80"]}, 'ports: ["80:80", "81:80"]', [port("80"), port("81")]),
    "a port in the long form": (
        {"ports": ["80:80"]},
        "ports: [{target: 80, published: 80, name: web}]",
        [port("80", name="web")],
    ),
    "a port of another address": (
        {"ports": ["80:80"]},
        'ports: ["127.0.0.1:80:80"]',
        [port("80"), port("80", host_ip="127.0.0.1")],
    ),
    "a volume by target": (
        {"volumes": ["/a:/x", "/b:/y"]},
        'volumes: ["/c:/x/:ro"]',
        [
            {"type": "bind", "source": "/c", "target": "/x", "read_only": True, "bind": {"create_host_path": True}},
            {"type": "bind", "source": "/b", "target": "/y", "bind": {"create_host_path": True}},
        ],
    ),
    "a secret by target": (
        {"secrets": ["s"]},
        "secrets: [{source: t, target: /run/secrets/s}, t]",
        [{"source": "t", "target": "/run/secrets/s"}, {"source": "t"}],
    ),
    "a config by target": ({"configs": ["s"]}, "configs: [{source: t, target: /s}]", [{"source": "t", "target": "/s"}]),
    "a device by target": (
        {"devices": ["/dev/a:/dev/x"]},
        'devices: ["/dev/b:/dev/x:r"]',
        [{"source": "/dev/b", "target": "/dev/x", "permissions": "r"}],
    ),
    "a tmpfs by target": ({"tmpfs": "/t:size=1m"}, 'tmpfs: ["/t:size=2m", /u]', ["/t:size=2m", "/u"]),
    "link-local addresses": (
        {"networks": {"n": {"link_local_ips": ["169.254.0.1"]}}},
        "networks: {n: {link_local_ips: [169.254.0.1, 169.254.0.2]}}",
        {"n": {"link_local_ips": ["169.254.0.1", "169.254.0.2"]}},
    ),
    "aliases": ({"networks": {"n": {"aliases": ["x"]}}}, "networks: {n: {aliases: [y, x]}}", {"n": {"aliases": ["x", "y"]}}),
    "networks as a list over a mapping": (
        {"networks": {"n": {"aliases": ["x"]}}},
        "networks: [o, n]",
        {"n": {"aliases": ["x"]}, "o": None},
    ),
    "exposed ports, numbers and texts": ({"expose": ["80", 81]}, "expose: [80, 82]", ["80", "81", "82"]),
    "models, list and mapping": ({"models": ["m"]}, "models: {l: {endpoint_var: A}}", {"m": None, "l": {"endpoint_var": "A"}}),
    "models, mapping and list": ({"models": {"m": {"model_var": "A"}}}, "models: [m, l]", {"m": {"model_var": "A"}, "l": None}),
    "ulimits, judged together": (
        {"ulimits": {"nofile": {"soft": 3}, "nproc": {"soft": 1, "hard": 2}}},
        "ulimits: {nofile: {hard: 5}, nproc: 7}",
        {"nofile": {"soft": 3, "hard": 5}, "nproc": 7},
    ),
    "extra hosts of both forms": (
        {"extra_hosts": ["x:1.1.1.1"]},
        "extra_hosts: {x: [1.1.1.1, 2.2.2.2], y: '::1'}",
        ["x=1.1.1.1", "x=2.2.2.2", "y=::1"],
    ),
    "a list of dependencies says that they are started": (
        {"depends_on": {"b": {"condition": "service_healthy", "restart": True}}},
        "depends_on: [b, c]",
        {
            "b": {"condition": "service_started", "required": True, "restart": True},
            "c": {"condition": "service_started", "required": True},
        },
    ),
    "a mapping over a list of dependencies": (
        {"depends_on": ["b"]},
        "depends_on: {c: {condition: service_healthy}}",
        {"b": {"condition": "service_started", "required": True}, "c": {"condition": "service_healthy", "required": True}},
    ),
    "no command: the image's": ({"command": ["a"]}, "command: null", None),
    "a variable reset in a list": ({"environment": ["A=1", "B=2"]}, "environment: {A: !reset null}", {"B": "2"}),
    "env files by path": ({"env_file": "x.env"}, "env_file: [y.env, {path: x.env, required: false}]", None),
    "options of another logging driver": (
        {"logging": {"driver": "local", "options": {"max-size": "1m"}}},
        "logging: {driver: json-file}",
        {"driver": "json-file"},
    ),
    "two lists of dependencies": (
        {"depends_on": ["b"]},
        "depends_on: [c, b]",
        {n: {"condition": "service_started", "required": True} for n in ("b", "c")},
    ),
    "gpus": ({"gpus": [{"count": 1}]}, "gpus: all", [{"count": -1}]),
}


@pytest.mark.parametrize(("base", "over", "want"), CASES.values(), ids=CASES)
def test_a_service_after_the_later_file(base: dict[str, Any], over: str, want: Any, tmp_path: Path) -> None:
    service = canonicalize(laid(tmp_path, base, over))["services"]["a"]
    assert service.get(over.partition(":")[0]) == want


@pytest.mark.parametrize(
    ("base", "over", "want"),
    [
        (
            [{"subnet": "10.1.0.0/24", "gateway": "10.1.0.1"}],
            "[{subnet: 10.1.0.0/24, gateway: 10.1.0.9}]",
            [{"subnet": "10.1.0.0/24", "gateway": "10.1.0.9"}],
        ),
        ([{"subnet": "10.1.0.0/24"}], "[{subnet: 10.2.0.0/24}]", [{"subnet": "10.2.0.0/24"}]),
    ],
)
def test_address_pools_are_the_later_files(base: Any, over: str, want: Any, tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text(
        yaml.safe_dump({"services": {"a": {"image": "i", "networks": ["n"]}}, "networks": {"n": {"ipam": {"config": base}}}})
    )
    (tmp_path / "over.yml").write_text(f"networks: {{n: {{ipam: {{config: {over}}}}}}}")
    found = canonicalize(load(Options(files=tuple(str(tmp_path / f"{n}.yml") for n in ("base", "over")), project_name="p"), {}))
    assert found["networks"]["n"]["ipam"]["config"] == want


BUILD: dict[str, tuple[dict[str, Any], str, Any]] = {
    "args": ({"args": ["A=1", "B=2"]}, "args: {A: 3}", {"A": "3", "B": "2"}),
    "tags": ({"tags": ["a", "b"]}, "tags: [b, c]", ["a", "b", "c"]),
    "platforms": ({"platforms": ["linux/amd64"]}, "platforms: [linux/amd64]", ["linux/amd64"]),
    "ssh": ({"ssh": ["default"]}, "ssh: {k: v}", {"default": None, "k": "v"}),
    "additional_contexts": (
        {"additional_contexts": ["x=https://a"]},
        "additional_contexts: {y: 'https://b'}",
        {"x": "https://a", "y": "https://b"},
    ),
    "extra_hosts": ({"extra_hosts": ["x:1.1.1.1"]}, "extra_hosts: {y: 2.2.2.2}", ["x=1.1.1.1", "y=2.2.2.2"]),
    "secrets": ({"secrets": ["s"]}, "secrets: [s, {source: t, target: u}]", [{"source": "s"}, {"source": "t", "target": "u"}]),
    "ulimits": ({"ulimits": {"nofile": 1}}, "ulimits: {nofile: {soft: 1, hard: 2}}", {"nofile": {"soft": 1, "hard": 2}}),
}


@pytest.mark.parametrize(("base", "over", "want"), BUILD.values(), ids=BUILD)
def test_a_build_after_the_later_file(base: dict[str, Any], over: str, want: Any, tmp_path: Path) -> None:
    build = canonicalize(laid(tmp_path, {"build": {"context": ".", **base}}, f"build: {{{over}}}"))["services"]["a"]["build"]
    assert build[over.partition(":")[0]] == want


@pytest.mark.parametrize(
    ("base", "over"),
    [
        ({"environment": {"A": "1"}}, "environment: text"),
        ({"deploy": {"replicas": 1}}, "deploy: text"),
        ({"ports": ["80:80"]}, "ports: text"),
        ({"logging": {"driver": "none"}}, "logging: text"),
        ({"build": "."}, "build: [x]"),
    ],
)
def test_what_cannot_be_laid_over_is_told_with_both_places(base: dict[str, Any], over: str, tmp_path: Path) -> None:
    with pytest.raises(StackFileError) as caught:
        laid(tmp_path, base, over)
    assert "over.yml:3:5" in str(caught.value)
    assert "cannot be laid over" in str(caught.value)
    assert "base.yml:" in str(caught.value)


def test_an_item_keeps_the_place_of_its_file(tmp_path: Path) -> None:
    with pytest.raises(StackFileError) as caught:
        laid(tmp_path, {"ports": ["80:80", "81:80"]}, "ports:\n    - '80:80'\n    - '99999:1'")
    assert "over.yml:5:7: services.a.ports[2]" in str(caught.value)


def test_one_file_says_a_thing_twice(tmp_path: Path) -> None:
    """The last word counts, as of two files; where something else is lost, it is told."""
    (tmp_path / "stack.yml").write_text(
        "services:\n  a:\n    image: i\n    cap_add: [A, A]\n    environment: [X=1, X=2]\n    volumes:\n"
        "      - /a:/x\n      - /b:/x\n    ports: ['80:80', {target: 80, published: 80}]\n"
    )
    found = load(Options(files=(str(tmp_path / "stack.yml"),), project_name="p"), {})
    c = found.stack.services[0].container
    assert (c.cap_add, dict(c.environment), [m.source for m in c.mounts], len(c.ports)) == (("A",), {"X": "2"}, ["/b"], 1)
    [note] = found.notes
    assert str(note.where).endswith("stack.yml:8:9")
    assert "/x is given twice" in note.why


@pytest.mark.parametrize(
    ("base", "over", "words"),
    [
        ({"networks": [{"n": None}]}, "networks: [o]", "networks[0]: must be text"),
        ({"networks": ["n"]}, "networks: [{o: }]", "networks[0]: must be text"),
        ({"depends_on": [None]}, "depends_on: [b]", "depends_on[0]: must be text"),
        ({"models": ["m"]}, "models: [[l]]", "models[0]: must be text"),
        ({"ports": [["80:80"]]}, "ports: ['81:81']", "ports[0]: must be text or a mapping"),
    ],
)
def test_a_list_of_what_is_no_name_is_told(base: dict[str, Any], over: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StackFileError) as caught:
        laid(tmp_path, base, over)
    assert words in str(caught.value)
