"""Passwords: hashed with scrypt, compared in constant time, never kept.

Source: RFC 7914 (scrypt); OWASP Password Storage Cheat Sheet (N=2^15, r=8, p=3 or more). The hash names its parameters, so
that they can be raised: `scrypt$N$r$p$SALT$KEY`, salt and key in Base64.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from orchestrator.errors import RefusedError

N, R, P = 1 << 15, 8, 3
MEMORY = 64 << 20
SHORTEST, LONGEST = 10, 1024
"""Characters. Source: NIST SP 800-63B, section 5.1.1.2 (8 and 64 at least): no rules of kinds of characters."""
COMMON = ("password", "passwort", "12345", "qwert", "letmein", "pystack")


def check(password: str, name: str) -> None:
    """Raises RefusedError (400) if *password* is none for the user *name*."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise RefusedError(f"a password has {SHORTEST} to {LONGEST} characters, this one {len(password)}", 400)
    lower = password.lower()
    if len(set(lower)) < 5 or any(lower.startswith(word) for word in (*COMMON, name.lower())):
        raise RefusedError("that password is among the first that are tried: take a few words that do not belong together", 400)


def hashed(password: str) -> str:
    """The hash of *password*, with a new salt. Takes about 0.2 s of a core."""
    salt = os.urandom(16)
    return "$".join(("scrypt", str(N), str(R), str(P), _text(salt), _text(_key(password, salt, N, R, P))))


def matches(password: str, known: str) -> bool:
    """Whether *password* is the one of the hash *known*. Takes as long where *known* is "", and is False then."""
    try:
        _, n, r, p, salt, key = (known or NOBODY).split("$")
        right = hmac.compare_digest(_key(password, base64.b64decode(salt), int(n), int(r), int(p)), base64.b64decode(key))
    except ValueError:
        return False
    return right and bool(known)


def _key(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=MEMORY, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


NOBODY = f"scrypt${N}${R}${P}${_text(bytes(16))}${_text(bytes(32))}"
"""The hash of no password: who asks for a user that is not there waits as long."""
