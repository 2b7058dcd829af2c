"""Tables of figures in docs/limits.md."""

from __future__ import annotations

from pathlib import Path

PAGE = Path("docs/limits.md")


def replace_section(section: str, text: str) -> None:
    """Write *text* between the marks of *section* in docs/limits.md."""
    end, page = f"<!-- end of {section} -->", PAGE.read_text()
    begin = next(line for line in page.splitlines() if line.startswith(f"<!-- {section}: written by "))
    before, _, rest = page.partition(begin)
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")
