"""Modes in letters, beside chmod(1)."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.trees import modes

WHO = st.sampled_from(["", "u", "g", "o", "a", "ug", "go"])


def texts(letters: str) -> st.SearchStrategy[str]:
    clause = st.tuples(WHO, st.sampled_from("+-="), st.text(letters, max_size=3)).map("".join)
    return st.lists(clause, min_size=1, max_size=3).map(",".join)


WISHES = st.one_of(st.tuples(texts("rwxXs"), st.just(False)), st.tuples(texts("rwxX"), st.just(True)))
"""GNU's chmod has rules of its own for set-group-ID of directories."""


@settings(max_examples=60)
@given(wish=WISHES, before=st.integers(0, 0o777))
def test_letters_mean_what_chmod_means(wish: tuple[str, bool], before: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    text, directory = wish
    path = tmp_path_factory.mktemp("mode") / "x"
    path.mkdir() if directory else path.touch()
    path.chmod(before)
    umask = os.umask(0)
    try:
        subprocess.run(["chmod", "--", text, str(path)], check=True)
    finally:
        os.umask(umask)
    assert modes.changed(text, before, directory=directory) == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("text", ["", "999", "77777", "u", "u+q", "x+r", "0o755", "rwx", "u=rw;"])
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(ValueError, match="a mode is written like"):
        modes.changed(text, 0, directory=False)


def test_digits(tmp_path: Path) -> None:
    assert modes.changed("755", 0, directory=False) == 0o755
    assert modes.changed("4711", 0, directory=False) == 0o4711
