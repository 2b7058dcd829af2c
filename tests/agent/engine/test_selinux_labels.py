"""Who gets which SELinux labels on a node: kept over restarts, no pair of categories twice, an owner's for who joins it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.contract.container import Container, Mount
from agent.engine import records, selinux_labels
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import BadRequestError
from agent.isolation import selinux
from agent.isolation.selinux import Context, Policy
from agent.paths import Paths
from agent.settings import Settings
from agent.trees.relabel import ATTRIBUTE

FILE = "system_u:object_r:container_file_t:s0"
POLICY = Policy(Context.of("system_u:system_r:container_t:s0"), Context.of(FILE))


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineContext:
    """An engine on a node whose policy knows every context: what is written to its file `context` is."""
    monkeypatch.setattr(selinux, "KERNEL", tmp_path)
    made = EngineContext(Paths(tmp_path / "root", tmp_path / "run", ""), Settings(runtime="runc"))
    made.selinux = POLICY
    return made


def put(context: EngineContext, name: str, *options: str, **modes: str) -> Record:
    container = Container(image="x", security_opt=options, **modes)  # type: ignore[arg-type]
    record = Record(id=name.ljust(64, "0"), name=name, container=container, created="")
    selinux_labels.assign(context, record)
    context.containers.records[record.id] = record
    return record


def test_no_two_have_the_same_pair_and_one_that_is_removed_gives_it_back(
    context: EngineContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[frozenset[str]] = []
    real = selinux.free_level

    def free_level(taken: frozenset[str]) -> str:
        given.append(taken)
        return real(taken)

    monkeypatch.setattr(selinux, "free_level", free_level)
    first, second = put(context, "a"), put(context, "b")
    assert first.mount_label != second.mount_label
    assert given == [frozenset(), selinux.levels([first.mount_label])]
    context.containers.forget(first)
    put(context, "c")
    assert given[-1] == selinux.levels([second.mount_label])


def test_labels_stay_over_a_restart_of_the_container_and_of_the_agent(context: EngineContext, tmp_path: Path) -> None:
    record = put(context, "a")
    before = record.process_label, record.mount_label
    selinux_labels.assign(context, record)
    records.save(tmp_path, records.encoded(record))
    again = records.load(tmp_path)
    assert again
    selinux_labels.assign(context, again)
    assert (record.process_label, record.mount_label) == (again.process_label, again.mount_label) == before


def test_who_joins_a_namespace_has_its_owners_labels_and_follows_them(context: EngineContext) -> None:
    owner, other = put(context, "owner"), put(context, "other")
    user = put(context, "user", ipc_mode="container:owner")
    assert (user.process_label, user.mount_label) == (owner.process_label, owner.mount_label)
    assert put(context, "pid", pid_mode="container:owner").mount_label == owner.mount_label
    owner.process_label, owner.mount_label = other.process_label, other.mount_label
    selinux_labels.assign(context, user)
    assert user.mount_label == other.mount_label
    own = put(context, "own", "label=type:a_t", ipc_mode="container:owner")
    kept = own.process_label
    selinux_labels.assign(context, own)
    assert own.process_label == kept
    assert put(context, "early", ipc_mode="container:nobody").mount_label


def test_what_is_not_confined_keeps_its_files_from_all_others(context: EngineContext) -> None:
    record = put(context, "a", "label=disable")
    assert (record.process_label, record.mount_label) == ("", f"{FILE}:c1022,c1023")
    assert put(context, "b", ipc_mode="container:a").process_label == ""


def test_a_node_that_sets_no_labels_takes_those_of_before_away(context: EngineContext) -> None:
    record = put(context, "a", "label=type:a_t")
    assert record.mount_label
    context.selinux = None
    selinux_labels.assign(context, record)
    assert (record.process_label, record.mount_label) == ("", "")
    assert selinux_labels.notes(context, record) == ["label=type:a_t has no effect: this node sets no SELinux labels"]
    assert selinux_labels.notes(context, put(context, "b", "label=disable")) == []


def test_a_label_that_the_policy_does_not_know_is_refused(
    context: EngineContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(selinux, "KERNEL", tmp_path / "none")  # each write fails, as of a context that is not known
    with pytest.raises(BadRequestError, match="does not know system_u:system_r:container_t:s0:c"):
        put(context, "a")


@pytest.mark.skipif(os.geteuid() != 0, reason="to set labels is root's")
@pytest.mark.parametrize(
    ("mount", "level"),
    [
        (Mount(kind="bind", target="/x", selinux="z"), "s0"),
        (Mount(kind="bind", target="/x", selinux="Z"), "own"),
        (Mount(kind="bind", target="/x"), ""),
        (Mount(kind="volume", target="/x"), "s0"),
        (Mount(kind="volume", target="/x", selinux="Z"), "own"),
    ],
)
def test_sources_get_the_label_of_all_or_of_one(context: EngineContext, tmp_path: Path, mount: Mount, level: str) -> None:
    record = put(context, "a")
    source = tmp_path / "source"
    source.mkdir()
    os.setxattr(source, ATTRIBUTE, b"before")
    asyncio.run(selinux_labels.relabelled(record, mount, source))
    wanted = {"": "before", "s0": FILE, "own": record.mount_label}[level]
    assert os.getxattr(source, ATTRIBUTE).rstrip(b"\0").decode() == wanted
