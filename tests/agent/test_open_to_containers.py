"""`open_to_containers` of config.yml."""

from __future__ import annotations

import pytest

from agent.settings import Settings


def test_ports_are_named_with_their_protocols() -> None:
    assert Settings(open_to_containers=("9100/tcp", "53/udp")).opened == {("tcp", 9100), ("udp", 53)}


@pytest.mark.parametrize("word", ["9100", "0/tcp", "65536/tcp", "9100/icmp", "a/tcp", "9100/tcp }", "9100/tcp\n"])
def test_what_is_no_port_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="a port with its protocol"):
        Settings(open_to_containers=(word,))
