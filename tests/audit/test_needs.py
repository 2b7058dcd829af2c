"""What a service needs beyond strict: the smallest set, the folders, the lines."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.container import Container, Mount
from orchestrator.audit import needs
from orchestrator.audit.needs import Need, Written


@given(st.integers(1, 20), st.data())
def test_the_smallest_set_is_found_and_asked_for_seldom(count: int, data: st.DataObject) -> None:
    wanted = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    asked = 0

    def enough(some: Sequence[int]) -> bool:
        nonlocal asked
        asked += 1
        return wanted <= set(some)

    assert set(needs.smallest(range(count), enough)) == wanted
    assert asked <= 2 * len(wanted) * (1 + count.bit_length())


def test_of_two_ways_that_of_the_later_is_kept() -> None:
    assert needs.smallest(["wide", "a", "b"], lambda some: "wide" in some or {"a", "b"} <= set(some)) == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"/var": 0, "/var/cache": 0, "/var/cache/new": 1, "/var/cache/new/x": 1}, ["/var/cache"]),
        ({"/etc": 0, "/etc/app.conf": 0}, ["/etc"]),
        ({"/data": 0}, ["/data"]),
        ({"/new": 1, "/new/x": 1}, ["/new"]),
        ({"/tmp/x": 1, "/run/x.pid": 1, "/var/tmp/y": 2}, []),
        ({"/srv": 0, "/srv/x": 2, "/srv/deep": 0, "/srv/deep/y": 1}, ["/srv"]),
        ({}, []),
    ],
    ids=["added below", "file changed", "folder changed", "top added", "memory anyway", "one below another", "nothing"],
)
def test_folders_that_are_written(changes: dict[str, int], found: list[str]) -> None:
    assert needs.folders(changes, lambda path: path in ("/data", "/new")) == found


def test_only_capabilities_whose_calls_were_seen_are_tried() -> None:
    wanted = needs.candidates(
        Container(image="a", cap_add=("CAP_NET_ADMIN",)),
        {"fchown", "setuid"},
        [Written("/var/cache", holds=False), Written("/etc/app", holds=True)],
        beyond_strict=["mknod"],
    )
    assert [n.value for n in wanted if n.key == "cap_add"] == ["NET_ADMIN", "FSETID", "CHOWN", "SETUID"]
    assert wanted[-2:] == [Need("tmpfs", "/var/cache"), Need("volumes", "/etc/app")]
    assert Need("security_opt", "seccomp=builtin") in wanted


def test_what_is_given_takes_the_place_of_what_strict_says() -> None:
    strict = needs.strict(Container(image="a", cap_add=("SYS_ADMIN",), security_opt=("label=disable",)))
    assert (strict.cap_drop, strict.cap_add, strict.read_only, strict.userns_mode) == (("ALL",), (), True, "auto")
    assert strict.security_opt == ("label=disable", "no-new-privileges:true", "seccomp=strict")
    wide = [*needs.WIDE, Need("security_opt", "seccomp=builtin"), Need("cap_add", "KILL"), Need("volumes", "/etc/app")]
    made = needs.given(strict, wide)
    assert made.security_opt == ("label=disable", "no-new-privileges:false", "seccomp=builtin")
    assert (made.userns_mode, made.cap_add, made.mounts[-1]) == ("host", ("KILL",), Mount(kind="volume", target="/etc/app"))
    assert "no-new-privileges:true" in needs.strict(made).security_opt


def test_lines_are_a_stack_file() -> None:
    wanted = [*needs.WIDE, Need("cap_add", "SETUID"), Need("cap_add", "CHOWN"), Need("tmpfs", "/var/cache")]
    assert needs.lines("web", wanted).splitlines() == [
        "services:",
        "  web:",
        "    x-harden: strict",
        "    cap_add: [CHOWN, SETUID]",
        '    security_opt: ["no-new-privileges:false"]',
        "    userns_mode: host",
        "    tmpfs: [/var/cache]",
    ]
