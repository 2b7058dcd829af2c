"""The contract of a Store, case by case, on every backend: what both must answer alike, with the same numbers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.store.interface import CompactedError, Compare, Delete, Op, Put, Store, StoreError

A, B, C = Put("k/a", b"1"), Put("k/b", b"2"), Put("k/c", b"3")


async def written(store: Store, *steps: list[Op]) -> list[int]:
    """The revision after each step, counted from before the first."""
    before = await store.revision()
    return [(await store.transact([], step)).revision - before for step in steps]


@pytest.mark.parametrize(
    ("steps", "revisions"),
    [
        ([[A]], [1]),
        ([[A], [A]], [1, 2]),
        ([[A, B, C]], [1]),
        ([[A], [B], [C]], [1, 2, 3]),
        ([[A], [Delete("k/a")]], [1, 2]),
        ([[A, Delete("k/b")]], [1]),
        ([[A], [Delete("k/a"), B]], [1, 2]),
        ([[Put(f"n/{i}", b"x") for i in range(64)]], [1]),
        ([[A], []], [1, 1]),
        ([[Delete("none")], [A]], [1, 2]),
    ],
)
async def test_a_transaction_is_one_revision(store: Store, steps: list[list[Op]], revisions: list[int]) -> None:
    assert await written(store, *steps) == revisions


@pytest.mark.parametrize(
    ("before", "compare", "holds"),
    [
        ([], [("x", 0)], True),
        ([], [("x", 1)], False),
        ([[A]], [("k/a", 0)], False),
        ([[A]], [("k/a", 1)], True),
        ([[A], [A]], [("k/a", 2)], True),
        ([[A], [A]], [("k/a", 1)], False),
        ([[A], [Delete("k/a")]], [("k/a", 0)], True),
        ([[A], [Delete("k/a")]], [("k/a", 1)], False),
        ([[A], [Delete("k/a")], [A]], [("k/a", 3)], True),
        ([[A, B]], [("k/a", 1), ("k/b", 1)], True),
        ([[A], [B]], [("k/a", 1), ("k/b", 1)], False),
        ([[A], [B]], [("k/a", 1), ("k/b", 2), ("k/c", 0)], True),
        ([[A], [B]], [("k/a", 1), ("k/b", 2), ("k/c", 9)], False),
        ([[A]], [], True),
    ],
)
async def test_comparisons_are_of_the_revision_of_the_last_change(
    store: Store, before: list[list[Op]], compare: list[tuple[str, int]], holds: bool
) -> None:
    base = await store.revision()
    for step in before:
        await store.transact([], step)
    at = await store.revision()
    outcome = await store.transact([Compare(k, r and base + r) for k, r in compare], [Put("done", b"")])
    assert outcome.succeeded is holds
    assert outcome.revision == at + holds
    assert (await store.get("done") is not None) is holds


@pytest.mark.parametrize(
    ("steps", "key", "numbers"),
    [
        ([[A]], "k/a", (1, 1, 1)),
        ([[A], [A]], "k/a", (1, 2, 2)),
        ([[A], [B]], "k/a", (1, 1, 1)),
        ([[A], [B], [A]], "k/a", (1, 3, 2)),
        ([[A], [Delete("k/a")], [A]], "k/a", (3, 3, 1)),
        ([[A], [Delete("k/a")], [A], [A]], "k/a", (3, 4, 2)),
        ([[A], [Delete("k/a")]], "k/a", None),
        ([[B]], "k/a", None),
        ([[A, B], [B]], "k/b", (1, 2, 2)),
    ],
)
async def test_an_entry_knows_when_it_was_made_and_changed(
    store: Store, steps: list[list[Op]], key: str, numbers: tuple[int, int, int] | None
) -> None:
    base = await store.revision()
    await written(store, *steps)
    entry = await store.get(key)
    found = entry and (entry.created - base, entry.modified - base, entry.version)
    assert found == numbers


@pytest.mark.parametrize(
    ("prefix", "keys"),
    [
        ("k/", ["k/a", "k/ab", "k/b"]),
        ("k/a", ["k/a", "k/ab"]),
        ("k/ab", ["k/ab"]),
        ("k/x", []),
        ("", None),
        ("k", ["k", "k/a", "k/ab", "k/b", "kk"]),
        ("K", ["K/a"]),
        ("ä", ["ä/ö"]),
        ("%", ["%_/x"]),
        ("_", ["_/y"]),
        ("k/%", []),
        ("'", ["'/q"]),
        ("\\", ["\\/b"]),
        ("\U0001f600", ["\U0001f600"]),
    ],
)
async def test_a_prefix_is_a_prefix_and_no_pattern(store: Store, prefix: str, keys: list[str] | None) -> None:
    there = ["k/a", "k/ab", "k/b", "k", "kk", "K/a", "ä/ö", "%_/x", "_/y", "'/q", "\\/b", "\U0001f600"]
    await store.transact([], [Put(k, b"x") for k in there])
    found = [e.key for e in await store.scan(prefix)]
    wanted = sorted(there, key=str.encode) if keys is None else keys
    assert [k for k in found if k in there] == wanted
    assert found == sorted(found, key=str.encode)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\0",
        b"\xff\xfe",
        "é".encode(),
        b"x" * 1000,
        b"x" * (1 << 20),
        bytes(range(256)),
        b"'; drop table current; --",
    ],
    ids=["empty", "zero", "no text", "text", "kilobyte", "megabyte", "all bytes", "injection"],
)
async def test_a_value_comes_back_as_it_was(store: Store, value: bytes) -> None:
    await store.transact([], [Put("v", value)])
    assert (await store.get("v")).value == value  # type: ignore[union-attr]
    assert [e.value for e in await store.scan("v")] == [value]


async def test_a_list_of_large_values_and_small_ones(store: Store) -> None:
    for start in range(0, 1280, 64):
        await store.transact([], [Put(f"p/{n:05d}", b"") for n in range(start, start + 64)])
    for number in range(80):
        await store.transact([], [Put(f"p/{9000 + number:05d}", b"x" * (1 << 20))])
    found = await store.scan("p/")
    assert [len(e.value) for e in found] == [0] * 1280 + [1 << 20] * 80
    assert [e.key for e in found] == sorted(e.key for e in found)


@pytest.mark.parametrize(
    ("operations", "why"),
    [
        ([Put(f"n/{i}", b"") for i in range(65)], "at most 64 operations"),
        ([A, A], "each key once"),
        ([A, Delete("k/a")], "each key once"),
        ([Put("v", b"x" * ((1 << 20) + 1))], "at most"),
        ([Put(f"v{i}", b"x" * (1 << 19)) for i in range(3)], "together"),
    ],
)
async def test_what_no_backend_takes_is_refused_by_all(store: Store, operations: list[Op], why: str) -> None:
    before = await store.revision()
    with pytest.raises(StoreError, match=why):
        await store.transact([], operations)
    assert await store.revision() == before


HISTORY: list[list[Op]] = [
    [A],
    [B, C],
    [Put("other", b"x")],
    [Put("k/a", b"4"), Delete("k/b")],
    [Delete("k/a")],
    [Put("k/a", b"5")],
]
SEEN: dict[int, Any] = {
    1: [("k/a", b"1")],
    2: [("k/b", b"2"), ("k/c", b"3")],
    4: [("k/a", b"4"), ("k/b", None)],
    5: [("k/a", None)],
    6: [("k/a", b"5")],
}


@pytest.mark.parametrize("after", range(6))
async def test_a_watch_goes_on_after_any_revision(store: Store, after: int) -> None:
    base = await store.revision()
    await written(store, *HISTORY)
    found: dict[int, Any] = {}

    async def follow() -> None:
        async for changes in store.watch("k/", after=base + after):
            found[changes[0].revision - base] = sorted((c.key, c.entry.value if c.entry else None) for c in changes)
            if changes[0].revision - base == 6:
                return

    await asyncio.wait_for(follow(), 15)
    assert found == {r: c for r, c in SEEN.items() if r > after}


@pytest.mark.parametrize("at", range(1, 7))
async def test_the_past_is_as_it_was(store: Store, at: int) -> None:
    base = await store.revision()
    await written(store, *HISTORY)
    state: dict[str, bytes] = {}
    for step in HISTORY[:at]:
        for op in step:
            if isinstance(op, Put):
                state[op.key] = op.value
            else:
                state.pop(op.key, None)
    found = {e.key: e.value for e in await store.scan("k/", at=base + at)}
    assert found == {k: v for k, v in state.items() if k.startswith("k/")}


@pytest.mark.parametrize("upto", [2, 4, 6])
async def test_what_was_compacted_is_gone_and_the_rest_is_not(store: Store, upto: int) -> None:
    base = await store.revision()
    await written(store, *HISTORY)
    now = [(e.key, e.value, e.created, e.modified, e.version) for e in await store.scan("k/")]
    await store.compact(base + upto)
    assert [(e.key, e.value, e.created, e.modified, e.version) for e in await store.scan("k/")] == now
    with pytest.raises(CompactedError):
        await store.scan("k/", at=base + upto - 1)
    with pytest.raises(CompactedError):
        await anext(aiter(store.watch("k/", after=base)))
    assert await store.scan("k/", at=base + 6)


@pytest.mark.parametrize("writers", [2, 8])
async def test_of_those_who_compare_one_wins(store: Store, writers: int) -> None:
    outcomes = await asyncio.gather(
        *(store.transact([Compare("seat", 0)], [Put("seat", str(n).encode())]) for n in range(writers))
    )
    assert sum(o.succeeded for o in outcomes) == 1
    winner = next(n for n, o in enumerate(outcomes) if o.succeeded)
    assert (await store.get("seat")).value == str(winner).encode()  # type: ignore[union-attr]


@pytest.mark.parametrize("watchers", [1, 5])
async def test_every_watcher_sees_everything_that_many_write(store: Store, watchers: int) -> None:
    base = await store.revision()

    async def follow() -> list[int]:
        seen: list[int] = []
        async for changes in store.watch("m/", after=base):
            seen.append(changes[0].revision)
            if len(seen) == 40:
                break
        return seen

    following = [asyncio.create_task(follow()) for _ in range(watchers)]
    outcomes = await asyncio.gather(*(store.transact([], [Put(f"m/{n % 7}", b"x")]) for n in range(40)))
    for task in following:
        assert await asyncio.wait_for(task, 20) == sorted(o.revision for o in outcomes)
