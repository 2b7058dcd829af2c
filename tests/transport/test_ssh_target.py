"""How an SSH target is written."""

from __future__ import annotations

import pytest

from orchestrator.errors import RefusedError
from orchestrator.transport.ssh import SshTarget


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host", SshTarget("host")),
        ("root@host", SshTarget("host", "root")),
        ("root@10.0.0.1:2222", SshTarget("10.0.0.1", "root", 2222)),
        ("root@[fd00::1]:2222", SshTarget("fd00::1", "root", 2222)),
        ("[fd00::1]", SshTarget("fd00::1")),
        ("fd00::1", SshTarget("fd00::1")),
        ("a@b@host", SshTarget("host", "a@b")),
    ],
)
def test_a_target(text: str, expected: SshTarget) -> None:
    assert SshTarget.parse(text) == expected


@pytest.mark.parametrize("text", ["", "root@", "host:ssh", "-oProxyCommand=x", "root@:22"])
def test_what_is_not_a_target(text: str) -> None:
    with pytest.raises(RefusedError, match="is not an SSH target") as refused:
        SshTarget.parse(text)
    assert refused.value.status == 400
