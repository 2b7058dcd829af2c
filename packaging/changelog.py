"""Prints debian/changelog for a version: `changelog.py VERSION EPOCH`, from CHANGELOG.md."""

from __future__ import annotations

import email.utils
import re
import sys
import textwrap
from pathlib import Path

CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"
MAINTAINER = "pystack developers <pystack@example.org>"


def section(version: str) -> str:
    """What CHANGELOG.md says of *version*, without its head. Raises SystemExit where it has nothing."""
    found = re.search(rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", CHANGELOG.read_text(), re.S | re.M)
    if not found:
        raise SystemExit(f"{CHANGELOG} has no section `## {version}`: write one")
    return found[1].strip()


def debian(version: str, epoch: int) -> str:
    """The entry in the form of deb-changelog(5)."""
    entries = [" ".join(entry.split()) for entry in re.split(r"^- ", section(version), flags=re.M) if entry.strip()]
    lines = [textwrap.fill(e, 78, initial_indent="  * ", subsequent_indent="    ", break_long_words=False) for e in entries]
    date = email.utils.formatdate(epoch)
    return f"pystack ({version}) stable; urgency=medium\n\n" + "\n".join(lines) + f"\n\n -- {MAINTAINER}  {date}\n"


if __name__ == "__main__":
    sys.stdout.write(debian(sys.argv[1], int(sys.argv[2])))
