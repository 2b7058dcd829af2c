"""What instructions make of an image's configuration: each alone, over what an image had before."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from agent.build import config, dockerfile, instructions
from agent.build.words import WordError

OF_IMAGE = {"Env": ["PATH=/bin", "A=1"], "Labels": {"l": "1"}, "Volumes": {"/v": {}}, "OnBuild": ["RUN x"]}


def document(**fields: Any) -> config.Document:
    return {**config.empty("amd64"), "config": fields}


def changed(line: str, **before: Any) -> dict[str, Any]:
    """The configuration after *line*; `$X` expands to its name in small letters."""
    [step] = instructions.read(dockerfile.read(f"{line}\n".encode()))
    given = document(**before)
    kept = copy.deepcopy(given)
    after = config.CHANGES[type(step)](given, step, lambda text: text.replace("$X", "x"))
    assert given == kept, "each gives a new document"
    return {"author": after["author"]} if "author" in after else dict(after["config"])


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ENV A=$X B=2", {"Env": ["PATH=/bin", "A=x", "B=2"]}),
        ("LABEL l=2 $X=3", {"Labels": {"l": "2", "x": "3"}}),
        ("MAINTAINER ada", {"author": "ada"}),
        ('CMD ["a", "b"]', {"Cmd": ["a", "b"]}),
        ("CMD a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ("ENTRYPOINT a", {"Entrypoint": ["/bin/sh", "-c", "a"]}),
        ("VOLUME /w $X", {"Volumes": {"/v": {}, "/w": {}, "x": {}}}),
        ("USER $X", {"User": "x"}),
        ("STOPSIGNAL SIGRTMIN+3", {"StopSignal": "SIGRTMIN+3"}),
        ("STOPSIGNAL 9", {"StopSignal": "9"}),
        ('SHELL ["/bin/ash", "-c"]', {"Shell": ["/bin/ash", "-c"]}),
        ("ONBUILD RUN y", {"OnBuild": ["RUN x", "RUN y"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=2s --retries=4 CMD a",
            {"Healthcheck": {"Test": ["CMD-SHELL", "a"], "Interval": 2_000_000_000, "Retries": 4}},
        ),
    ],
)
def test_an_instruction_changes_its_part_alone(line: str, wanted: dict[str, Any]) -> None:
    expected = wanted if "author" in wanted else {**OF_IMAGE, **wanted}
    assert changed(line, **OF_IMAGE) == expected


@pytest.mark.parametrize("line", ["ENV A=1", "LABEL a=b", "VOLUME /v", "ONBUILD RUN x"])
def test_an_image_without_any_gets_the_first(line: str) -> None:
    assert len(changed(line)) == 1


@pytest.mark.parametrize("name", ["SIG-1", "NOPE", "0", "100", "RTMIN+16", "SIGRTMAX-15", "SIGSIGTERM"])
def test_a_signal_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(WordError, match=f"invalid signal: {re.escape(name)}"):
        changed(f"STOPSIGNAL {name}")


@pytest.mark.parametrize("name", ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-14", "SIGCLD"])
def test_signals_have_names_and_numbers(name: str) -> None:
    assert changed(f"STOPSIGNAL {name}")["StopSignal"] == name


def test_a_command_goes_to_the_images_own_shell() -> None:
    assert changed("CMD a b", Shell=["/bin/ash", "-e"])["Cmd"] == ["/bin/ash", "-e", "a b"]


@pytest.mark.parametrize(
    ("word", "ports"),
    [("80", ["80/tcp"]), ("80/UDP", ["80/udp"]), ("8000-8002/sctp", ["8000/sctp", "8001/sctp", "8002/sctp"])],
)
def test_ports(word: str, ports: list[str]) -> None:
    assert list(config.ports([word])) == ports


@pytest.mark.parametrize("word", ["http", "80/icmp", "0", "65536", "9-8", "-1", "80:80", ""])
def test_what_is_not_a_port_is_refused(word: str) -> None:
    with pytest.raises(WordError, match="invalid containerPort"):
        config.ports([word])


def test_ports_of_the_image_stay() -> None:
    assert list(config.expose(document(ExposedPorts={"1/tcp": {}}), ["2"])["config"]["ExposedPorts"]) == ["1/tcp", "2/tcp"]


@pytest.mark.parametrize(
    ("path", "place"),
    [("a", "/w/a"), ("/a", "/a"), ("..", "/"), ("../../..", "/"), ("a/", "/w/a/"), (".", "/w/"), ("a/..", "/w"), ("//a", "/a")],
)
def test_a_path_is_meant_in_the_working_directory(path: str, place: str) -> None:
    assert config.absolute(document(WorkingDir="/w"), path) == place


def test_the_root_is_the_working_directory_where_none_is_set() -> None:
    assert (config.workdir(document()), config.absolute(document(), "a")) == ("/", "/a")


def test_a_path_variable_comes_with_the_first_step_on_an_image() -> None:
    assert config.environment(config.with_path(document(), "busybox")) == {"PATH": config.DEFAULT_PATH}
    assert config.with_path(document(Env=["PATH=/x"]), "busybox") == document(Env=["PATH=/x"])
    assert config.with_path(document(), "") == document(), "scratch has its own"


def test_history_grows() -> None:
    first = config.recorded(document(), "RUN a", created="t", empty_layer=False)
    second = config.recorded(first, "ENV a=b", created="u", empty_layer=True, comment="c")
    assert second["history"] == [
        {"created": "t", "created_by": "RUN a"},
        {"created": "u", "created_by": "ENV a=b", "comment": "c", "empty_layer": True},
    ]


def test_scratch_has_a_variant_where_one_is_named() -> None:
    assert "variant" not in config.empty("amd64")
    assert config.empty("arm", "v7")["variant"] == "v7"
