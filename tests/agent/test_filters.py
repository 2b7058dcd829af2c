"""The `filters` of lists. Source: Docker Engine API v1.48; docker-ps(1)."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from agent.api import filters
from agent.api.filters import Filters
from agent.errors import BadRequestError


def asked(given: Any) -> Filters:
    text = given if isinstance(given, str) else json.dumps(given)
    return Filters(make_mocked_request("GET", f"/x?filters={quote(text)}"))


ITEMS = ["red apple", "green apple", "red pear"]
TESTS = {"colour": lambda item, value: item.startswith(value), "label": lambda item, value: value in item}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ITEMS),
        ("null", ITEMS),
        ("", ITEMS),
        ({"colour": ["red"]}, ["red apple", "red pear"]),
        ({"colour": ["red", "green"]}, ITEMS),
        ({"colour": {"green": True}}, ["green apple"]),
        ({"colour": "green"}, ["green apple"]),
        ({"label": ["red", "pear"]}, ["red pear"]),
        ({"colour": ["red"], "label": ["apple"]}, ["red apple"]),
        ({"colour": []}, ITEMS),
    ],
)
def test_one_value_of_a_key_must_match_but_all_labels(wanted: Any, found: list[str]) -> None:
    assert asked(wanted).chosen(ITEMS, TESTS) == found


@pytest.mark.parametrize("text", ["[", "[]", "1", '{"a": 1}', "[" * 20_000], ids=lambda t: t[:9])
def test_what_is_no_object_of_lists_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="an object of lists"):
        asked(text)


def test_a_key_that_is_not_known_is_refused() -> None:
    with pytest.raises(BadRequestError, match="Invalid filter 'shape'"):
        asked({"shape": ["round"]}).chosen(ITEMS, TESTS)


def test_values_are_checked_where_the_list_is_empty_too() -> None:
    check = filters.one_of("invalid filter 'status={}'", "up", "down")
    asked({"status": ["up", "down"]}).check(status=check)
    with pytest.raises(BadRequestError, match="invalid filter 'status=sideways'"):
        asked({"status": ["up", "sideways"]}).check(status=check)


@pytest.mark.parametrize(
    ("wanted", "holds"), [("a", True), ("a=1", True), ("a=2", False), ("b", False), ("a=", False), ("empty=", True)]
)
def test_labels(wanted: str, holds: bool) -> None:
    assert filters.labelled({"a": "1", "empty": ""}, wanted) == holds


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("a/?", "a/b", True),
        ("a.c", "abc", False),
        ("[ab]*", "bc", True),
        ("[a-c]", "d", False),
    ],
)
def test_patterns_of_names(pattern: str, path: str, matches: bool) -> None:
    assert filters.path_matches(pattern, path) == matches


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(BadRequestError, match="syntax error in pattern"):
        filters.path_matches("[z-a]", "b")


@pytest.mark.parametrize("text", ["a" * 257, "a*b*c*d*", "(a)*", "(a|b){2}"])
def test_what_may_match_for_ever_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="at most 256 characters"):
        filters.pattern(text)


@pytest.mark.parametrize(("text", "is_one"), [("^web", True), ("a.*", True), ("[", False)])
def test_an_expression_that_is_none_stands_for_itself(text: str, is_one: bool) -> None:
    assert (filters.pattern(text) is not None) == is_one


@pytest.mark.parametrize(("word", "value"), [("1", True), ("True", True), ("t", True), ("0", False), ("F", False)])
def test_words_of_truth(word: str, value: bool) -> None:
    assert filters.truth(word) is value


@pytest.mark.parametrize("word", ["", "yes", "2"])
def test_other_words_are_neither(word: str) -> None:
    with pytest.raises(BadRequestError, match="neither true nor false"):
        filters.truth(word)


@pytest.mark.parametrize("word", ["", "x", "1.5"])
def test_what_is_no_whole_number_is_refused(word: str) -> None:
    with pytest.raises(BadRequestError, match="Atoi"):
        filters.whole(word)


@given(st.integers(-(10**18), 10**18))
def test_whole_numbers(number: int) -> None:
    assert filters.whole(str(number)) == number


@pytest.mark.parametrize(
    ("text", "before_s"), [("24h", 86_400), ("1h30m", 5400), ("+1.5s", 1.5), ("-2m", -120), ("250ms", 0.25), ("7us", 7e-6)]
)
def test_a_duration_is_before_now(text: str, before_s: float) -> None:
    assert filters.moment_of(text) == pytest.approx(time.time() - before_s, abs=2)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1700000000", 1.7e9), ("2023-11-14T22:13:20Z", 1.7e9), ("2023-11-14T22:13:20.5Z", 1.7e9 + 0.5)]
)
def test_a_time_is_itself(text: str, seconds: float) -> None:
    assert filters.moment_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["soon", "1h soon", "2023-13-01T00:00:00Z"])
def test_what_is_no_time_is_refused_with_where_it_stands(text: str) -> None:
    with pytest.raises(BadRequestError, match="since: failed to parse value as time or duration"):
        filters.moment(make_mocked_request("GET", f"/x?since={quote(text)}"), "since")


@pytest.mark.parametrize("query", ["", "since=", "since=0"])
def test_a_time_that_is_left_out_is_none(query: str) -> None:
    assert filters.moment(make_mocked_request("GET", f"/x?{query}"), "since") is None
