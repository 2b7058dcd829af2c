"""docker-py's kinds of use, as tests/beside has them: a node shows what Docker's own daemon did, but for what is meant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.beside.__main__ import MEANT, PROGRAMS, compared, differences
from tests.conftest import cluster_of

# the client library leaves sockets and files to the garbage collector
pytestmark = [
    pytest.mark.long,
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def socket() -> Iterator[str]:
    """Of a node that has no image but busybox, and nothing else that programs could see."""
    with cluster_of(1) as lab:
        yield f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_sees_what_it_sees_of_dockers_daemon(socket: str, name: str) -> None:
    assert compared(name, socket)[0] == []


def test_a_difference_is_found() -> None:
    there = {"a": {"b": [1, {"c": "x"}]}, "status": 500, "gone": None}
    assert differences(there, {"a": {"b": [1, {"c": "x", "more": 1}]}, "status": 400, "gone": None, "more": 2}) == []
    assert differences(there, {"a": {"b": [1, {"c": "y"}]}, "status": 500}) == [
        ".a.b[1].c: 'x' there, 'y' here",
        ".gone: None there, '<nothing>' here",
    ]
    assert differences({"s": 404}, {"s": 500}) == [".s: 404 there, 500 here"]
    assert all(why for why in MEANT.values())
