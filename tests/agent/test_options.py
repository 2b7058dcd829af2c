"""Options of a container whose values are plain: declared once, the same in every layer."""

from __future__ import annotations

import typing

import click
import msgspec
import pytest
from click.testing import CliRunner

from agent.api import plain_options, shapes, translate
from agent.contract.container import Container
from agent.contract.options import OPTIONS, Kind, Option
from orchestrator.cli import plain_options as cli_options
from orchestrator.convert.document import Document
from orchestrator.convert.run import service_of
from orchestrator.stackfile import schema, service

TYPES = {
    Kind.FLAG: bool,
    Kind.TEXT: str,
    Kind.WHOLE: int,
    Kind.SIZE: int,
    Kind.WORDS: tuple[str, ...],
    Kind.WORD_OR_WORDS: tuple[str, ...],
    Kind.PAIRS: tuple[tuple[str, str], ...],
}
SAID = {
    Kind.FLAG: ("true", True),
    Kind.TEXT: ("x", "x"),
    Kind.WHOLE: ("7", 7),
    Kind.SIZE: ("64m", 64 << 20),
    Kind.WORDS: ("x", ["x"]),
    Kind.WORD_OR_WORDS: ("x", ["x"]),
    Kind.PAIRS: ("a=b", {"a": "b"}),
}
"""Of each kind: a value as a command line has it, and as a request of the Engine API."""
IDS = [o.field for o in OPTIONS]
IN_API = [o for o in OPTIONS if o.host or o.config]
FIELDS = {f.name: f for f in msgspec.structs.fields(Container)}


@pytest.mark.parametrize("option", OPTIONS, ids=IDS)
def test_a_field_has_the_type_of_its_kind_and_the_default_that_says_nothing(option: Option) -> None:
    field = FIELDS[option.field]
    assert typing.get_type_hints(Container)[option.field] == TYPES[option.kind]
    assert not field.default


@pytest.mark.parametrize("name", ["field", "key", "host", "config", "flag", "short"])
def test_a_name_stands_for_one_option(name: str) -> None:
    names = [n for o in OPTIONS if (n := getattr(o, name))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS if o.host or o.config], ids=[o.field for o in OPTIONS if o.host or o.config]
)
def test_the_engine_api_has_it_both_ways(option: Option) -> None:
    value = SAID[option.kind][1]
    host = {option.host: value} if option.host else {}
    sent = {"Image": "x", "HostConfig": host, **({option.config: value} if option.config else {})}
    body = translate.named(shapes.read(msgspec.json.encode(sent), shapes.CREATE))
    container = translate.container(body)
    assert getattr(container, option.field)
    if option.host:
        assert plain_options.host_config(container)[option.host] == value
        assert (option.host in shapes.UPDATE) == option.limit


def test_what_was_not_said_is_null_or_empty_in_answers() -> None:
    shown = plain_options.host_config(Container(image="x"))
    assert (shown["CapAdd"], shown["Sysctls"], shown["Dns"]) == (None, None, [])


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.key], ids=[o.field for o in OPTIONS if o.key])
def test_a_stack_file_and_docker_run_have_it(option: Option) -> None:
    assert schema.SERVICE["properties"][option.key]["description"] == option.does
    assert option.key in service.KEYS
    if option.flag:
        document = Document()
        text = SAID[option.kind][0]
        words = [option.flag] if option.kind is Kind.FLAG else [option.flag, text]
        body = document.services[service_of(document, [*words, "image"])]
        assert body[option.key] == {Kind.FLAG: True, Kind.PAIRS: {"a": "b"}, Kind.WORDS: [text]}.get(
            option.kind, [text] if option.kind is Kind.WORD_OR_WORDS else text
        )


def test_the_command_line_makes_the_request_of_the_engine_api() -> None:
    made: dict[str, object] = {}

    @click.command()
    @cli_options.options
    def command(**given: object) -> None:
        made.update(cli_options.config(given) | cli_options.host_config(given))

    shown = [o for o in OPTIONS if o.flag]
    words = [w for o in shown for w in ((o.flag,) if o.kind is Kind.FLAG else (o.flag, SAID[o.kind][0]))]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert made == {o.host or o.config: SAID[o.kind][1] for o in shown}
    assert "--memory 5x" in CliRunner().invoke(command, ["--memory", "5x"]).output
