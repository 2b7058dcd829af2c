"""When requests show that an update is no good: surely during a step, and as they are at its end."""

from __future__ import annotations

import random

import pytest

from orchestrator.ingress.requests import Forwarded, read_line, rule_host
from orchestrator.server.traffic import Traffic, lower_bound
from orchestrator.stackfile.workloads import AbortOn

LIMITS = AbortOn(error_rate=1.0, p99_s=0.5)


def traffic(total: int, failed: int = 0, slow: int = 0) -> Traffic:
    made = Traffic(LIMITS)
    made.begin(frozenset({"web-5"}))
    for number in range(total):
        made.add("web-5", number < failed, 0.6 if number < slow else 0.01)
        made.add("web-1", True, 9.0)  # an old task: none of its business
    return made


CASES = {
    "nothing is known": (traffic(0), False, ""),
    "all is well": (traffic(1000), False, ""),
    "just at the limit": (traffic(1000, failed=10, slow=10), False, ""),
    "one failure is no proof, and counts at the end": (traffic(10, 1), False, "1 of 10 requests failed (10%)"),
    "half of them fail": (traffic(10, 5), True, "5 of 10 requests failed (50%)"),
    "two in a hundred, of a few": (traffic(200, 4), False, "4 of 200 requests failed (2%)"),
    "two in a hundred, of many": (traffic(3000, 60), True, "60 of 3000 requests failed (2%)"),
    "all are slow": (traffic(20, slow=20), True, "the p99 of 20 requests is 600 ms, abort_on.p99 is 500 ms"),
    "two in a hundred are slow": (traffic(3000, slow=60), True, "the p99 of 3000 requests is 600 ms"),
}


@pytest.mark.parametrize(("found", "surely", "why"), CASES.values(), ids=CASES)
def test_what_requests_show(found: Traffic, surely: bool, why: str) -> None:
    assert (found.surely_bad() is not None) is surely
    assert found.bad().startswith(why)
    assert bool(found.bad()) is bool(why)


def test_a_new_step_begins_with_nothing() -> None:
    found = traffic(100, failed=50)
    found.begin(frozenset({"web-5"}))
    assert found.blind
    assert not found.bad()


def test_what_is_good_enough_is_hardly_ever_taken_back() -> None:
    """A thousand steps of 2000 requests of which half the limit fails, looked at after each."""
    rnd, taken = random.Random(1), 0
    for _ in range(1000):
        made = Traffic(AbortOn(error_rate=1.0))
        made.begin(frozenset({"w"}))
        for _ in range(2000):
            made.add("w", rnd.random() < 0.005, 0.01)
            if made.failed >= 5 and made.surely_bad():
                taken += 1
                break
    assert taken <= 5


def test_the_lower_bound_lies_below_and_comes_near() -> None:
    assert lower_bound(0, 0) == lower_bound(0, 100) == 0.0
    assert 0.01 < lower_bound(60, 3000) < lower_bound(600, 30000) < 0.02


LINES = {
    "an answer": (
        b'{"msg":"upstream roundtrip","upstream":"10.5.0.1:80","duration":0.25,"status":200}\n',
        Forwarded("10.5.0.1:80", False, 0.25, 200),
    ),
    "a failure": (
        b'{"msg":"upstream roundtrip","upstream":"[fd00::1]:80","duration":0.25,"status":503}\n',
        Forwarded("[fd00::1]:80", True, 0.25, 503),
    ),
    "none": (
        b'{"msg":"upstream roundtrip","upstream":"10.5.0.1:80","duration":0.1,"error":"connect: connection refused"}\n',
        Forwarded("10.5.0.1:80", True, 0.1),
    ),
    "a host": (
        b'{"msg":"upstream roundtrip","upstream":"10.5.0.1:80","duration":0.5,"request":{"host":"a.org:8443"},"status":404}\n',
        Forwarded("10.5.0.1:80", False, 0.5, 404, "a.org:8443"),
    ),
    "a question about a rate": (
        b'{"msg":"upstream roundtrip","upstream":"unix//run/x.sock","duration":0.1,"status":204}\n',
        None,
    ),
    "a client that went away": (
        b'{"msg":"upstream roundtrip","upstream":"10.5.0.1:80","duration":0.1,"error":"context canceled"}\n',
        None,
    ),
    "another line": (b'{"msg":"selected upstream","dial":"10.5.0.1:80","total_upstreams":2}\n', None),
    "half a line": (b'{"msg":"upstream roundtrip","upstr', None),
}


@pytest.mark.parametrize(("line", "found"), LINES.values(), ids=LINES)
def test_what_a_proxy_says(line: bytes, found: Forwarded | None) -> None:
    assert read_line(line) == found


@pytest.mark.parametrize(
    ("asked", "host"),
    [
        ("a.org", "a.org"),
        ("A.org:8443", "a.org"),
        ("b.a.org", "*.a.org"),
        ("c.b.a.org", ""),
        ("evil.test", ""),
        ("[::1]:80", ""),
        ("", ""),
    ],
)
def test_requests_are_counted_by_the_hosts_of_rules_alone(asked: str, host: str) -> None:
    assert rule_host(asked, frozenset({"a.org", "*.a.org"})) == host, (
        "a client cannot make series by the names that it asks for"
    )
