"""Sizes as people write them."""

from __future__ import annotations

import pytest

from agent.contract.sizes import parse_size
from agent.settings import QuotaSettings


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("64m", 64 << 20),
        ("1.5G", 3 << 29),
        (" 2GiB ", 2 << 30),
        ("10 kb", 10 << 10),
        ("1t", 1 << 40),
        ("7b", 7),
    ],
)
def test_a_number_and_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1e3", "1 x", "0", "0.1", "1" * 16, "٣m"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="above 0 with k, m, g or t"):
        parse_size(text)


def test_nothing_is_a_size_where_it_may_be() -> None:
    assert parse_size("0", least=0) == 0
    with pytest.raises(ValueError, match="from 0 on"):
        parse_size("-1", least=0)


def test_a_quota_is_a_size() -> None:
    assert QuotaSettings(memory="1.5g", volume_size="0").memory_bytes == 3 << 29
    assert QuotaSettings(volume_size="0").volume_bytes == 0
    assert QuotaSettings().memory_bytes is None
    with pytest.raises(ValueError, match=r"quotas: memory '8 apples'"):
        QuotaSettings(memory="8 apples")
