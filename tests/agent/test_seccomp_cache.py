"""Programs that crun compiled of seccomp profiles, kept for the next container with the same one."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from agent.isolation.seccomp_cache import ANNOTATION, KEPT, PROGRAM, SeccompCache

CODE = bytes(range(16))


def document(profile: dict[str, Any] | None) -> dict[str, Any]:
    return {"linux": {"seccomp": profile} if profile else {}}


def compiled(folder: Path, code: bytes = CODE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / PROGRAM).write_bytes(code)
    return folder


def given(cache: SeccompCache, profile: dict[str, Any], ident: str = "x") -> str | None:
    found = document(profile)
    cache.inject(ident, found)
    word: str | None = found.get("annotations", {}).get(ANNOTATION)
    return word


def test_the_second_container_of_a_profile_gets_the_program(tmp_path: Path) -> None:
    cache = SeccompCache()
    assert given(cache, {"a": 1}, "one") is None
    cache.store("one", compiled(tmp_path / "one"))
    assert given(cache, {"a": 1}, "two") == base64.b64encode(CODE).decode()
    assert given(cache, {"a": 2}, "three") is None


def test_without_a_profile_or_with_a_listener_nothing_is_kept(tmp_path: Path) -> None:
    cache = SeccompCache()
    for profile in (None, {"listenerPath": "/s"}):
        found = document(profile)
        cache.inject("one", found)
        assert "annotations" not in found
        cache.store("one", compiled(tmp_path / "one"))
    assert given(cache, {"listenerPath": "/s"}) is None


def test_a_program_that_is_missing_empty_or_cut_off_is_none(tmp_path: Path) -> None:
    cache = SeccompCache()
    for ident, folder in (
        ("gone", tmp_path / "gone"),
        ("empty", compiled(tmp_path / "empty", b"")),
        ("half", compiled(tmp_path / "half", CODE[:9])),
    ):
        given(cache, {"a": 1}, ident)
        cache.store(ident, folder)
    assert given(cache, {"a": 1}) is None


def test_a_container_that_is_dropped_has_no_program_stored(tmp_path: Path) -> None:
    cache = SeccompCache()
    given(cache, {"a": 1}, "one")
    cache.drop("one")
    cache.drop("never")
    cache.store("one", compiled(tmp_path / "one"))
    assert given(cache, {"a": 1}) is None


def test_the_oldest_goes_where_there_are_many(tmp_path: Path) -> None:
    cache = SeccompCache()
    for n in range(KEPT + 1):
        given(cache, {"a": n}, "one")
        cache.store("one", compiled(tmp_path / "one"))
    assert given(cache, {"a": 0}) is None
    assert given(cache, {"a": 1}) is not None
    assert given(cache, {"a": KEPT}) is not None
