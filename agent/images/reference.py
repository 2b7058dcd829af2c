"""Image references: `[registry/]repository[:tag][@digest]`, with Docker's short names.

Source: OCI Distribution Specification 1.1 (name grammar), distribution/reference (normalisation of docker.io names).
"""

from __future__ import annotations

import re

import msgspec

from agent.contract.printable import quoted
from agent.errors import BadRequestError

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"\w[\w.-]{0,127}\Z", re.ASCII)
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")


class Reference(msgspec.Struct, frozen=True):
    """*host* is docker.io for names without a registry; *tag* is "" only where a digest is given."""

    host: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def name(self) -> str:
        """The full name without a digest: docker.io/library/nginx:1.25."""
        return f"{self.host}/{self.repository}" + (f":{self.tag}" if self.tag else f"@{self.digest}")

    @property
    def familiar(self) -> str:
        """As Docker prints it: nginx:1.25."""
        name = self.repository if self.host == "docker.io" else f"{self.host}/{self.repository}"
        name = name.removeprefix("library/") if self.host == "docker.io" else name
        return f"{name}:{self.tag}" if self.tag else f"{name}@{self.digest}"

    @property
    def target(self) -> str:
        """The tag or digest for requests to a registry."""
        return self.digest or self.tag


def parse(text: str) -> Reference:
    """Parse a reference. Raises BadRequestError that names the wrong part."""
    shown = f"'{quoted(text)}'"
    rest, _, digest = text.partition("@")
    if digest and not DIGEST.match(digest):
        raise BadRequestError(f"image {shown}: the digest must be sha256: and 64 hex digits")
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        host, path = first, remainder
    else:
        host, path = "docker.io", rest
    head, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        head, tag = path, ""
    if host == "index.docker.io":
        host = "docker.io"
    if host == "docker.io" and "/" not in head:
        head = f"library/{head}"
    if not _HOST.match(host):
        raise BadRequestError(f"image {shown}: {quoted(host)} is not a registry host")
    if not _NAME.match(head) or len(head) > 255:
        why = "repository name must be lowercase" if head.lower() != head else "letters, digits, and . _ - between them"
        raise BadRequestError(f"image {shown}: invalid reference format: {why}")
    if colon and not _TAG.match(tag):
        raise BadRequestError(f"image {shown}: invalid tag {quoted(tag)!r}")
    return Reference(host, head, tag or ("" if digest else "latest"), digest)
