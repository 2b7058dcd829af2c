"""The table of all attacks, for docs/security.md: `python -m tests.escape.table` writes it there."""

from __future__ import annotations

from pathlib import Path

from tests.escape import copies, images, layers, repositories, volumes
from tests.escape.rows import CONTAINERS, REFERENCES, ROWS

DOCUMENT = Path(__file__).parents[2] / "docs/security.md"
BEGIN, END = "<!-- begin: tests/escape -->\n", "<!-- end: tests/escape -->\n"
CONTENT = (*layers.ROWS, *images.ROWS, *copies.ROWS, *volumes.ROWS, *repositories.ROWS)
NAMES = frozenset([*(row.attack for row in ROWS), *(row.name for row in CONTENT), *(row.name for row in REFERENCES)])


def _put_off(container: str) -> str:
    """What of a container of CONTAINERS puts the guard off, in words of a stack file."""
    if container == "chroot":
        return "chroot(2) in place of a container"
    keys = CONTAINERS[container]
    words = [f"{k}: {v}" for k, v in keys.items() if k not in ("cap_add", "extra_hosts", "environment", "volumes", "tmpfs")]
    words += ["with the capability"] if "cap_add" in keys else []
    words += ["with the mount"] if "volumes" in keys and not words else []
    words += ["given to it"] if "environment" in keys else []
    return ", ".join(words).replace("'", "").replace("True", "true") or "without it"


def table() -> str:
    lines = ["| attack | what it tries | what holds it | how it succeeds |", "|---|---|---|---|"]
    lines += [f"| `{row.attack}` | {row.what} | {row.guard} | {_put_off(row.off)} |" for row in ROWS]
    lines += [f"| `{row.name}` | {row.what} | {row.guard} | {row.off} |" for row in CONTENT]
    lines += [f"| `{row.name}` | {row.what} | {row.guard} | {row.off} |" for row in REFERENCES]
    return "\n".join(lines) + "\n"


def main() -> None:
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}{table()}{END}{after}")


if __name__ == "__main__":
    main()
