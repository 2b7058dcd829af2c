"""Docker Compose's reference, the table in docs/compose.md, and the command line say the same: a row a verb and option."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli import cli, main
from orchestrator.cli.compose import compose, made
from orchestrator.cli.compose.reference import GLOBAL, REFUSED, VERBS, table, words

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [(verb, option, why) for verb, options in VERBS.items() for option, why in options.items()]


def said(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["compose", *arguments])
    assert done.exit_code == 2, done.output
    return done.output


@pytest.mark.parametrize("option", GLOBAL)
def test_options_before_the_verb(option: str) -> None:
    names, value = words(option)
    known = {name: p for p in compose.params if isinstance(p, click.Option) for name in p.opts}
    assert set(names) <= known.keys()
    assert bool(value) == (not known[names[-1]].is_flag)


@pytest.mark.parametrize(("verb", "option", "why"), OPTIONS, ids=[f"{v} {o}" for v, o, _ in OPTIONS])
def test_an_option_is_there_or_refused_by_name(verb: str, option: str, why: str) -> None:
    names, value = words(option)
    known = {name: p for p in made(verb).params if isinstance(p, click.Option) for name in p.opts}
    assert set(names) <= known.keys(), f"{set(names) - known.keys()} of {verb} is not there"
    assert len({id(known[name]) for name in names}) == 1
    assert value == (not known[names[0]].is_flag)
    if why.startswith("refused"):
        for name in names:
            output = said(verb, name, *(["x"] if value else []))
            assert f"{names[-1]} is {why}" in " ".join(output.split())


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_stands_for_two_things(verb: str) -> None:
    names = [name for p in made(verb).params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        (["up", "--menu=false", "-d", "--wait=true"], {"detach": True, "wait": True}),
        (["up", "--no-deps=false", "a"], {"no_deps": False, "services": ("a",)}),
        (["attach", "--sig-proxy=false", "a"], {"sig_proxy": False}),
        (
            ["run", "--rm=true", "-e", "A=true", "a", "x", "--rm=false"],
            {"remove": True, "env": ("A=true",), "command": ("x", "--rm=false")},
        ),
    ],
)
def test_flags_take_values_as_in_go(words: list[str], parsed: dict[str, object]) -> None:
    with made(words[0]).make_context(words[0], list(words[1:])) as context:
        assert {name: context.params[name] for name in parsed} == parsed


@pytest.mark.parametrize(("verb", "why"), REFUSED.items())
def test_a_verb_that_is_not_there_says_why(verb: str, why: str) -> None:
    assert f"{verb} is {why}" in " ".join(said(verb).split())


@pytest.mark.parametrize("name", ["pystack", "docker-compose"])
def test_without_a_verb_there_is_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    monkeypatch.setattr("sys.argv", [name])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (0 if name == "docker-compose" else 2)
    assert "Usage:" in "".join(capsys.readouterr())


def test_the_document_has_the_table() -> None:
    assert (ROOT / "docs" / "compose.md").read_text().endswith(table()), "pystack schema --table > docs/compose.md"
