"""Ignore files, by the rules that Docker documents: one table of patterns, paths and verdicts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.build import ignore
from agent.errors import BadRequestError


def verdict(text: str, path: str) -> bool:
    return ignore.Rules(ignore.read(text)).ignores(path)


@pytest.mark.parametrize(
    ("text", "gone", "kept"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b", "ab", "b/a"]),
        ("/a", ["a", "a/b"], ["b/a"]),
        ("a/", ["a", "a/b"], ["b/a"]),
        ("./a/../b", ["b"], ["a"]),
        ("*", ["a", "a/b", ".git"], []),
        ("*.md", ["a.md", "a.md/x"], ["b/a.md", "a.mdx"]),
        ("*/temp*", ["b/temp", "b/temporary.txt", "b/temp/x"], ["temp", "a/b/temp"]),
        ("*/*/temp*", ["a/b/temp"], ["a/temp"]),
        ("temp?", ["tempa", "tempb"], ["temp", "tempab", "temp/"]),
        ("**/*.go", ["a.go", "b/a.go", "a/b/c.go"], ["a.gox"]),
        ("**/foo", ["foo", "a/foo", "a/b/foo", "a/foo/x"], ["foobar", "a/foobar"]),
        ("foo/**", ["foo/a", "foo/a/b"], ["foo", "foobar"]),
        ("foo/**/bar", ["foo/bar", "foo/a/bar", "foo/a/b/bar"], ["foo", "foo/barx"]),
        ("**", ["a", "a/b"], []),
        ("a/**/*.txt", ["a/x.txt", "a/b/x.txt"], ["x.txt", "a/x.txt.gz"]),
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt", "ab.txt"]),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("[^a]x", ["bx"], ["ax", "/x"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("a\\[b", ["a[b"], ["ab"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a+b", ["a+b"], ["aab"]),
        ("a(b)|{c}$", ["a(b)|{c}$"], ["ab"]),
        ("*\n!a", ["b", "b/c"], ["a", "a/b"]),
        ("*\n!a/b", ["a", "a/c"], ["a/b", "a/b/c"]),
        ("!a\na", ["a"], []),
        ("*.md\n!README*.md\nREADME-secret.md", ["a.md", "README-secret.md"], ["README.md", "README-x.md"]),
        ("*.md\nREADME-secret.md\n!README*.md", ["a.md"], ["README.md", "README-secret.md"]),
        ("# a\n\n  b  \n", ["b"], ["a", "# a"]),
        (" # a", ["# a"], ["a"]),
        ("\ufeffa", ["a"], []),
        ("! a\nb", ["b"], ["a"]),
        ("a\n! a/b ", ["a", "a/c"], ["a/b"]),
        (".", [], ["a"]),
        ("..", [], ["a"]),
        ("a\r\nb\r\n", ["a", "b"], []),
        ("docs\n!docs/README.md", ["docs", "docs/a"], ["docs/README.md"]),
        ("**/node_modules\n!keep/node_modules", ["a/node_modules/x", "node_modules"], ["keep/node_modules/x"]),
    ],
)
def test_patterns(text: str, gone: list[str], kept: list[str]) -> None:
    assert [p for p in gone if not verdict(text, p)] == []
    assert [p for p in kept if verdict(text, p)] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n!", "illegal exclusion"),
        ("[", "pattern 1"),
        ("a\n[a", "pattern 2"),
        ("a\\", "syntax error"),
        ("[]a", "syntax error"),
        ("[b-a]", "syntax error"),
        ("[a-]", "syntax error"),
        ("![", "syntax error"),
    ],
)
def test_what_is_no_pattern_is_told_with_its_number(text: str, words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        ignore.Rules(ignore.read(text))


@given(st.text("a*?[]^-\\/!. #\n", max_size=30), st.text("a/b.", min_size=1, max_size=12))
def test_any_file_is_read_or_refused(text: str, path: str) -> None:
    try:
        ignore.Rules(ignore.read(text)).ignores(path)
    except BadRequestError as error:
        assert str(error)


@given(
    st.lists(st.sampled_from(["a", "a/b", "*", "**/b", "!a", "!a/b", "c?", "[ab]"]), max_size=6),
    st.lists(st.sampled_from(["a", "b", "c1", "x"]), min_size=1, max_size=4),
)
def test_the_last_pattern_that_fits_says(patterns: list[str], parts: list[str]) -> None:
    """By another way: each pattern is asked of the path and of every directory above it."""
    wanted = False
    paths = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for pattern in patterns:
        if any(map(ignore.matcher(pattern.removeprefix("!")), paths)):
            wanted = not pattern.startswith("!")
    assert ignore.Rules(patterns).ignores("/".join(parts)) == wanted
