"""A node that was removed does not become what it was again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.manifest import Manifest
from agent.engine.membership import KEPT, Membership
from agent.errors import ConflictError


def test_a_manifest_of_a_membership_that_was_left_is_refused(tmp_path: Path) -> None:
    one = Membership(tmp_path / "left")
    one.check(Manifest(member="a"), Manifest())
    one.leave("a")
    with pytest.raises(ConflictError, match="too late"):
        one.check(Manifest(member="a"), Manifest())
    one.check(Manifest(member="b"), Manifest())  # it was added again
    one.check(Manifest(member=""), Manifest())  # a manifest for a node alone, or of an older version
    with pytest.raises(ConflictError):
        Membership(tmp_path / "left").check(Manifest(member="a"), Manifest())


def test_a_file_that_is_damaged_or_old_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "left").write_text('{"torn')
    one = Membership(tmp_path / "left")
    for number in range(KEPT + 1):
        one.leave(str(number))
    one.check(Manifest(member="0"), Manifest())
    with pytest.raises(ConflictError):
        one.check(Manifest(member=str(KEPT)), Manifest())


def test_a_server_that_led_before_is_not_heard(tmp_path: Path) -> None:
    one, present = Membership(tmp_path / "left"), Manifest(member="a", term=5)
    with pytest.raises(ConflictError, match="another server leads"):
        one.check(Manifest(member="a", term=4), present)
    for later in (5, 6):
        one.check(Manifest(member="a", term=later), present)
    one.check(Manifest(member="a"), present)  # of a version without terms, or of a store of one server
    one.check(Manifest(member="b", term=1), present)  # it was added to another cluster
