"""Which of the ways to name layers of an overlay the kernel has."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator

import pytest

from agent import mounts
from agent.errors import AgentError


@pytest.mark.parametrize(
    ("takes", "singly"),
    [
        (lambda key: key == "lowerdir+", True),
        (lambda key: False, False),
        # Debian 12's 6.1 keeps options unread until the mount, which then said "Invalid argument" for every container
        (lambda key: True, False),
    ],
    ids=["6.8 knows the option", "6.5 refuses it", "6.1 takes whatever is said"],
)
def test_layers_are_named_singly_where_the_kernel_knows_how(
    monkeypatch: pytest.MonkeyPatch, takes: Callable[[str], bool], singly: bool
) -> None:
    @contextlib.contextmanager
    def opened(kind: str) -> Iterator[int]:
        yield 0

    def option(context: int, how: int, key: str, value: str | None = None) -> None:
        if not takes(key):
            raise AgentError(f"fsconfig {key}: Invalid argument")

    monkeypatch.setattr(mounts, "_opened", opened)
    monkeypatch.setattr(mounts, "_set", option)
    monkeypatch.setattr(mounts, "_name_one", inspect.unwrap(vars(mounts)["_name_one"]))  # which remembers
    assert mounts.takes_layers_singly() is singly
