"""What an image is made of, as SPDX: a package for the image, one for each that its package managers name.

The same image gives the same document. Source: SPDX 2.3, JSON; Package URL specification (purl).
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from typing import Any

from agent import mounts
from agent.errors import ImageError, of_worker
from agent.images.store import Image, ImageStore
from agent.trees import process

_ID = re.compile(r"[^A-Za-z0-9.-]+")
_LICENSE = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*\Z")
UNKNOWN = "NOASSERTION"


async def document(store: ImageStore, image: Image) -> dict[str, Any]:
    """The SPDX document of *image*, which is whole on this node. Raises ImageError."""
    words = (mounts.overlay_attribute("opaque"), store.bounds, *(str(path) for path in reversed(store.lower(image))))
    reply = await process.asked("packages", words)
    if "error" in reply:
        raise of_worker(reply, ImageError)
    return spdx(image, [tuple(p) for p in reply["packages"]], reply["unread"])


def spdx(image: Image, packages: Sequence[tuple[str, ...]], unread: Sequence[str]) -> dict[str, Any]:
    """The document for what the worker found: (kind, name, version, architecture, license, path), and databases *unread*."""
    name = image.names[0] if image.names else image.id
    top = "SPDXRef-Image"
    described: list[dict[str, Any]] = [
        {
            "SPDXID": top,
            "name": name,
            "versionInfo": image.digest,
            "downloadLocation": UNKNOWN,
            "filesAnalyzed": False,
            "licenseConcluded": UNKNOWN,
            "licenseDeclared": UNKNOWN,
            "copyrightText": UNKNOWN,
            "primaryPackagePurpose": "CONTAINER",
            "checksums": [{"algorithm": "SHA256", "checksumValue": image.digest.removeprefix("sha256:")}],
        }
    ]
    for number, (kind, package, version, architecture, license_, path) in enumerate(packages):
        described.append(
            {
                "SPDXID": f"SPDXRef-{number}-{kind}-{_ID.sub('-', package)}",
                "name": package,
                "versionInfo": version,
                "downloadLocation": UNKNOWN,
                "filesAnalyzed": False,
                "licenseConcluded": UNKNOWN,
                "licenseDeclared": license_ if _LICENSE.match(license_) else UNKNOWN,
                "copyrightText": UNKNOWN,
                "sourceInfo": f"named by /{path}",
                "externalRefs": [
                    {
                        "referenceCategory": "PACKAGE-MANAGER",
                        "referenceType": "purl",
                        "referenceLocator": purl(kind, package, version, architecture),
                    }
                ],
            }
        )
    notes = {"comment": f"not read: {', '.join(f'/{path}' for path in unread)}"} if unread else {}
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/pystack-{image.digest.removeprefix('sha256:')}",
        "creationInfo": {"created": _second(image.created), "creators": ["Tool: pystack"], **notes},
        "packages": described,
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": top},
            *(
                {"spdxElementId": top, "relationshipType": "CONTAINS", "relatedSpdxElement": one["SPDXID"]}
                for one in described[1:]
            ),
        ],
    }


def purl(kind: str, name: str, version: str, architecture: str) -> str:
    """The package's URL: pkg:deb/bash@5.2?arch=amd64."""
    name = re.sub(r"[-_.]+", "-", name).lower() if kind == "pypi" else name
    path = "/".join(urllib.parse.quote(part, safe="") for part in name.split("/"))
    text = f"pkg:{kind}/{path}" + (f"@{urllib.parse.quote(version, safe='')}" if version else "")
    return text + (f"?arch={urllib.parse.quote(architecture, safe='')}" if architecture else "")


def _second(time: str) -> str:
    """A time of RFC 3339 without parts of a second, as SPDX has it; the epoch where an image does not say when it was made."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", time)
    return f"{match[1] if match else '1970-01-01T00:00:00'}Z"
