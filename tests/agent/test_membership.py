"""A node that was removed does not become what it was again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engine.membership import KEPT, Membership
from agent.errors import ConflictError


def test_a_manifest_of_a_membership_that_was_left_is_refused(tmp_path: Path) -> None:
    one = Membership(tmp_path / "left")
    one.check("a")
    one.leave("a")
    with pytest.raises(ConflictError, match="too late"):
        one.check("a")
    one.check("b")  # it was added again
    one.check("")  # a manifest for a node alone, or of an older version
    with pytest.raises(ConflictError):
        Membership(tmp_path / "left").check("a")


def test_a_file_that_is_damaged_or_old_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "left").write_text('{"torn')
    one = Membership(tmp_path / "left")
    for number in range(KEPT + 1):
        one.leave(str(number))
    one.check("0")
    with pytest.raises(ConflictError):
        one.check(str(KEPT))
