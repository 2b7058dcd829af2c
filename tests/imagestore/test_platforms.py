"""Platforms: how they are written, which version of an image fits, what the kernel has an emulator for."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import BadRequestError, ImageError
from agent.images import platforms, types
from agent.images.platforms import read, text_of
from agent.images.pull import choose


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("linux/amd64", "linux/amd64"),
        ("LINUX/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/arm64/v8", "linux/arm64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/i386", "linux/386"),
        ("linux", f"linux/{platforms.architecture()}"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_names(text: str, wanted: str) -> None:
    assert text_of(read(text)) == wanted


@pytest.mark.parametrize("text", ["linux/z80", "plan9/amd64", "linux/arm/v7/x", "linux/arm64/ v8", "linux/arm64/vx"])
def test_what_is_not_a_platform_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="unknown operating system or architecture"):
        read(text)


def index(*texts: str) -> types.ImageIndex:
    found = []
    for number, text in enumerate(texts):
        system, machine, *variant = text.split("/")
        platform = types.Platform(machine, system, variant[0] if variant else "")
        found.append(types.Descriptor(types.OCI_MANIFEST, f"sha256:{number:064}", 1, platform))
    return types.ImageIndex(tuple(found))


@pytest.mark.parametrize(
    ("wanted", "number"),
    [("linux/arm/v7", 2), ("linux/arm/v6", 1), ("linux/arm/v5", 0), ("linux/arm64", 3), ("linux/amd64", 4)],
)
def test_the_version_that_fits_best(wanted: str, number: int) -> None:
    found = index("linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/amd64", "linux/amd64/v3")
    assert choose(found, read(wanted)) == found.manifests[number]


def test_a_version_that_is_missing_is_named_with_those_that_are_there() -> None:
    with pytest.raises(ImageError, match="no version for linux/s390x, only for linux/arm/v5, linux/arm64"):
        choose(index("linux/arm/v5", "linux/arm64"), read("linux/s390x"))


ARM64 = """{state}
interpreter /usr/libexec/qemu-aarch64
flags: {flags}
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


@pytest.mark.parametrize(
    ("entry", "emulated"),
    [
        (ARM64.format(state="enabled", flags="POCF"), True),
        (ARM64.format(state="disabled", flags="POCF"), False),
        (ARM64.format(state="enabled", flags="OC"), False),
        (ARM64.format(state="enabled", flags="F").replace("b700", "f300"), False),
        (ARM64.format(state="enabled", flags="F").replace("0201", "0101"), False),
        (ARM64.format(state="enabled", flags="F").replace("7f45", "zz"), False),
        ("enabled\ninterpreter /usr/bin/python3\nflags: F\nextension .py\n", False),
        ("enabled", False),
    ],
)
def test_an_emulator_is_known_by_the_programs_that_it_takes(tmp_path: Path, entry: str, emulated: bool) -> None:
    (tmp_path / "any").write_text(entry)
    (tmp_path / "register").touch(0o200)
    assert platforms.is_run(read("linux/arm64"), tmp_path) is emulated
    assert not platforms.is_run(read("linux/s390x"), tmp_path)
    assert platforms.is_run(platforms.own(), tmp_path / "none")
