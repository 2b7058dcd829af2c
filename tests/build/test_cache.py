"""The cache on disk: what is read again, what is forgotten, and what a prune takes."""

from __future__ import annotations

import time
from pathlib import Path

from agent.build.cache import Cache, Entry, key_of


def test_entries_outlive_the_process_and_not_their_layers(tmp_path: Path) -> None:
    there = {"a", "b"}
    cache = Cache(tmp_path, lambda name: name in there)
    keys = [key_of("run", n) for n in range(3)]
    made = [cache.put(key, "RUN x", layer, 10) for key, layer in zip(keys, ("a", "b", ""), strict=True)]
    there.discard("b")
    (tmp_path / f"{'0' * 64}.json").write_text("torn")
    again = Cache(tmp_path, lambda name: name in there)
    assert set(again.entries) == {keys[0], keys[2]}
    found = again.find(keys[0])
    assert found is not None
    assert (found.identity, found.count) == (made[0].identity, 1)
    there.clear()
    assert again.find(keys[0]) is None
    assert not (tmp_path / f"{keys[0]}.json").exists()
    assert again.find(keys[2]) is not None, "a step that changed nothing needs no layer"


def test_keys_are_of_all_that_they_are_given() -> None:
    parts = [("a", "b"), ("ab",), ("a", ["b"]), ({"a": "b"},), ("a", None), (1,), ("1",)]
    assert len({key_of(*p) for p in parts}) == len(parts)
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


def test_a_prune_goes_by_age_and_size(tmp_path: Path) -> None:
    cache = Cache(tmp_path, lambda _: True)
    for number in range(4):
        entry = cache.put(f"{number}" * 64, "RUN x", f"l{number}", 10)
        entry.used = time.time() - 1000 * number  # the first was used last

    def layers(entries: list[Entry]) -> list[str]:
        return [e.layer for e in entries]

    assert layers(cache.doomed()) == ["l3", "l2", "l1", "l0"]
    assert layers(cache.doomed(older_s=1500)) == ["l3", "l2"]
    assert layers(cache.doomed(keep_bytes=25)) == ["l3", "l2"]
    assert layers(cache.doomed(busy={"l3"})) == ["l2", "l1", "l0"]
