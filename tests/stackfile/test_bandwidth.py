"""`x-bandwidth`: what it may say, and which of three places counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.bandwidth import Bandwidth, merged, parse_rate, rate_text
from agent.contract.container import Attachment, Container, adjusted
from orchestrator.stackfile.load import Loaded, Options, load
from orchestrator.stackfile.problem import StackFileError

RATES = {
    "20mbit": 20_000_000,
    "1.5 Gbit": 1_500_000_000,
    "512kibit": 512 << 10,
    "8000": 8000,
    64000: 64000,
    "unlimited": 0,
}


@pytest.mark.parametrize(("text", "rate"), RATES.items(), ids=map(str, RATES))
def test_a_rate_is_read(text: object, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["20m", "20mbps", "-1mbit", "7kbit", "2tbit", "", "fast", True, None, "1e3bit", "9" * 40])
def test_what_is_no_rate_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"rate|bits|counts|from 8kbit"):
        parse_rate(text)


def test_a_rate_is_written_as_it_is_read() -> None:
    assert [rate_text(r) for r in (0, 20_000_000, 1_000_000_000, 1500, 12_345_678)] == [
        "unlimited",
        "20mbit",
        "1gbit",
        "1500bit",
        "12345678bit",
    ]


def test_of_several_places_the_nearest_that_says_something_counts() -> None:
    own, service, network = Bandwidth(ingress=0), Bandwidth(egress=8000), Bandwidth(ingress=9000, egress=9000, burst=5)
    assert merged(own, service, network) == Bandwidth(egress=8000, burst=5)
    assert merged(None, None) is None
    assert merged(Bandwidth(ingress=0), Bandwidth(ingress=9000)) is None


def test_a_node_takes_no_limit_that_nobody_can_keep() -> None:
    for wrong in ({"ingress": -1}, {"egress": 1 << 60}, {"ingress": 1}, {"burst": 1 << 40}):
        with pytest.raises(ValueError, match="bandwidth"):
            Bandwidth(**wrong)


def test_another_limit_is_given_while_the_container_runs() -> None:
    before = Container(image="i", attachments=(Attachment(network="n", bandwidth=Bandwidth(ingress=8000)),))
    after = Container(image="i", attachments=(Attachment(network="n"),))
    assert adjusted(before, after)
    assert adjusted(after, before)


def loaded(folder: Path, text: str) -> Loaded:
    file = folder / "stack.yml"
    file.write_text(text)
    return load(Options(files=(str(file),)), {})


FILE = """
services:
  a:
    image: i
    x-bandwidth: {egress: 10mbit}
    networks:
      front: {x-bandwidth: {ingress: 5mbit, burst: 64k}}
      back:
  b: {image: i, networks: [back]}
networks:
  front: {x-bandwidth: {ingress: 99mbit}}
  back: {x-bandwidth: {ingress: 1gbit}}
"""


def test_each_attachment_has_what_is_said_of_it(tmp_path: Path) -> None:
    services = {s.name: s.container for s in loaded(tmp_path, FILE).stack.services}
    found = {(s, a.network.rpartition("_")[2]): a.bandwidth for s, c in services.items() for a in c.attachments}
    assert found == {
        ("a", "front"): Bandwidth(ingress=5_000_000, egress=10_000_000, burst=64 << 10),
        ("a", "back"): Bandwidth(ingress=1_000_000_000, egress=10_000_000),
        ("b", "back"): Bandwidth(ingress=1_000_000_000),
    }


WRONG = """
services:
  a:
    image: i
    x-bandwidth: {ingress: 20m, egress: 1bit}
  d: {image: i, x-bandwidth: {ingress: 1mbit, brust: 5}}
  b: {image: i, network_mode: host, x-bandwidth: {egress: 1mbit}}
  c: {image: i, x-bandwidth: {burst: 64k}}
networks:
  default: {x-bandwidth: {burst: 0, ingress: 1mbit}}
"""


def test_all_mistakes_are_told_with_their_places(tmp_path: Path) -> None:
    with pytest.raises(StackFileError) as error:
        loaded(tmp_path, WRONG)
    text = str(error.value)
    for line in (
        "stack.yml:5:19: services.a.x-bandwidth.ingress: '20m' does not say what it counts: write 20mbit for bits a second",
        "stack.yml:5:33: services.a.x-bandwidth.egress: '1bit' is not from 8kbit to 1tbit a second",
        "services.d.x-bandwidth.brust: no such key\n    → did you mean burst?",
        "services.b.x-bandwidth: has no effect with network_mode host",
        "services.c.x-bandwidth: a burst limits nothing without a rate",
        "networks.default.x-bandwidth.burst: must be from 1 byte to 256m",
    ):
        assert line in text


def test_who_can_take_its_limits_away_is_told(tmp_path: Path) -> None:
    text = """
services:
  a: {image: i, cap_add: [NET_ADMIN], networks: [lan]}
networks:
  lan: {driver: macvlan, driver_opts: {parent: eth0}, x-bandwidth: {egress: 1mbit}}
"""
    assert [p.why for p in loaded(tmp_path, text).warnings] == [
        "on a macvlan network a container with CAP_NET_ADMIN can take its own limits away"
    ]
