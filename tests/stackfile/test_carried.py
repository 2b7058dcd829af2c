"""Which bind mounts are sent along, and as what."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.stackfile.inline_files import LARGEST, MAX_INLINE_BYTES, has_inlinable_mounts, inline_bind_mounts
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.model import Stack


def stack_of(folder: Path, mount: str) -> Stack:
    (folder / "stack.yml").write_text(f"services: {{a: {{image: i, volumes: ['{mount}']}}}}\n")
    return load(Options(files=(str(folder / "stack.yml"),), project_name="p"), {}).stack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.conf").write_text("hello")
    (tmp_path / "app.conf").chmod(0o640)
    (tmp_path / "etc" / "deep").mkdir(parents=True)
    (tmp_path / "etc" / "one").write_text("1")
    (tmp_path / "etc" / "deep" / "two").write_text("22")
    (tmp_path / "large").write_bytes(b"x" * (LARGEST + 1))
    (tmp_path / "many").mkdir()
    for number in range(MAX_INLINE_BYTES + 1):
        (tmp_path / "many" / str(number)).write_text("x")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "away").symlink_to("/etc/passwd")
    (tmp_path / "out").symlink_to("/etc/passwd")
    return tmp_path


def test_a_file_goes_with_its_bits_and_is_said(folder: Path) -> None:
    changed, [said] = inline_bind_mounts(stack_of(folder, "./app.conf:/etc/app.conf"), folder)
    assert changed.services[0].container.mounts == ()
    [file] = changed.services[0].container.files
    assert (file.target, file.mode, file.secret) == ("/etc/app.conf", 0o640, True)
    [content] = changed.contents
    assert (content.key, content.content) == (file.source, b"hello")
    assert "app.conf is sent along as it is now (5 bytes)" in said


def test_a_folder_that_is_read_only_goes_file_by_file(folder: Path) -> None:
    changed, _ = inline_bind_mounts(stack_of(folder, "./etc:/etc/app:ro"), folder)
    assert {f.target for f in changed.services[0].container.files} == {"/etc/app/one", "/etc/app/deep/two"}
    assert {c.content for c in changed.contents} == {b"1", b"22"}


@pytest.mark.parametrize(
    "mount",
    [
        "./etc:/etc/app",
        "./large:/large",
        "./many:/many:ro",
        "./linked:/linked:ro",
        "./out:/out",
        "./missing:/missing",
        "/etc/hosts:/h",
        "named:/n",
        ".:/all:ro",
    ],
)
def test_what_cannot_be_taken_stays_as_it_is(folder: Path, mount: str) -> None:
    if mount.startswith("named"):
        (folder / "stack.yml").write_text("services: {a: {image: i, volumes: ['named:/n']}}\nvolumes: {named: {}}\n")
        stack = load(Options(files=(str(folder / "stack.yml"),), project_name="p"), {}).stack
    else:
        stack = stack_of(folder, mount)
    changed, said = inline_bind_mounts(stack, folder)
    assert (changed.contents, said) == ((), ())
    [before], [after] = stack.services, changed.services
    assert after.container == before.container
    own = () if mount.startswith(("/", "named")) else (before.container.mounts[0].source,)
    assert after.project_paths == own


def test_who_mounts_nothing_of_the_project_asks_no_cluster(folder: Path) -> None:
    assert not has_inlinable_mounts(stack_of(folder, "/etc/hosts:/h"), folder)
    assert has_inlinable_mounts(stack_of(folder, "./app.conf:/a"), folder)
