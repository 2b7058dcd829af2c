"""What MkDocs does beside mkdocs.yml: the search finds what people use before how it was made."""

from __future__ import annotations

from typing import Any

LESS = {
    "decisions/": 0.05,
    "architecture": 0.1,
    "performance": 0.1,
    "scale": 0.1,
    "reliability": 0.1,
    "glossary": 0.3,
    "compose": 0.4,
}
"""Weights of pages, by the beginning of their paths; 1 is that of the guide."""


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Give *page* its weight in the search, as Material's "Search boosting" has it. MkDocs calls this for each page."""
    weight = next((weight for start, weight in LESS.items() if page.file.src_uri.startswith(start)), 1)
    page.meta.setdefault("search", {})["boost"] = weight
    return markdown
