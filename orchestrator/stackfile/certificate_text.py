"""A certificate chain and its key in one PEM text. Source: RFC 7468 (PEM), RFC 6125 §6.4.3 (names), RFC 5280."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography import x509

_CERTIFICATE = rb"(?s)-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----"
_KEY = rb"(?s)-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----.+?-----END (?:[A-Z]+ )?PRIVATE KEY-----"


class CertificateTextError(ValueError):
    """A text that has no certificate that can be served; the message says why."""


class Pair(NamedTuple):
    """*chain* and *key* as PEM, the leaf first; *not_after* ends the leaf's validity."""

    chain: str
    key: str
    names: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime


def covers(name: str, host: str) -> bool:
    """Whether a certificate for *name* is one for *host*. A wildcard stands for one label."""
    name, host = name.lower(), host.lower()
    return name == host or (
        name.startswith("*.") and "." in host and not host.startswith("*.") and name[2:] == host.partition(".")[2]
    )


def read_pair(text: bytes, host: str = "") -> Pair:
    """The chain and the key of *text*. Raises CertificateTextError, also where it is not for *host*, "" for any."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    blocks, keys = re.findall(_CERTIFICATE, text), re.findall(_KEY, text)
    if not blocks:
        raise CertificateTextError("there is no certificate in it")
    if len(keys) != 1:
        raise CertificateTextError("there are several private keys in it" if keys else "there is no private key in it")
    try:
        chain = [x509.load_pem_x509_certificate(block) for block in blocks]
        key = load_pem_private_key(keys[0], None)
    except TypeError:
        raise CertificateTextError("its private key has a password") from None
    except ValueError as error:
        raise CertificateTextError(f"it cannot be read: {str(error)[:200]}") from None
    leaf = chain[0]

    def public(of: object) -> bytes:
        return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]

    if public(leaf) != public(key):
        raise CertificateTextError("the private key is not that of the first certificate")
    names = _names(leaf)
    if host and not any(covers(name, host) for name in names):
        raise CertificateTextError(f"the certificate is for {', '.join(names) or 'no name'}, not for {host}")
    if leaf.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise CertificateTextError(f"the certificate ended on {leaf.not_valid_after_utc:%Y-%m-%d}")
    return Pair(
        chain="\n".join(block.decode() for block in blocks) + "\n",
        key=keys[0].decode() + "\n",
        names=names,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(found.value.get_values_for_type(x509.DNSName))
