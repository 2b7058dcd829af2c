"""Which stages are needed, and what is said of a file whose stages do not fit together."""

from __future__ import annotations

import pytest

from agent.build import dockerfile, plan
from agent.errors import BadRequestError

PLATFORMS = plan.platform_arguments("linux/arm64/v8", "linux/amd64")


def made(text: str, **how: object) -> plan.Plan:
    return plan.make(dockerfile.read(text.encode()), platforms=PLATFORMS, **how)  # type: ignore[arg-type]


CHAIN = (
    "FROM a AS one\nFROM b AS two\nCOPY --from=one x y\nFROM c AS three\nRUN --mount=from=two,target=/m x\nFROM two AS four\n"
)


@pytest.mark.parametrize(
    ("target", "needed"), [("", (0, 1, 3)), ("one", (0,)), ("TWO", (0, 1)), ("2", (0, 1, 2)), ("four", (0, 1, 3))]
)
def test_only_what_the_target_needs(target: str, needed: tuple[int, ...]) -> None:
    found = made(CHAIN, target=target)
    assert (found.needed, found.target) == (needed, needed[-1])


@pytest.mark.parametrize(
    ("text", "arguments", "image"),
    [
        ("FROM a", {}, "a"),
        ("ARG T=1\nFROM a:$T", {}, "a:1"),
        ("ARG T=1\nFROM a:$T", {"T": "2"}, "a:2"),
        ("ARG A=x\nARG B=$A-y\nFROM ${B}", {}, "x-y"),
        ("ARG T\nFROM a:${T:-3}", {}, "a:3"),
        ("FROM a:$TARGETARCH", {}, "a:arm64"),
        ("FROM scratch", {}, ""),
    ],
)
def test_names_of_bases(text: str, arguments: dict[str, str], image: str) -> None:
    assert made(text, arguments=arguments).stages[0].image == image


def test_a_stage_of_the_same_name_as_an_image_is_the_stage() -> None:
    assert made("FROM a AS busybox\nFROM busybox").stages[1].base == 0
    assert made("FROM a AS busybox\nFROM busybox", contexts=["busybox"]).stages[1].base == -1
    assert made("FROM busybox AS busybox").stages[0].base == -1


def test_build_arguments_that_nothing_names() -> None:
    given = {"A": "1", "B": "1", "C": "1", "HTTP_PROXY": "x", "BUILDKIT_INLINE_CACHE": "1", "SOURCE_DATE_EPOCH": "0"}
    assert made("ARG A\nFROM x\nARG B\n", arguments=given).unused == ("C",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RUN x\nFROM a", r"Dockerfile:1:1: no build stage"),
        ("ARG A", r"no build stage"),
        ("FROM $NONE", r"Dockerfile:1:1: base name"),
        ("FROM a AS x\nFROM b AS X", r"Dockerfile:2:1: duplicate name x"),
        ("FROM a\nCOPY --from=0 x y", r"Dockerfile:2:1: invalid from flag value 0"),
        ("FROM a AS x\nCOPY --from=x a b", r"Dockerfile:2:1: circular dependency"),
        (
            "FROM a\nRUN --mount=from=late,target=/x y\nFROM b AS late\nFROM c\nCOPY --from=0 a b",
            r"Dockerfile:2:1: stage late stands",
        ),
        ("FROM ${A:?no}", r"Dockerfile:1:1: failed to process"),
    ],
)
def test_what_does_not_fit_together(text: str, words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        made(text)


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(BadRequestError, match="failed to reach build target x in Dockerfile: stages are one, two, three, four"):
        made(CHAIN, target="x")
