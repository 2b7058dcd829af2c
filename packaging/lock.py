"""Writes packaging/requirements.txt: the versions and digests of all that the server's package holds. Run it
to update them: they are those that this environment's tests ran with."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "packaging/requirements.txt"


def main() -> None:
    """Let pip resolve, and write what it chose, one line a distribution and machine."""
    tested = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable"], check=True, capture_output=True, text=True
    ).stdout
    with tempfile.NamedTemporaryFile(suffix=".json") as report, tempfile.NamedTemporaryFile("w", suffix=".txt") as versions:
        versions.write(tested)
        versions.flush()
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--dry-run",
                "--ignore-installed",
                *("--report", report.name, "--constraint", versions.name, f"{ROOT}[server]"),
            ],
            check=True,
        )
        found = json.loads(Path(report.name).read_text())["install"]
    lines = []
    for item in found:
        meta, info = item["metadata"], item["download_info"]
        if meta["name"] != "pystack-orchestrator":
            lines.append(f"{meta['name'].lower()}=={meta['version']} --hash=sha256:{info['archive_info']['hashes']['sha256']}")
    TARGET.write_text("# written by packaging/lock.py\n" + "\n".join(sorted(lines)) + "\n")


if __name__ == "__main__":
    main()
