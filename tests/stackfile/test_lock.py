"""`stack.lock`: what is written is read again; what cannot be read is a problem with its place and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.trust import Locked
from orchestrator.stackfile import lock
from orchestrator.stackfile.problem import StackFileError

ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entries = (
        Locked(image="b:1", digests=(("linux/amd64", ONE), ("linux/arm64", TWO))),
        Locked(image='a "quoted": {name}', digests=(("linux/amd64", TWO),)),
    )
    lock.path_in(tmp_path).write_text(lock.text_of(entries))
    assert lock.read(tmp_path) == tuple(sorted(entries, key=lambda e: e.image))
    assert lock.text_of(reversed(entries)) == lock.text_of(entries)


def test_no_lock_is_none(tmp_path: Path) -> None:
    assert lock.read(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\xff", "codec can't decode"),
        (b"a: [", "while parsing"),
        (b"- 1", "it must have version: 1 and images:"),
        (b"version: 2\nimages: {}", "it must have version: 1 and images:"),
        (b"version: 1\nimages: []", "it must have version: 1 and images:"),
        (b"version: 1\nimages: {a: {}}", "images.a: must be OS/ARCH: sha256:"),
        (b"version: 1\nimages: {a: sha256}", "images.a: must be OS/ARCH: sha256:"),
        (b"version: 1\nimages: {a: {linux/amd64: sha256:12}}", "images.a: must be OS/ARCH: sha256:"),
        (f"version: 1\nimages: {{a: {{1: {ONE!r}}}}}".encode(), "images.a: must be OS/ARCH: sha256:"),
        (b"[" * 5000, "recursion"),
    ],
)
def test_what_is_not_a_lock_is_refused(tmp_path: Path, text: bytes, why: str) -> None:
    lock.path_in(tmp_path).write_bytes(text)
    with pytest.raises(StackFileError) as refused:
        lock.read(tmp_path)
    [problem] = refused.value.problems
    assert (problem.where.file, problem.fix) == (str(tmp_path / "stack.lock"), "`pystack lock` writes a new one")
    assert why in problem.why


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    lock.path_in(tmp_path).mkdir()
    with pytest.raises(StackFileError):
        lock.read(tmp_path)
