"""Seccomp programs that crun compiled, given to it again for the next container with the same profile.

libseccomp takes 11 ms to compile the default profile, which is more than crun takes for all the rest. crun leaves the program
beside its state, and takes one over in an annotation; the profile stays in the document, for a crun that does not know it.
Source: crun(1), run.oci.seccomp_bpf_data.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import msgspec

ANNOTATION = "run.oci.seccomp_bpf_data"
PROGRAM = "seccomp.bpf"
"""Its name in the folder of crun's that is the container's."""
KEPT = 64


class SeccompCache:
    """Compiled seccomp programs by their profile: crun compiles each profile once."""

    def __init__(self) -> None:
        self._programs: dict[bytes, str] = {}
        self._awaited: dict[str, bytes] = {}

    def inject(self, ident: str, document: dict[str, Any]) -> None:
        """Put the program of *document*'s profile into it, if that is known."""
        profile = document["linux"].get("seccomp")
        if not profile or "listenerPath" in profile:  # crun itself must set up the listener
            return
        key = hashlib.sha256(msgspec.json.encode(profile)).digest()
        if program := self._programs.get(key):
            document["annotations"] = {**document.get("annotations", {}), ANNOTATION: program}
        else:
            self._awaited[ident] = key

    def store(self, ident: str, folder: Path) -> None:
        """Store the program that crun compiled for *ident*, whose state is in *folder*."""
        key = self._awaited.pop(ident, None)
        if key is None:
            return
        try:
            program = (folder / PROGRAM).read_bytes()
        except OSError:
            return
        if program and len(program) % 8 == 0:  # whole instructions (struct sock_filter)
            while len(self._programs) >= KEPT:
                del self._programs[next(iter(self._programs))]
            self._programs[key] = base64.b64encode(program).decode()

    def drop(self, ident: str) -> None:
        """The container *ident* is gone, whether it was created or not."""
        self._awaited.pop(ident, None)
