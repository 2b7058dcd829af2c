"""SELinux labels: what options mean, which pair of categories a container gets, what a policy's files say."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import mounts
from agent.contract import selinux as contract
from agent.contract.container import Container
from agent.errors import BadRequestError
from agent.isolation import selinux
from agent.isolation.selinux import CATEGORIES, RESERVED_LEVEL, Context, Labels, Policy

PROCESS, FILE = "system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"
POLICY = Policy(Context.of(PROCESS), Context.of(FILE))
UNCONFINED = Labels("", f"{FILE[:-2]}{RESERVED_LEVEL}")
LXC_CONTEXTS = f'# for engines\nprocess = "{PROCESS}"\ncontent = "system_u:object_r:virt_var_lib_t:s0"\nfile = "{FILE}"\n'


def labels(*options: str, taken: tuple[str, ...] = (), joined: tuple[str, ...] = (), **fields: Any) -> Labels:
    return selinux.labels(POLICY, Container(image="i", security_opt=options, **fields), taken, joined)


def test_a_container_has_a_pair_of_categories_of_its_own() -> None:
    made = labels()
    level = selinux.level_of(made.process)
    assert made == (PROCESS[:-2] + level, FILE[:-2] + level)
    first, second = (int(word.removeprefix("c")) for word in level.removeprefix("s0:").split(","))
    assert 0 <= first < second < CATEGORIES
    assert selinux.shared(made.mount) == FILE


OPTIONS: dict[tuple[str, ...], tuple[str, str]] = {
    ("label=type:spc_t",): ("system_u:system_r:spc_t:LEVEL", "system_u:object_r:container_file_t:LEVEL"),
    ("label:type:spc_t",): ("system_u:system_r:spc_t:LEVEL", "system_u:object_r:container_file_t:LEVEL"),
    ("label=filetype:usr_t",): ("system_u:system_r:container_t:LEVEL", "system_u:object_r:usr_t:LEVEL"),
    ("label=user:staff_u",): ("staff_u:system_r:container_t:LEVEL", "staff_u:object_r:container_file_t:LEVEL"),
    ("label=role:r",): ("system_u:r:container_t:LEVEL", "system_u:object_r:container_file_t:LEVEL"),
    ("label=level:s0:c1,c2",): (PROCESS + ":c1,c2", FILE + ":c1,c2"),
    ("label=type:a_t", "label=level:s0:c100,c200", "no-new-privileges"): (
        "system_u:system_r:a_t:s0:c100,c200",
        "system_u:object_r:container_file_t:s0:c100,c200",
    ),
    ("seccomp=unconfined", "apparmor=unconfined"): (
        "system_u:system_r:container_t:LEVEL",
        "system_u:object_r:container_file_t:LEVEL",
    ),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_change_the_parts_that_they_name(options: tuple[str, ...]) -> None:
    made = labels(*options)
    level = selinux.level_of(made.mount)
    assert made == tuple(text.replace("LEVEL", level) for text in OPTIONS[options])


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (("label=disable",), {}),
        (("label:disable",), {}),
        (("label=disable", "label=type:a_t"), {}),
        ((), {"privileged": True}),
        ((), {"pid_mode": "host"}),
        ((), {"ipc_mode": "host"}),
    ],
)
def test_what_is_not_confined_has_no_label_and_its_files_one_that_no_other_has(
    options: tuple[str, ...], fields: dict[str, Any]
) -> None:
    assert labels(*options, **fields) == UNCONFINED


def test_a_privileged_container_is_confined_where_it_asks_for_it() -> None:
    assert labels("label=type:a_t", privileged=True).process.startswith("system_u:system_r:a_t:s0:c")


def test_who_joins_a_namespace_has_the_labels_of_its_owner() -> None:
    owner = labels("label=type:a_t")
    level = selinux.level_of(owner.process)
    assert labels(joined=(owner.process,), ipc_mode="container:x") == (owner.process, FILE[:-2] + level)
    assert labels(joined=(owner.process, owner.process)).process == owner.process
    assert labels(joined=("",)) == UNCONFINED
    with pytest.raises(BadRequestError, match="not the same"):
        labels(joined=(owner.process, PROCESS + ":c1,c2"))
    assert selinux.level_of(labels("label=level:s0:c5,c6", joined=(owner.process,)).process) == "s0:c5,c6"


WRONG = {
    "label=": 'bad label option ""',
    "label=Disable": "bad label option \"Disable\", valid options 'disable' or",
    "label=disable:x": 'bad label option "disable:x"',
    "label=kind:a_t": "bad label option \"kind\", valid options 'disable, user, role, type, level, filetype'",
    "label=type:": 'bad label option "type:"',
    "label=type:a t": 'bad label option "type:a t"',
    'label=level:s0",upperdir="/': 'bad label option "level:s0',
    "label=user:a:b": 'bad label option "user:a:b"',
}


@pytest.mark.parametrize("option", WRONG)
def test_an_option_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(BadRequestError) as error:
        labels(option)
    assert WRONG[option] in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=40), st.sampled_from(["", *(f"{word}:" for word in contract.WORDS)]))
def test_whatever_is_asked_for_stays_within_its_quotes(text: str, word: str) -> None:
    try:
        made = labels(f"label={word}{text}")
    except BadRequestError:
        assert contract.problem(f"{word}{text}")
        return
    option = mounts.labelled(made.mount)
    assert option.count('"') == 2
    assert option.startswith(',context="')
    assert option.endswith('"')
    assert not set(option) & set(" \n\\\0'")


@given(
    st.lists(st.tuples(st.integers(0, CATEGORIES - 1), st.integers(0, CATEGORIES - 1)), max_size=30),
    st.lists(st.integers(0, CATEGORIES - 1), min_size=1, max_size=20),
)
def test_a_free_level_is_an_ordered_pair_that_nobody_has(pairs: list[tuple[int, int]], numbers: list[int]) -> None:
    taken = {f"s0:c{min(p)},c{max(p)}" for p in pairs}
    source = itertools.chain(numbers, itertools.cycle(range(CATEGORIES)), numbers)
    level = selinux.free_level(taken, lambda below: next(source) % below)
    first, second = (int(word.removeprefix("c")) for word in level.removeprefix("s0:").split(","))
    assert 0 <= first < second < CATEGORIES
    assert level not in taken | {RESERVED_LEVEL}


def test_pairs_that_are_taken_are_passed_over() -> None:
    numbers = iter([7, 3, 3, 3, CATEGORIES - 1, CATEGORIES - 2, 4, 9])
    assert selinux.free_level({"s0:c3,c7"}, lambda _: next(numbers)) == "s0:c4,c9"


@given(st.from_regex(r"[a-z_]{1,8}:[a-z_]{1,8}:[a-z_]{1,8}(:s[0-9](:c[0-9]{1,4}(,c[0-9]{1,4})?)?)?", fullmatch=True))
def test_a_context_reads_as_it_is_written(text: str) -> None:
    assert str(Context.of(text)) == text
    assert selinux.level_of(text) == Context.of(text).level


@pytest.mark.parametrize("text", ["", "a", "a:b", "a:b:", "::", "a::c:s0"])
def test_what_is_not_a_context_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SELinux context"):
        Context.of(text)


def test_a_policy_without_levels_gives_none() -> None:
    policy = Policy(Context.of("u:r:container_t"), Context.of("u:object_r:container_file_t"))
    assert selinux.labels(policy, Container(image="i"), ()) == ("u:r:container_t", "u:object_r:container_file_t")
    assert selinux.shared("u:object_r:container_file_t") == "u:object_r:container_file_t"


def host(folder: Path, *, contexts: str | None = LXC_CONTEXTS) -> tuple[Path, Path, Path]:
    """The folders of a host with SELinux: selinuxfs, /etc/selinux, and what container-selinux would bring."""
    (folder / "fs").mkdir()
    (folder / "fs/enforce").write_text("1")
    (folder / "etc/default/contexts").mkdir(parents=True)
    (folder / "etc/config").write_text("# SELINUXTYPE=other\nSELINUX=enforcing\nSELINUXTYPE=default\n")
    if contexts is not None:
        (folder / "etc/default/contexts/lxc_contexts").write_text(contexts)
    return folder / "fs", folder / "etc", folder / "engine-contexts"


def test_the_policys_own_contexts_are_read(tmp_path: Path) -> None:
    folders = host(tmp_path)
    assert selinux.read(*folders, lambda _: True) == (POLICY, "")
    folders[2].write_text(LXC_CONTEXTS.replace("container_t", "engine_t"))
    policy, _ = selinux.read(*folders, lambda _: True)
    assert policy
    assert policy.process.type == "engine_t"


def test_without_selinux_nothing_is_read(tmp_path: Path) -> None:
    assert selinux.read(tmp_path / "none", tmp_path / "none", tmp_path / "none", lambda _: False) == (None, "")


@pytest.mark.parametrize(
    ("contexts", "why"),
    [
        (None, "no labels of containers are known"),
        ("", "no labels of containers are known"),
        (f'process = "{PROCESS}"\n', "no labels of containers are known"),
        ('process = "x"\nfile = "y"\n', "no labels of containers are known"),
    ],
)
def test_a_policy_that_names_no_containers_labels_none(contexts: str | None, why: str, tmp_path: Path) -> None:
    policy, said = selinux.read(*host(tmp_path, contexts=contexts), lambda _: True)
    assert policy is None
    assert why in said


def test_a_policy_that_names_types_which_it_does_not_have_labels_none(tmp_path: Path) -> None:
    policy, said = selinux.read(*host(tmp_path), lambda context: context != FILE)
    assert policy is None
    assert said.startswith(f"the loaded policy does not know {FILE}, which {tmp_path}")


def test_labels_that_the_kernel_does_not_know_are_refused() -> None:
    made = labels("label=type:nobody_t")
    with pytest.raises(BadRequestError, match="does not know system_u:system_r:nobody_t:s0"):
        selinux.require_known(made, lambda label: "nobody_t" not in label)
    selinux.require_known(made, lambda _: True)
    selinux.require_known(UNCONFINED, bool)


def test_the_setting_switches_it_off() -> None:
    assert selinux.in_use("off") is None


@pytest.mark.parametrize(("words", "label"), [((), ""), (("ro",), ""), (("ro", "z"), "z"), (("Z", "rshared"), "Z")])
def test_a_mount_is_shared_or_of_one_container(words: tuple[str, ...], label: str) -> None:
    assert contract.relabelling(words) == label


def test_a_mount_is_not_both() -> None:
    with pytest.raises(ValueError, match="z and Z can not be used together"):
        contract.relabelling(("z", "Z"))
