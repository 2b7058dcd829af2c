"""Go templates: what each comes to, and what is told where one is wrong."""

from __future__ import annotations

import time

import pytest

from agent.contract.golang_template import TemplateError, expand
from agent.contract.swarm_placeholder import identifier, names_swarm

VALUES = {
    "Service": {"ID": "s", "Name": "web", "Labels": {"a": "b", "com.x": "y"}},
    "Node": {"ID": "i", "Hostname": "h", "Platform": {"OS": "linux", "Architecture": "amd64"}},
    "Task": {"ID": "t", "Name": "web.3.t", "Slot": "3"},
    "Ports": [{"Public": 80, "Private": 8080}, {"Public": 0, "Private": 9}],
    "None": [],
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
        ("{{range .Service.Labels}}{{.}},{{end}}", "b,y,"),
        ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}", "a=b;com.x=y;"),
        ("{{range $i, $p := .Ports}}{{if $i}}, {{end}}{{$p.Private}}{{end}}", "8080, 9"),
        ("{{range .Ports}}{{if not .Public}}{{continue}}{{end}}{{.Public}}->{{.Private}}{{end}}", "80->8080"),
        ("{{range .Ports}}{{.Private}}{{break}}{{end}}", "8080"),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{with .Service}}{{.Name}}/{{$.Task.Slot}}{{end}}", "web/3"),
        ('{{with ""}}a{{else with .Node}}{{.ID}}{{end}}', "i"),
        ('{{$x := "a"}}{{if true}}{{$x = "b"}}{{end}}{{$x}}', "b"),
        ('{{$x := "a"}}{{if true}}{{$x := "b"}}{{$x}}{{end}}{{$x}}', "ba"),
        ('{{define "p"}}<{{.}}>{{end}}{{template "p" .Task.Slot}}', "<3>"),
        ('{{block "p" .Node}}{{.Hostname}}{{end}}', "h"),
        ("{{(index .Ports 0).Private}}", "8080"),
        ('{{slice "abcdef" 1 3}}{{if and (gt 2 1) (le 1 1)}}!{{end}}', "bc!"),
        ('{{printf "%-5s|%05d|%.1f|%t" "ab" 7 1.25 true}}', "ab   |00007|1.2|true"),
        ("{{.None}}{{nil}}", "[]<no value>"),
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
        ("{{.Task}}", "is not text: name one of ID, Name, Slot", 1),
        ("{{if .Task.ID}}x", "{{if}} without its {{end}}", 1),
        ("x{{end}}", "{{end}} without its if", 1),
        ("{{range .Task.Slot}}{{end}}", "'3' has no parts to go over", 1),
        ("\n{{range .Ports}}x", "{{range}} without its {{end}}", 2),
        ("{{$x}}", "there is no $x", 1),
        ("{{$x = 1}}", "$x is not declared: write $x := …", 1),
        ("{{break}}", "{{break}} and {{continue}} stand in a {{range}}", 1),
        ('{{template "no"}}', "nothing defines 'no'", 1),
        ("{{template .X}}", 'write template "NAME"', 1),
        ("{{.Task.ID .Task.ID}}", ".Task.ID is not a function", 1),
        ("{{(.Task.ID}}", "( without its )", 1),
        ("{{.Task.ID)}}", "')' is not understood", 1),
        ("{{if}}{{end}}", "says nothing", 1),
        ("{{range $a, $b, $c := .Ports}}{{end}}", ":= sets variables", 1),
        ("{{index .Ports 5}}", "there is no part 5; there are 2", 1),
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


@pytest.mark.parametrize(
    "text",
    [
        "{{" * 100_000,
        "{{ (" * 50_000 + "}}",
        '{{"' * 50_000,
        "{{/*" * 50_000,
        "{{range 20000}}{{range 20000}}{{end}}{{end}}",
        '{{define "a"}}{{template "a"}}{{end}}{{template "a"}}',
        '{{define "a"}}' + "{{if true}}" * 40 + '{{template "a"}}' + "{{end}}" * 41 + '{{template "a"}}',
        '{{$x := "x"}}{{range 10000}}{{$x = print $x $x}}{{end}}',
        "{{range 19000}}" + "x" * 5000 + "{{end}}",
    ],
)
def test_a_hostile_template_costs_no_more_than_its_length(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(TemplateError):
        expand(text, VALUES)
    names_swarm(text)
    assert time.monotonic() - begun < 5


def test_identifiers_are_those_of_their_words() -> None:
    assert identifier("a", "b") == identifier("a", "b") != identifier("ab", "")
    assert len(identifier("a")) == 25


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{if .None}}{{else range .Ports}}{{end}}", "only if can follow"),
        ("{{template x}}", 'write template "NAME"'),
        ("{{" + "(" * 200 + "1" + ")" * 200 + "}}", "parentheses"),
        ("{{}}", "says nothing"),
        ("{{.Task.Slot ~ 1}}", "is not understood"),
        ('{{index .Task.Slot "a" "b"}}', "has no parts"),
        ("{{slice .Task.Name 0 1 2}}", "up to two bounds"),
        ("{{slice .Task.Name 3 1}}", "there is no part from 3 to 1"),
        ('{{printf "%s %s" "a"}}', "wants more than 1 values"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        expand(text, VALUES, FUNCTIONS)
    assert said in str(caught.value)


def test_parts_of_texts_lists_and_mappings() -> None:
    assert (
        expand("{{slice .Task.Name 0 3}} {{slice .Task.Name 4}} {{slice .Task.Name}}", VALUES, FUNCTIONS) == "web 3.t web.3.t"
    )
    assert expand("{{print .Service.Labels}}", VALUES, FUNCTIONS) == "map[a:b com.x:y]"
    assert expand('{{define "x"}}<{{.}}>{{end}}{{template "x" .Task.Slot}}', VALUES, FUNCTIONS) == "<3>"
