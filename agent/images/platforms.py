"""Platforms as clients write them, `linux/arm64/v8`, and which of them this node runs, by itself or by an emulator.

Source: OCI Image Index, "platform"; Linux, Documentation/admin-guide/binfmt-misc.rst; elf(5).
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import struct
from pathlib import Path

from agent.contract.printable import quoted
from agent.errors import BadRequestError, ImageNotFoundError
from agent.images.types import Config, Platform

SYSTEMS = ("linux", "windows", "darwin", "freebsd")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}
ELF = {
    "386": ("<", 3),
    "amd64": ("<", 62),
    "arm": ("<", 40),
    "arm64": ("<", 183),
    "loong64": ("<", 258),
    "mips64": (">", 8),
    "mips64le": ("<", 8),
    "ppc64le": ("<", 21),
    "riscv64": ("<", 243),
    "s390x": (">", 22),
}
"""Of each machine, the order of its bytes and its number in the header of a program."""
NARROW = ("386", "arm")
"""Machines whose programs have 32 bits."""
SILENT = {"amd64": "v1", "arm64": "v8"}
"""Variants that say nothing: those that such a machine has anyway."""
BINFMT = Path("/proc/sys/fs/binfmt_misc")


def architecture() -> str:
    """This machine's name in Go's list, which images use."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def own() -> Platform:
    """What this node is."""
    return Platform(architecture(), "linux", "v7" if architecture() == "arm" else "")


def read(text: str) -> Platform:
    """*text*, in the names that images use; a variant that says nothing is left out. Raises BadRequestError."""
    system, _, rest = text.lower().partition("/")
    machine, _, variant = rest.partition("/")
    if system not in SYSTEMS and not machine:
        system, machine = "linux", system
    name = ALIASES.get(machine, machine) or architecture()
    if system not in SYSTEMS or name not in ELF or not re.fullmatch(r"v?[0-9]{0,2}", variant):
        raise BadRequestError(f'"{quoted(text)}": unknown operating system or architecture: invalid argument')
    variant = f"v{variant.removeprefix('v')}" if variant else {"armhf": "v7", "armel": "v6", "arm": "v7"}.get(machine, "")
    return Platform(name, system, "" if SILENT.get(name) == variant else variant)


def text_of(one: Platform) -> str:
    """As clients write it."""
    return "/".join(filter(None, (one.os, one.architecture, one.variant)))


def of_image(config: Config) -> Platform:
    """What an image with the configuration *config* is for."""
    return Platform(config.architecture, config.os or "linux", config.variant)


def suits(config: Config, wanted: Platform) -> bool:
    """Whether an image with the configuration *config* is one for *wanted*."""
    variants = {one or SILENT.get(wanted.architecture, "") for one in (config.variant, wanted.variant)}
    return config.architecture in ("", wanted.architecture) and (len(variants) == 1 or "" in variants)


def platform_of(text: str) -> None:
    """A platform that this node is. Raises BadRequestError, ImageNotFoundError."""
    if not text:
        return
    if text.startswith("{"):
        try:
            parts = json.loads(text)
            text = f"{parts.get('os', '')}/{parts.get('architecture', '')}"
        except (ValueError, AttributeError):
            raise BadRequestError(f"platform {text}: it is written like linux/amd64") from None
    found = read(text)
    if found.os in ("windows", "darwin") or found.architecture != architecture():
        raise ImageNotFoundError(f"platform {text}: this node runs linux/{architecture()}")


def buildable(text: str) -> Platform:
    """A platform that images can be built for. Raises BadRequestError."""
    found = read(text)
    if found.os != "linux":
        raise BadRequestError(f"platform {quoted(text)}: images are built for linux alone")
    return found


def is_run(one: Platform, folder: Path = BINFMT) -> bool:
    """Whether this node runs programs of *one*: itself, or by an emulator that is registered with the kernel in *folder* and
    that containers need not have (flag F)."""
    if one.architecture == architecture():
        return True
    order, number = ELF[one.architecture]
    bits, little = 1 if one.architecture in NARROW else 2, 1 if order == "<" else 2
    header = b"\x7fELF" + bytes((bits, little, 1)) + bytes(9) + struct.pack(f"{order}HH", 2, number)
    with contextlib.suppress(OSError):
        return any(_takes(path.read_text(errors="replace"), header) for path in folder.iterdir() if path.name != "register")
    return False


def _takes(entry: str, header: bytes) -> bool:
    """Whether the emulator with the registration *entry* runs a program that begins with *header*."""
    lines = entry.splitlines()
    fields = {name.rstrip(":"): value for name, _, value in (line.partition(" ") for line in lines)}
    if "enabled" not in lines or "F" not in fields.get("flags", "") or fields.get("offset") != "0":
        return False
    try:
        magic = bytes.fromhex(fields.get("magic", ""))
        mask = bytes.fromhex(fields["mask"]) if "mask" in fields else b"\xff" * len(magic)
    except ValueError:
        return False
    if not magic or len(magic) > len(header) or len(mask) != len(magic):
        return False
    return all((have ^ wanted) & bits == 0 for have, wanted, bits in zip(header, magic, mask, strict=False))
