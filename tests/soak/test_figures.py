"""What counts as a leak."""

from __future__ import annotations

from tests.soak.figures import ends, grown

FLAT = [{"links": 40 + n % 3, "KiB of memory: server": 300_000 + 1000 * (n % 5)} for n in range(12)]


def test_what_goes_up_and_down_is_no_leak() -> None:
    assert grown(FLAT) == []
    assert ends(FLAT)["links"] == (41, 41)


def test_what_grows_with_each_round_is_said() -> None:
    leaky = [{**sample, "mounts": 100 + 4 * n} for n, sample in enumerate(FLAT)]
    assert grown(leaky) == ["mounts: 104, and 140 at the end"]
