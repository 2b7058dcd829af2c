"""Gathers a release: `release.py TARGET FOLDER…` copies the artefacts of the folders, and writes beside them

SHA256SUMS        for `sha256sum -c`
SBOM.cdx.json     what the packages hold (CycloneDX 1.5), from packaging/requirements.txt
CHANGES.md        the version's part of CHANGELOG.md
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

from changelog import section  # noqa: E402

from agent.contract.version import VERSION  # noqa: E402

ARTEFACTS = ("*.whl", "*.tar.gz", "*.deb")
PINNED = re.compile(r"^([\w.-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$", re.M)


def main(target: Path, folders: list[Path]) -> None:
    """Replace what is in *target*. Raises SystemExit where a folder has no artefact, or the changelog not the version."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for folder in folders:
        found = sorted(path for pattern in ARTEFACTS for path in folder.glob(pattern))
        if not found:
            raise SystemExit(f"{folder} has no artefact: `make deb dist` first")
        for path in found:
            shutil.copyfile(path, target / path.name)
    (target / "CHANGES.md").write_text(section(VERSION) + "\n")
    (target / "SBOM.cdx.json").write_text(json.dumps(bill_of_materials(), indent=2) + "\n")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(target.iterdir())]
    (target / "SHA256SUMS").write_text("".join(sums))
    print(f"{target}: {len(sums)} files of {VERSION}")


def bill_of_materials() -> dict[str, Any]:
    """The distributions that the packages hold. Source: CycloneDX 1.5; package URLs: purl-spec, type pypi."""
    components = [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.replace('_', '-').lower()}@{version}",
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for name, version, digest in PINNED.findall((ROOT / "packaging/requirements.txt").read_text())
    ]
    own = {"type": "application", "name": "pystack-orchestrator", "version": VERSION}
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([own, components]))}",
        "version": 1,
        "metadata": {"timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "component": own},
        "components": components,
    }


def normalise(archive: Path) -> None:
    """Write a .tar.gz again with nothing in it of who made it and when. Source: reproducible-builds.org, "Archive metadata"."""
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    out = io.BytesIO()
    with tarfile.open(archive) as given, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for member in sorted(given.getmembers(), key=lambda m: m.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            made.addfile(member, given.extractfile(member) if member.isfile() else None)
    archive.write_bytes(gzip.compress(out.getvalue(), 9, mtime=epoch))


if __name__ == "__main__":
    if sys.argv[1] == "--normalise":
        for name in sys.argv[2:]:
            normalise(Path(name))
    else:
        main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
