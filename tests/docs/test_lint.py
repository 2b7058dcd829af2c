"""What is left out of ruff's rules in pyproject.toml has a hit: an exception that nothing needs any more goes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePath

ROOT = Path(__file__).parents[2]
RUFF = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]


def alternatives(pattern: str) -> list[str]:
    """`{a,b}/c` as a/c and b/c."""
    if not (inner := re.search(r"\{([^{}]*)\}", pattern)):
        return [pattern]
    before, after = pattern[: inner.start()], pattern[inner.end() :]
    return [whole for one in inner[1].split(",") for whole in alternatives(before + one + after)]


def matches(path: str, pattern: str) -> bool:
    """As ruff: `**` is any folder, `*` anything."""
    as_regex = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", ".*")
    return re.fullmatch(as_regex, path) is not None


def hits() -> set[tuple[str, str]]:
    """(path, code) of all that ruff finds where nothing is left out."""
    command = [str(Path(sys.executable).with_name("ruff")), "check", "--output-format", "json", "--no-cache", "."]
    nothing = ["--extend-select", ",".join(RUFF["ignore"]), "--config", "lint.per-file-ignores = {}"]
    done = subprocess.run([*command, *nothing], cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    return {(str(PurePath(one["filename"]).relative_to(ROOT)), one["code"]) for one in found}


def test_a_pattern_with_alternatives() -> None:
    assert alternatives("{a/{b,c}.py,d/**}") == ["a/b.py", "d/**", "a/c.py", "d/**"]
    assert matches("a/b/c.py", "a/**")
    assert not matches("ab/c.py", "a/**")


def test_whatever_is_left_out_has_a_hit() -> None:
    found = hits()
    idle = [code for code in RUFF["ignore"] if not any(hit.startswith(code) for _, hit in found)]
    for patterns, codes in RUFF["per-file-ignores"].items():
        for pattern in set(alternatives(patterns)):
            here = {hit for path, hit in found if matches(path, pattern)}
            if not here:
                idle.append(pattern)
        everywhere = {hit for path, hit in found if any(matches(path, p) for p in alternatives(patterns))}
        idle += [f"{patterns}: {code}" for code in codes if not any(hit.startswith(code) for hit in everywhere)]
    assert not idle, "\n".join(idle)
