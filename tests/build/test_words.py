"""Variables: by table as the Dockerfile reference has them, and beside a real shell."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.build.words import Expansion, WordError

VALUES = {"A": "abc.tar.gz", "EMPTY": "", "B": "two words", "P": "/usr/local/bin", "N": "A"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("$A", "abc.tar.gz"),
        ("${A}", "abc.tar.gz"),
        ("$Ax", ""),
        ("${A}x", "abc.tar.gzx"),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A"', "abc.tar.gz"),
        ('"\\$A"', "$A"),
        ('"a\\b"', "a\\b"),
        ("a\\b", "ab"),
        ("'a\\'", "a\\"),
        ("$", "$"),
        ("a$", "a$"),
        ("$ x", "$ x"),
        ("$.x", "$.x"),
        ("$1", ""),
        ("$UNSET", ""),
        ("${UNSET}", ""),
        ("${A:-x}", "abc.tar.gz"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${UNSET-x}", "x"),
        ("${UNSET:-$N}", "A"),
        ("${A:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${UNSET+x}", ""),
        ("${UNSET:+${A}}", ""),
        ("${A:?no}", "abc.tar.gz"),
        ("${EMPTY?no}", ""),
        ("${UNSET:-${EMPTY:-${N}}}", "A"),
        ("${UNSET:-'$A'}", "$A"),
        ("${A%.*}", "abc.tar"),
        ("${A%%.*}", "abc"),
        ("${A#*.}", "tar.gz"),
        ("${A##*.}", "gz"),
        ("${P##*/}", "bin"),
        ("${P%/*}", "/usr/local"),
        ("${A#abc}", ".tar.gz"),
        ("${A#x}", "abc.tar.gz"),
        ("${A%?}", "abc.tar.g"),
        ("${A/a/X}", "Xbc.tar.gz"),
        ("${A//a/X}", "Xbc.tXr.gz"),
        ("${A//./}", "abctargz"),
        ("${A/.*/}", "abc"),
        ("${P//\\//-}", "-usr-local-bin"),
        ("${B}", "two words"),
    ],
)
def test_a_word(text: str, wanted: str) -> None:
    assert Expansion(VALUES).word(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${A", "not closed"),
        ("${", "a name is wanted"),
        ("${A:x}", "unsupported modifier"),
        ("${A^}", "unsupported modifier"),
        ("${UNSET:?set it}", "set it"),
        ("${UNSET?}", "not allowed to be unset"),
        ('"a', "double quote"),
        ("'a", "single quote"),
        ("${A:-", "not closed"),
        ("${A/x", "not closed"),
        ("${A/x/y", "not closed"),
    ],
)
def test_what_cannot_be_expanded(text: str, words: str) -> None:
    with pytest.raises(WordError, match=words):
        Expansion(VALUES).word(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("80 443/tcp", ["80", "443/tcp"]),
        ("$B", ["two", "words"]),
        ('"$B"', ["two words"]),
        ("a$B", ["atwo", "words"]),
        ("$EMPTY x", ["x"]),
        ('"" x', ["", "x"]),
        ("a\\ b", ["a b"]),
        ("  ", []),
    ],
)
def test_words(text: str, wanted: list[str]) -> None:
    assert Expansion(VALUES).words(text) == wanted


def test_what_is_told_is_short() -> None:
    with pytest.raises(WordError) as caught:
        Expansion({}).word("${" + "z" * 9000)
    assert len(str(caught.value)) < 500


def test_the_escape_character_is_the_files() -> None:
    assert Expansion(VALUES, "`").word("`$A c:\\x $N") == "$A c:\\x A"


def test_what_was_asked_for_is_known() -> None:
    expand = Expansion(VALUES)
    expand.word("${A:-$UNSET} $B")
    assert expand.used == {"A", "B", "UNSET"}


def test_no_pattern_takes_long() -> None:
    values = {"X": "a" * 5000}
    assert Expansion(values).word("${X##*a*a*a*a*a*a*a*a*b}") == values["X"]
    with pytest.raises(WordError, match="too costly"):
        Expansion({"X": "a" * 50_000}).word("${X//*b*/}")
    with pytest.raises(WordError, match="deep"):
        Expansion({}).word("${X:-" * 1000)
    with pytest.raises(WordError, match="longer"):
        Expansion({"X": "a" * 100_000}).word("$X" * 20)


TEXT = st.text("ab./", max_size=8)


@settings(max_examples=60)
@given(value=TEXT, pattern=st.text("ab./*?", max_size=5), operator=st.sampled_from(["#", "##", "%", "%%"]))
def test_patterns_mean_what_a_shell_means_by_them(value: str, pattern: str, operator: str) -> None:
    script = f'printf %s "${{V{operator}{pattern}}}"'
    said = subprocess.run(["sh", "-c", script], env={"V": value}, capture_output=True, text=True, check=True).stdout
    assert Expansion({"V": value}).word(f"${{V{operator}{pattern}}}") == said


@given(st.text("$A{}:-+?#%/'\"\\ x*", max_size=30))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        Expansion(VALUES).word(text)
        Expansion(VALUES).words(text)
    except WordError as error:
        assert str(error)
