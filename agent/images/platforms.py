"""Platforms as clients write them, `linux/arm64/v8`, and which of them this node is. Source: OCI Image Index, "platform"."""

from __future__ import annotations

import json

from agent.errors import BadRequestError, ImageNotFoundError
from agent.images import pull

SYSTEMS = ("linux", "windows", "darwin", "freebsd")
MACHINES = ("amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "mips64le", "mips64", "loong64", "x86_64", "aarch64")


def platform_of(text: str) -> None:
    """A platform that this node can run. Raises BadRequestError, ImageNotFoundError."""
    if not text:
        return
    if text.startswith("{"):
        try:
            parts = json.loads(text)
            text = f"{parts.get('os', '')}/{parts.get('architecture', '')}"
        except (ValueError, AttributeError):
            raise BadRequestError(f"platform {text}: it is written like linux/amd64") from None
    system, _, machine = text.lower().partition("/")
    machine = machine.partition("/")[0] or (pull.architecture() if system in SYSTEMS else system)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    if (system not in SYSTEMS and system not in MACHINES) or machine not in MACHINES:
        raise BadRequestError(f"{text!r}: unknown operating system or architecture: invalid argument")
    if system in ("windows", "darwin") or machine != pull.architecture():
        raise ImageNotFoundError(f"platform {text}: this node runs linux/{pull.architecture()}")
