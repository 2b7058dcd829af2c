"""Records a terminal to an SVG: `record.py TARGET.svg COMMAND…`, each command at a prompt, run on a terminal of its own.

docs/terminal.svg is that of `make picture`: the quick start's stack, planned, brought up and looked at.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 104, 40
REDRAWN = re.compile(r"[^\n]*\r\x1b\[K|[^\n]*\r(?!\n)")
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.S)


def output_of(command: str) -> str:
    """All that *command* says on a terminal; what was drawn over is left out. Raises SystemExit where it fails."""
    leader, follower = pty.openpty()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    process = subprocess.Popen(["bash", "-c", command], stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    output = b""
    while True:
        try:
            piece = os.read(leader, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(leader)
    text = REDRAWN.sub("", output.decode(errors="replace").replace("\r\n", "\n"))
    if process.wait():
        raise SystemExit(f"{command}: {process.returncode}\n{text}")
    return text


def main(target: Path, commands: list[str]) -> None:
    """Run *commands* and write the picture."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        for command in commands:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            console.print(Text.from_ansi(output_of(command).rstrip()))
            console.print()
    drawn = FONT_FACE.sub("", console.export_svg(title="pystack", unique_id="terminal"))
    target.write_text(re.sub(r"[ \t]+$", "", drawn, flags=re.M))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
