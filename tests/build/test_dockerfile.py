"""The text of a Dockerfile: how it is cut into instructions, and what is said, where, of one that cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.build import dockerfile, instructions
from agent.build.dockerfile import Heredoc
from agent.build.errors import DockerfileError


def cut(text: str) -> list[tuple[str, str]]:
    return [(one.word, one.rest) for one in dockerfile.read(text.encode()).instructions]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FROM a", [("FROM", "a")]),
        ("from a\nrun b", [("FROM", "a"), ("RUN", "b")]),
        ("\ufeffFROM a\r\nRUN b\r\n", [("FROM", "a"), ("RUN", "b")]),
        ("FROM a\nRUN b \\\n  c", [("FROM", "a"), ("RUN", "b   c")]),
        ("FROM a\nRUN b \\   \n  c", [("FROM", "a"), ("RUN", "b   c")]),
        ("FROM a\nRUN b \\\n# comment\n\n  # more\n  c\nRUN d", [("FROM", "a"), ("RUN", "b   c"), ("RUN", "d")]),
        ("FROM a\nRUN b \\\\\nRUN c", [("FROM", "a"), ("RUN", "b \\\\"), ("RUN", "c")]),
        ("# escape=`\nFROM a\nRUN b `\n c\nRUN d \\\nRUN e", [("FROM", "a"), ("RUN", "b  c"), ("RUN", "d \\"), ("RUN", "e")]),
        ("#escape = `\nFROM a\nRUN `\nb", [("FROM", "a"), ("RUN", "b")]),
        ("# nothing\n# escape=`\nFROM a\nRUN b \\\nc", [("FROM", "a"), ("RUN", "b c")]),
        ("FROM a\nRUN  \t b  ", [("FROM", "a"), ("RUN", "b")]),
        ("FROM a\nRUN b # no comment", [("FROM", "a"), ("RUN", "b # no comment")]),
        ("FROM a\nRUN b \\", [("FROM", "a"), ("RUN", "b")]),
        ("FROM a\nONBUILD RUN x", [("FROM", "a"), ("ONBUILD", "RUN x")]),
    ],
)
def test_instructions(text: str, wanted: list[tuple[str, str]]) -> None:
    assert cut(text) == wanted


@pytest.mark.parametrize(
    ("text", "rest", "wanted"),
    [
        (
            "RUN --network=none --mount=type=tmpfs,target=/x a --b",
            "a --b",
            [("network", "none"), ("mount", "type=tmpfs,target=/x")],
        ),
        ("RUN --mount='type=bind,source=a b,target=/x' y", "y", [("mount", "type=bind,source=a b,target=/x")]),
        ('RUN --mount=type=bind,source="a b",target=/x y', "y", [("mount", "type=bind,source=a b,target=/x")]),
        ("RUN --network=none -- --a", "--a", [("network", "none")]),
        ("COPY --link --chown=a:b x y", "x y", [("link", None), ("chown", "a:b")]),
        ("RUN \\\n  --network=none \\\n  a", "a", [("network", "none")]),
    ],
)
def test_flags(text: str, rest: str, wanted: list[tuple[str, str | None]]) -> None:
    one = dockerfile.read(f"FROM a\n{text}".encode()).instructions[1]
    assert (one.rest, list(one.flags)) == (rest, wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("RUN <<EOF\na\nb\nEOF", [Heredoc("EOF", "a\nb\n", True, False)]),
        ("RUN <<-EOF\n\ta\n\t\tEOF", [Heredoc("EOF", "\ta\n", True, True)]),
        ("RUN <<'EOF'\n$A\nEOF", [Heredoc("EOF", "$A\n", False, False)]),
        ('RUN <<"EOF"\nEOF', [Heredoc("EOF", "", False, False)]),
        ("RUN cat <<A > x && cat <<B > y\n1\nA\n2\nB", [Heredoc("A", "1\n", True, False), Heredoc("B", "2\n", True, False)]),
        ("RUN 3<<EOF cat\nx\nEOF", [Heredoc("EOF", "x\n", True, False)]),
        ("COPY <<robots.txt /srv/\nx\nrobots.txt", [Heredoc("robots.txt", "x\n", True, False)]),
        ("COPY --chown=1:2 <<A <<B /srv/\n1\nA\n2\nB", [Heredoc("A", "1\n", True, False), Heredoc("B", "2\n", True, False)]),
        ("RUN <<EOF\n# no comment\n\n\\\nEOF", [Heredoc("EOF", "# no comment\n\n\\\n", True, False)]),
        ("RUN <<EOF\n EOF\nEOF", [Heredoc("EOF", " EOF\n", True, False)]),
        ("RUN echo '<<EOF'", []),
        ('RUN echo "x <<EOF"', []),
        ("RUN echo $((1<<3))", []),
        ("RUN cat <<<word", []),
        ("RUN echo a<<EOF", []),
        ('RUN ["cat", "<<EOF"]', []),
        ("LABEL a=<<EOF", []),
    ],
)
def test_heredocs(text: str, wanted: list[Heredoc]) -> None:
    file = dockerfile.read(f"FROM a\n{text}\nCMD after".encode())
    assert list(file.instructions[1].heredocs) == wanted
    assert file.instructions[2].rest == "after"


def test_a_heredoc_put_off_is_of_what_is_put_off() -> None:
    file = dockerfile.read(b"FROM a\nONBUILD COPY <<X /x\nhello\nX\n")
    inner = file.instructions[1].inner
    assert inner is not None
    assert inner.heredocs[0].content == "hello\n"
    step = instructions.read(file)[1]
    assert isinstance(step, instructions.OnBuild)
    again = instructions.read(dockerfile.read(step.text.encode()))[0]
    assert isinstance(again, instructions.Copy)
    assert again.inline[0].plain == "hello\n"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", (1, 1), "no instruction"),
        ("# only\n\n", (1, 1), "no instruction"),
        ("FROM a\n\n  BOGUS x", (3, 3), "unknown instruction: BOGUS"),
        ("FROM a\nRUNN x", (2, 1), "did you mean RUN?"),
        ("FROM a\nRUN", (2, 1), "RUN requires at least one argument"),
        ("FROM a\nRUN <<EOF\nx", (2, 1), "unterminated heredoc"),
        ("# escape=x\nFROM a", (1, 1), "invalid ESCAPE"),
        ("# escape=`\n# escape=`\nFROM a", (2, 1), "only one escape parser directive"),
        ("FROM a b", (1, 1), "either one or three arguments"),
        ("FROM a AS 1x", (1, 1), "invalid name for build stage"),
        ("FROM a AS X\nRUN \\\n\n x\nCOPY a", (5, 1), "at least two arguments"),
        ("FROM a\nCOPY a b c", (2, 1), "must be a directory and end with a /"),
        ("FROM a\nCOPY --form=x a b", (2, 1), "unknown flag: --form (did you mean --from?)"),
        ("FROM a\nCOPY --from a b", (2, 1), "missing a value on flag: --from"),
        ("FROM a\nCOPY --link=maybe a b", (2, 1), "boolean"),
        ("FROM a\nCOPY --from=x --from=y a b", (2, 1), "duplicate flag"),
        ("FROM a\nCOPY --from=$X a b", (2, 1), "variable expansion is not supported for --from"),
        ("FROM a\nWORKDIR --x a", (2, 1), "has no flags"),
        ("FROM a\nENV A", (2, 1), "must have two arguments"),
        ("FROM a\nENV A=b C", (2, 1), "can't find ="),
        ("FROM a\nLABEL =b", (2, 1), "names can not be blank"),
        ("FROM a\nARG =b", (2, 1), "names can not be blank"),
        ("FROM a\nSHELL sh", (2, 1), "JSON form"),
        ("FROM a\nSHELL []", (2, 1), "JSON form"),
        ("FROM a\nVOLUME []", (2, 1), "empty"),
        ("FROM a\nSTOPSIGNAL a b", (2, 1), "exactly one argument"),
        ("FROM a\nUSER a b", (2, 1), "exactly one argument"),
        ("FROM a\nONBUILD FROM b", (2, 1), "isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD ONBUILD RUN b", (2, 1), "Chaining ONBUILD"),
        ("FROM a\nONBUILD MAINTAINER b", (2, 1), "isn't allowed"),
        ("FROM a\nONBUILD COPY b", (2, 1), "at least two arguments"),
        ("FROM a\nHEALTHCHECK x", (2, 1), "Unknown type"),
        ("FROM a\nHEALTHCHECK CMD", (2, 1), "Missing command"),
        ("FROM a\nHEALTHCHECK NONE x", (2, 1), "takes no arguments"),
        ("FROM a\nHEALTHCHECK --interval=1 CMD x", (2, 1), "a duration is written like 1m30s"),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x", (2, 1), "less than 1ms"),
        ("FROM a\nHEALTHCHECK --retries=x CMD x", (2, 1), "a whole number"),
        ("FROM a\nRUN --network=lan x", (2, 1), "invalid network mode"),
        ("FROM a\nRUN --security=none x", (2, 1), "invalid security"),
        ("FROM a\nRUN --mount=type=nfs,target=/x x", (2, 1), "unsupported mount type"),
        ("FROM a\nRUN --mount=type=cache x", (2, 1), "needs a target"),
        ("FROM a\nRUN --mount=type=cache,targat=/x x", (2, 1), "did you mean target?"),
        ("FROM a\nRUN --mount=type=cache,target=/x,sharing=no x", (2, 1), "unsupported sharing"),
        ("FROM a\nRUN --mount=target=/x,from=$A x", (2, 1), "doesn't support variable expansion"),
        ("FROM a\nRUN --mount=target=/x,ro=perhaps x", (2, 1), "invalid value for ro"),
        ("FROM a\nRUN a\0b", (2, 1), "zero byte"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, place: tuple[int, int], words: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        instructions.read(dockerfile.read(text.encode(), "my.Dockerfile"))
    assert str(caught.value).startswith(f"my.Dockerfile:{place[0]}:{place[1]}: ")
    assert words in caught.value.why


def test_all_mistakes_are_shown_at_once() -> None:
    text = "FROM a\nNO c\nCOPY a\nRUN fine\nEXPOSE\n" + "WRONG\n" * 90
    with pytest.raises(DockerfileError) as caught:
        instructions.read(dockerfile.read(text.encode()))
    said = [line for line in str(caught.value).splitlines() if line.startswith(("Dockerfile", "…"))]
    assert [line.partition(": ")[0] for line in said[:4]] == [f"Dockerfile:{n}:1" for n in (2, 3, 5, 6)]
    assert said[-1] == f"… and {93 - len(said[:-1])} more"
    assert len(str(caught.value)) < 2000


def test_the_lines_around_are_shown() -> None:
    with pytest.raises(DockerfileError) as caught:
        instructions.read(dockerfile.read(b"FROM a\nRUN b\nNO c\nRUN d\nRUN e\nRUN f"))
    assert str(caught.value).splitlines()[1:] == [
        "   1 |     FROM a",
        "   2 |     RUN b",
        "   3 | >>> NO c",
        "   4 |     RUN d",
        "   5 |     RUN e",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('CMD ["a", "b"]', instructions.Command(("a", "b"), False)),
        ("CMD a b", instructions.Command(("a b",), True)),
        ("CMD ['a']", instructions.Command(("['a']",), True)),
        ("CMD []", instructions.Command((), False)),
        ('CMD ["a", 1]', instructions.Command(('["a", 1]',), True)),
    ],
)
def test_commands_keep_their_form(text: str, wanted: instructions.Command) -> None:
    step = instructions.read(dockerfile.read(f"FROM a\n{text}".encode()))[1]
    assert isinstance(step, instructions.Cmd)
    assert step.command == wanted


PIECES = st.sampled_from(
    [
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ONBUILD",
        "HEALTHCHECK",
        "CMD",
        " ",
        "\t",
        "\n",
        "\\\n",
        "\\",
        "#",
        "# escape=`\n",
        "`",
        "<<EOF",
        "<<-'E'",
        "EOF",
        "E",
        "--mount=type=",
        "cache,",
        "target=/x",
        "--from=",
        "--",
        "=",
        '"',
        "'",
        "[",
        "]",
        "$A",
        "${A:-",
        "}",
        "a",
        "/",
        "é",
        "\0",
        "\ud800",
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        instructions.read(dockerfile.read(text.encode("utf-8", "surrogatepass")))
    except DockerfileError as error:
        assert error.line <= text.count("\n") + 1
