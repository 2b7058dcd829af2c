"""`x-policy:` at the top level of a stack file: what the images of its services must be."""

from __future__ import annotations

from typing import Any

from agent.contract.trust import ImagePolicy, SigningRule, parse_age
from orchestrator.stackfile.field_readers import flag, scalar
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.marked_document import Path_

KEY = "x-policy"
PEM = "-----BEGIN "


def read(reading: LoadContext, document: dict[str, Any]) -> ImagePolicy:
    """The policy of *document*; keys are files of the client, or PEM text."""
    path: Path_ = (KEY,)
    body = reading.mapping(document.get(KEY), path)
    if not body or not reading.is_valid(path):
        return ImagePolicy()
    age = 0.0
    try:
        age = parse_age(scalar(body["max_age"])) if "max_age" in body else 0.0
    except ValueError as error:
        reading.problem((*path, "max_age"), str(error))
    rules = []
    for number, item in enumerate(reading.sequence(body.get("signed"), (*path, "signed"))):
        at = (*path, "signed", number)
        keys = [_key(reading, scalar(key), (*at, "keys", n)) for n, key in enumerate(_texts(item.get("keys")))]
        rules.append(SigningRule(images=tuple(_texts(item.get("images"))), keys=tuple(filter(None, keys))))
    return ImagePolicy(
        signed=tuple(rules),
        registries=tuple(_texts(body.get("registries"))),
        latest=flag(body.get("latest", True)),
        root=flag(body.get("root", True)),
        locked=flag(body.get("locked", False)),
        max_age_s=age,
    )


def _texts(value: Any) -> list[str]:
    return [] if value is None else [scalar(v) for v in value] if isinstance(value, list) else [scalar(value)]


def _key(reading: LoadContext, text: str, path: Path_) -> str:
    """The PEM text of a key; "" where there is a problem, which goes to *reading*."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    pem = text
    if not text.lstrip().startswith(PEM):
        try:
            pem = reading.host_path(text).read_text()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            reading.problem(path, f"{reading.host_path(text)} cannot be read: {why}", "name a file with a public key in PEM")
            return ""
    try:
        serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        reading.problem(path, "is not a public key in PEM", "it begins with -----BEGIN PUBLIC KEY-----, as cosign.pub does")
        return ""
    return pem
