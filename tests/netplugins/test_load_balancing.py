"""Which backend serves which bucket, and the maps of services. No root."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplugins.driver import LoadBalancer
from netplugins.load_balancing import LARGE, SMALL, buckets, declare, weighted
from netplugins.script import Script

BACKENDS = st.lists(st.integers(1, 250).map("10.1.0.{}".format), min_size=1, max_size=30, unique=True)


@given(BACKENDS, st.sampled_from((SMALL, LARGE)))
def test_backends_have_even_shares(backends: list[str], count: int) -> None:
    found = Counter(buckets(tuple(backends), count))
    served = sorted(backends)[:count]
    assert found.total() == count
    assert set(found) == set(served)
    assert max(found.values()) - min(found.values()) <= 1


@given(BACKENDS)
def test_the_order_of_backends_does_not_matter(backends: list[str]) -> None:
    assert buckets(tuple(backends), SMALL) == buckets(tuple(reversed(backends)), SMALL)


def test_without_backends_there_are_no_buckets() -> None:
    assert buckets((), SMALL) == ()


def test_a_backend_that_goes_leaves_most_buckets_of_others_alone() -> None:
    backends = tuple(f"10.1.0.{n}" for n in range(1, 9))
    before, after = buckets(backends, LARGE), buckets(backends[:-1], LARGE)
    moved = sum(a != b for a, b in zip(before, after, strict=True))
    assert LARGE // 8 <= moved <= LARGE // 3


def service(backends: int, *, address: str = "10.1.0.200", port: bool = False) -> LoadBalancer:
    names = tuple(f"10.1.0.{n + 1}" for n in range(backends))
    return LoadBalancer(version=4, address=address, ports=((443, "tcp", 80),) if port else (), backends=names)


def test_a_service_is_elements_of_the_map_of_its_size() -> None:
    script = Script()
    rules, ports = declare(script, [service(1), service(9, address="10.1.0.201"), service(1, address="", port=True)])
    assert [rule.rpartition("@")[2] for rule in rules] == ["service4_16", "service4_256"]
    assert ports == [
        "meta nfproto ipv4 dnat ip to tcp dport . numgen random mod 16 map @ingress_tcp4_16",
    ]
    (part,) = script.elements["service4_16"]
    assert part == {f"10.1.0.200 . {n} : 10.1.0.1" for n in range(SMALL)}
    assert script.elements["ingress_tcp4_16"] == (frozenset(f"443 . {n} : 10.1.0.1 . 80" for n in range(SMALL)),)
    assert len(script.elements["service4_256"][0]) == LARGE


def test_a_change_leaves_the_parts_of_other_services_the_same_objects() -> None:
    one, other = service(2), service(3, address="10.1.0.201")
    first, second = Script(), Script()
    declare(first, [one, other])
    declare(second, [service(4), other])
    assert first.elements["service4_16"][1] is second.elements["service4_16"][1]
    assert first.elements["service4_16"][0] is not second.elements["service4_16"][0]


@pytest.mark.parametrize(
    ("weights", "shares"),
    [((1, 1), (128, 128)), ((5, 95), (13, 243)), ((1, 99_999), (1, 255)), ((0, 3), (0, 256)), ((1, 1, 1), (86, 85, 85))],
)
def test_weights_are_shares_of_buckets(weights: tuple[int, ...], shares: tuple[int, ...]) -> None:
    backends = ("10.0.0.1", "10.0.0.2", "10.0.0.3")[: len(weights)]
    found = Counter(weighted(backends, weights, LARGE))
    assert tuple(found[b] for b in backends) == shares


def test_without_any_weight_there_are_no_buckets() -> None:
    assert weighted(("10.0.0.1",), (0,), LARGE) == ()
