"""The cluster's own certificate authorities: for names that no public one certifies, and for nodes that joined by themselves.

Source: RFC 5280, RFC 5480 (P-256).
"""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.contract.joining import key_hash

ROOT_DAYS = 3650
LEAF_DAYS = 30
SKEW = datetime.timedelta(hours=26)
"""How long before now a certificate is valid: clocks of clients are a day off."""


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bytes:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + secret


def make_root(name: str, now: datetime.datetime) -> bytes:
    """A new root's certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    root = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(root, key)


def root_certificate(root: bytes) -> str:
    """The certificate alone of what `make_root` made."""
    return x509.load_pem_x509_certificate(root).public_bytes(Encoding.PEM).decode()


def issue(root: bytes, host: str, now: datetime.datetime, days: int = LEAF_DAYS) -> bytes:
    """A certificate for *host* by *root*, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _leaf(root, x509.Name([]), key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, now, days)
    return _pem(leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True).sign(*_signing(root)), key)


def certify_node(root: bytes, request: str, node: str, now: datetime.datetime, days: int) -> tuple[str, str]:
    """A client's certificate by *root* for the node with the ID *node*, for the key of *request* (PKCS #10 in PEM), and that
    key's hash (`key_hash`). What else the request says does not count. Raises ValueError for one that is malformed, or is not
    signed with its own key."""
    asked = x509.load_pem_x509_csr(request.encode())
    public = asked.public_key()
    if not asked.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("it is not signed with its own key, or that is not one of an elliptic curve")
    made = _leaf(root, _name(node), public, ExtendedKeyUsageOID.CLIENT_AUTH, now, days).sign(*_signing(root))
    return made.public_bytes(Encoding.PEM).decode(), key_hash(
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def certificate_key_hash(certificate: bytes) -> str:
    """The hash of the key of a *certificate*, which is PEM or DER."""
    load = x509.load_pem_x509_certificate if certificate.startswith(b"-----") else x509.load_der_x509_certificate
    return key_hash(load(certificate).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _signing(root: bytes) -> tuple[ec.EllipticCurvePrivateKey, hashes.SHA256]:
    signer = load_pem_private_key(root, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey), "a root is made by make_root"
    return signer, hashes.SHA256()


def _leaf(
    root: bytes,
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    usage: x509.ObjectIdentifier,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    above = x509.load_pem_x509_certificate(root)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(_signing(root)[0].public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(identifier, critical=False)
    )
