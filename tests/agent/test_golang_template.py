"""Go templates: what each comes to, and what is told where one is wrong."""

from __future__ import annotations

import time

import pytest

from agent.contract.golang_template import TemplateError, expand, identifier, names_swarm

VALUES = {
    "Service": {"ID": "s", "Name": "web", "Labels": {"a": "b", "com.x": "y"}},
    "Node": {"ID": "i", "Hostname": "h", "Platform": {"OS": "linux", "Architecture": "amd64"}},
    "Task": {"ID": "t", "Name": "web.3.t", "Slot": "3"},
}
FUNCTIONS = {"env": lambda name: f"E{name}"}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("x", "x"),
        ("{{.Service.Name}}-{{ .Task.Slot }}", "web-3"),
        ("a {{- .Task.Slot -}} b", "a3b"),
        ('{{index .Service.Labels "com.x"}}', "y"),
        ("{{.Service.Labels.a}}", "b"),
        ("{{.Node.Platform.OS}}", "linux"),
        ('{{if eq .Node.Hostname "h"}}yes{{else}}no{{end}}', "yes"),
        ('{{if eq .Node.Hostname "x"}}yes{{else}}no{{end}}', "no"),
        ('{{if eq .Task.Slot "1"}}one{{else if .Task.Slot}}more{{else}}none{{end}}!', "more!"),
        ("{{if .Task.Slot}}{{if not .Task.Slot}}a{{end}}b{{end}}", "b"),
        ("{{/* }} */}}x", "x"),
        ('{{printf "%s-%d%%" .Task.Slot 4}}', "3-4%"),
        ('{{.Task.Slot | printf "%q;"}}', '"3";'),
        ('{{join "," "a" "b"}}', "a,b"),
        ('{{"}}"}}', "}}"),
        ('{{(index .Service.Labels "a")}}', "b"),
        ("a }} {b}", "a }} {b}"),
        ('{{env "X" | print "a"}}', "aEX"),
        ('{{or "" .Task.Slot}}{{and "a" ""}}{{ne "a" "b"}}{{len "abc"}}', "3true3"),
        ("{{`raw\\n`}}", "raw\\n"),
    ],
)
def test_what_a_template_comes_to(text: str, want: str) -> None:
    assert expand(text, VALUES, FUNCTIONS) == want


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("a\nb {{.Service.Nmae}}", "there is no .Service.Nmae; there is .Service.ID", 2),
        ("{{.Bad}}", "there is no .Bad", 1),
        ("{{trim .Task.Slot}}", "there is no trim; there is and, env", 1),
        ("\n\n{{", "{{ without its }}", 3),
        ("{{}}", "says nothing", 1),
        ("{{.Task}}", "is no text: name one of ID, Name, Slot", 1),
        ("{{if .Task.ID}}x", "{{if}} without its {{end}}", 1),
        ("x{{end}}", "{{end}} without its if", 1),
        ("{{range .Service.Labels}}{{end}}", "range is not supported", 1),
        ('{{index .Service.Labels "q"}}', "there is no 'q'", 1),
        ("{{.Task.Slot !}}", "'!' is not understood", 1),
        ("{{/* x", "{{ without its }}", 1),
        ('{{"a}}', "{{ without its }}", 1),
        ("{{if .Task.ID}}\n" * 60, "nested more than 50 deep", 51),
    ],
)
def test_what_is_wrong_has_its_line(text: str, words: str, line: int) -> None:
    with pytest.raises(TemplateError) as caught:
        expand(text, VALUES, FUNCTIONS)
    assert words in str(caught.value)
    assert caught.value.line == line


def test_every_branch_is_looked_at_before() -> None:
    text = "{{if .Task.Slot}}a{{else}}{{.Bad}}{{end}}"
    assert expand(text, VALUES) == "a"
    with pytest.raises(TemplateError, match=r"\.Bad"):
        expand(text, VALUES, every=True)


def test_braces_of_others_are_no_templates() -> None:
    assert names_swarm("{{.Node.Hostname}}-x")
    assert not names_swarm('Host(`{{ index .Labels "com.docker.compose.service" }}.x`)')
    assert not names_swarm("{{.Names}} .Task.Slot")


@pytest.mark.parametrize("text", ["{{" * 100_000, "{{ (" * 50_000 + "}}", '{{"' * 50_000, "{{/*" * 50_000])
def test_a_hostile_template_costs_no_more_than_its_length(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(TemplateError):
        expand(text, VALUES)
    names_swarm(text)
    assert time.monotonic() - begun < 5


def test_identifiers_are_those_of_their_words() -> None:
    assert identifier("a", "b") == identifier("a", "b") != identifier("ab", "")
    assert len(identifier("a")) == 25
