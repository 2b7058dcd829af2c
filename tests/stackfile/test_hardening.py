"""`x-harden: strict`, and seccomp profiles that travel with a stack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.contract.container import Container
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.problem import StackFileError


def container(folder: Path, body: str) -> Container:
    (folder / "stack.yml").write_text(f"services: {{a: {{image: i, {body}}}}}")
    return load(Options(files=(str(folder / "stack.yml"),)), {}).stack.services[0].container


def test_strict_is_everything_that_takes_rights_away(tmp_path: Path) -> None:
    c = container(tmp_path, "x-harden: strict, cap_add: [NET_BIND_SERVICE]")
    assert (c.cap_drop, c.cap_add) == (("ALL",), ("NET_BIND_SERVICE",))
    assert c.security_opt == ("no-new-privileges:true", "seccomp=strict")
    assert (c.read_only, c.userns_mode, c.pids) == (True, "auto", 1024)
    assert [m.target for m in c.mounts if m.kind == "tmpfs"] == ["/tmp", "/run", "/var/tmp"]


def test_what_the_service_says_itself_counts(tmp_path: Path) -> None:
    c = container(
        tmp_path,
        "x-harden: strict, read_only: false, userns_mode: host, pids_limit: 9, security_opt: [seccomp=builtin]",
    )
    assert (c.read_only, c.userns_mode, c.pids, c.mounts) == (False, "host", 9, ())
    assert c.security_opt == ("seccomp=builtin", "no-new-privileges:true")
    c = container(tmp_path, "x-harden: strict, tmpfs: [/run], volumes: [/tmp]")
    assert [m.target for m in c.mounts] == ["/tmp", "/run", "/var/tmp"]


def test_default_changes_nothing(tmp_path: Path) -> None:
    assert container(tmp_path, "x-harden: default") == container(tmp_path, "init: false")


def test_strict_and_privileged_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(StackFileError, match="strict and privileged exclude each other"):
        container(tmp_path, "x-harden: strict, privileged: true")


def test_a_profile_is_a_file_of_the_client_and_travels(tmp_path: Path) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    (tmp_path / "p.json").write_text(json.dumps(profile, indent=4))
    c = container(tmp_path, "security_opt: ['seccomp:p.json', 'apparmor=unconfined']")
    assert c.security_opt == ('seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}', "apparmor=unconfined")
    assert container(tmp_path, "security_opt: ['seccomp=/not/here.json']").security_opt == ("seccomp=/not/here.json",)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "does not exist"), ("{", "not a seccomp profile"), ("[]", "not a seccomp")]
)
def test_a_profile_that_is_none_is_told_with_its_place(tmp_path: Path, content: str | None, why: str) -> None:
    if content is not None:
        (tmp_path / "p.json").write_text(content)
    with pytest.raises(StackFileError, match=rf"stack.yml:1:\d+: services.a.security_opt\[0\]: .*{why}"):
        container(tmp_path, "security_opt: [seccomp=p.json]")


def test_labels_of_selinux_are_read_where_they_stand(tmp_path: Path) -> None:
    c = container(tmp_path, "security_opt: ['label=type:a_t', 'label:disable'], volumes: ['./a:/a:z', './b:/b:ro,Z', './d:/d']")
    assert c.security_opt == ("label=type:a_t", "label:disable")
    assert [m.selinux for m in c.mounts] == ["z", "Z", ""]
    c = container(tmp_path, "volumes: [{type: bind, source: ./a, target: /a, bind: {selinux: Z}}]")
    assert c.mounts[0].selinux == "Z"


@pytest.mark.parametrize(
    ("option", "why"),
    [("label=kind:x", 'bad label option "kind", valid options \'disable, user'), ("'label=type:'", 'bad label option "type:"')],
)
def test_labels_that_are_none_are_told_with_their_line(option: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(
        f"services:\n  a:\n    image: i\n    security_opt:\n      - label=disable\n      - {option}\n"
    )
    told = load(Options(files=(str(tmp_path / "stack.yml"),)), {}).stack.services[0].problem
    assert f"stack.yml:6:9: services.a.security_opt[1]: {why}" in told


def test_a_mount_that_is_both_shared_and_private_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text("services:\n  a:\n    image: i\n    volumes:\n      - ./a:/a:z,Z\n")
    with pytest.raises(StackFileError, match=r"stack\.yml:5:9: .*z and Z can not be used together"):
        load(Options(files=(str(tmp_path / "stack.yml"),)), {})
