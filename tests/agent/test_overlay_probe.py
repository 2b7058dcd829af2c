"""Which kernels name layers of an overlay one by one is found by asking, not by a mount."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import pytest

from agent import mounts
from agent.errors import AgentError


@pytest.mark.parametrize(
    ("known", "singly"),
    [(None, False), ({"lowerdir"}, False), ({"lowerdir", "lowerdir+"}, True)],
    ids=["before 6.5 every option passes unseen", "6.5 knows no single layers", "6.8 does"],
)
def test_who_takes_layers_singly(monkeypatch: pytest.MonkeyPatch, known: set[str] | None, singly: bool) -> None:
    @contextlib.contextmanager
    def opened(kind: str) -> Iterator[int]:
        yield 0

    def take(context: int, how: int, key: str, value: str | None = None) -> None:
        if known is not None and key not in known:
            raise AgentError(f"{key}: Invalid argument")

    monkeypatch.setattr(mounts, "_opened", opened)
    monkeypatch.setattr(mounts, "_set", take)
    monkeypatch.setattr(mounts, "_name_one", inspect.unwrap(vars(mounts)["_name_one"]))  # without what it remembers
    assert mounts.takes_layers_singly() is singly
