"""How large a log may grow, and where its lines go."""

from __future__ import annotations

import pytest

from agent.containers.rotation import RotationLimits
from agent.contract.container import Container
from agent.engine import log_options
from agent.errors import BadRequestError


def container(driver: str = "json-file", **options: str) -> Container:
    named = tuple((k.replace("_", "-"), v) for k, v in options.items())
    return Container(image="x", log_driver=driver, log_options=named)


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("-1", 0), ("10", 10), ("10k", 10 << 10), ("10MB", 10 << 20), (" 1g ", 1 << 30), ("1.5m", 3 << 19), ("0", 0)],
)
def test_sizes_are_dockers(text: str, size: int) -> None:
    assert log_options.parse_log_size(text) == size


@pytest.mark.parametrize("text", ["k", "1.5x", "-2", "1..5m"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="invalid size"):
        log_options.parse_log_size(text)


def test_limits_are_the_containers_or_the_nodes() -> None:
    assert log_options.limits(container(), "1m") == RotationLimits(1 << 20, 1)
    assert log_options.limits(container(max_size="2m", max_file="3"), "1m") == RotationLimits(2 << 20, 3)
    assert log_options.limits(container("local"), "1m") == RotationLimits(20 << 20, 5)
    for wrong in ("0", "1000", "x"):
        with pytest.raises(BadRequestError, match="max-file"):
            log_options.limits(container(max_file=wrong), "")


def test_only_the_driver_syslog_has_a_server() -> None:
    assert log_options.syslog_server(container(), "web") is None
    assert log_options.syslog_server(container("syslog", syslog_address="udp://192.0.2.1:514"), "web") is not None
