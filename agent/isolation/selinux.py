"""SELinux: the labels of a container's process and of its files, where the kernel has a policy that knows containers.

A process has the policy's type for containers, and a pair of categories that no other container has; files of its own carry the
same pair, so that neither the host's files nor those of another container are open to it. Source: selinux(8), "Multi-Category
Security" of the SELinux Notebook; lxc_contexts of selinux-policy; OCI runtime specification, `process.selinuxLabel` and
`linux.mountLabel`.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agent import rootless
from agent.contract import selinux as contract
from agent.contract.container import Container
from agent.errors import BadRequestError

KERNEL = Path("/sys/fs/selinux")
"""Where selinuxfs is mounted, which is there where SELinux is on and a policy is loaded. Source: selinux(8)."""
SETTINGS = Path("/etc/selinux")
CONTEXTS = Path("/usr/share/containers/selinux/contexts")
"""The contexts of container engines, where container-selinux brings them; lxc_contexts of the policy otherwise."""
ATTRIBUTE = "security.selinux"
CATEGORIES = 1024
SHARED_LEVEL = "s0"
RESERVED_LEVEL = f"s0:c{CATEGORIES - 2},c{CATEGORIES - 1}"
"""Of the files of containers whose processes are not confined: no confined container has it."""


class Context(NamedTuple):
    """user:role:type:level; *level* is "" where the policy has none."""

    user: str
    role: str
    type: str
    level: str = ""

    @classmethod
    def of(cls, text: str) -> Context:
        """Raises ValueError."""
        parts = text.split(":", 3)
        if len(parts) < 3 or not all(parts):
            raise ValueError(f"{text!r} is not a SELinux context: user:role:type:level")
        return cls(*parts)

    def __str__(self) -> str:
        return ":".join(part for part in self if part)


class Policy(NamedTuple):
    """The contexts that the loaded policy has for containers."""

    process: Context
    file: Context


class Labels(NamedTuple):
    """The labels of a container. *process* is "" where it is not confined, *mount* where there is no SELinux."""

    process: str = ""
    mount: str = ""


def in_use(mode: str) -> Policy | None:
    """The policy that containers of this agent are labelled by, None for none; *mode* is `selinux` of config.yml."""
    return None if mode == "off" or rootless.inside() else found()[0]  # without root nobody mounts with a context


@functools.cache
def found() -> tuple[Policy | None, str]:
    """The policy of this kernel, looked for once, or why it cannot label containers; (None, "") where SELinux is not on."""
    return read(KERNEL, SETTINGS, CONTEXTS, known)


def read(kernel: Path, settings: Path, contexts: Path, known: Callable[[str], bool]) -> tuple[Policy | None, str]:
    """As `found`, of these folders; *known* says whether the loaded policy has a context."""
    if not (kernel / "enforce").exists():
        return None, ""
    try:
        if not contexts.exists():
            name = dict(_pairs((settings / "config").read_text())).get("SELINUXTYPE", "")
            contexts = settings / name / "contexts/lxc_contexts"
        values = dict(_pairs(contexts.read_text()))
        policy = Policy(*(Context.of(values.get(key, "")) for key in ("process", "file")))
    except (OSError, ValueError) as error:
        return None, f"no labels of containers are known: {error}"
    if strange := next((str(c) for c in policy if not known(str(c))), ""):
        return None, f"the loaded policy does not know {strange}, which {contexts} names"
    return policy, ""


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """KEY = "VALUE" of each line that is not a comment."""
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith(("#", ";")):
            yield key.strip(), value.strip().strip('"')


def known(context: str) -> bool:
    """Whether the loaded policy has *context*. Source: security_check_context(3)."""
    try:
        (KERNEL / "context").write_text(context)
    except OSError:
        return False
    return True


def is_enforcing() -> bool:
    """Whether what the policy forbids is refused, and not noted alone."""
    try:
        return (KERNEL / "enforce").read_text().strip() == "1"
    except OSError:
        return False


def free_level(taken: Collection[str], below: Callable[[int], int] = secrets.randbelow) -> str:
    """A pair of categories that is not in *taken*, by chance: what one that is gone has left behind is open to nobody soon.
    *below* gives a number from 0 to below its argument."""
    while True:
        first, second = sorted((below(CATEGORIES), below(CATEGORIES)))
        level = f"s0:c{first},c{second}"
        if first != second and level != RESERVED_LEVEL and level not in taken:
            return level


def level_of(label: str) -> str:
    """The level of a label, "" for none."""
    return label.split(":", 3)[3] if label.count(":") > 2 else ""


def labels(policy: Policy, c: Container, taken: Collection[str], joined: Sequence[str] = ()) -> Labels:
    """The labels of the new container *c*. *taken* are the levels of others, *joined* the process labels of the containers
    whose IPC and PID namespaces it is to be in: it has theirs. Raises BadRequestError for an option that is none."""
    asked = contract.options(c.security_opt)
    for option in asked:
        if problem := contract.problem(option):
            raise BadRequestError(f"security_opt label: {problem}")
    unconfined = contract.DISABLE in asked or (
        not asked and (c.privileged or c.pid_mode == "host" or c.ipc_mode == "host" or "" in joined)
    )
    if unconfined:
        return Labels("", str(_at(policy.file, RESERVED_LEVEL)))
    process, file = policy.process, policy.file
    if joined and not asked:
        if len(set(joined)) > 1:
            raise BadRequestError("it joins the IPC and the PID namespace of containers whose SELinux labels are not the same")
        process = Context.of(joined[0])
        return Labels(str(process), str(_at(file, process.level)))
    if process.level:
        level = free_level(taken)
        process, file = _at(process, level), _at(file, level)
    for word, _, value in (option.partition(":") for option in asked):
        if word == "filetype":
            file = file._replace(type=value)
            continue
        process = process._replace(**{word: value})
        if word in ("level", "user"):
            file = file._replace(**{word: value})
    return Labels(str(process), str(file))


def require_known(made: Labels, known: Callable[[str], bool] = known) -> None:
    """Raises BadRequestError where the loaded policy does not have one of these labels."""
    if strange := next((label for label in made if label and not known(label)), ""):
        raise BadRequestError(f"security_opt label: the SELinux policy of this node does not know {strange}")


def _at(context: Context, level: str) -> Context:
    """*context* at *level*, where its policy has levels at all."""
    return context._replace(level=level) if context.level else context


def shared(mount_label: str) -> str:
    """The label for files that all containers may use, where one's own are *mount_label*; "" for ""."""
    return str(_at(Context.of(mount_label), SHARED_LEVEL)) if mount_label else ""


def set_label(path: Path, label: str) -> None:
    """Give a file of the engine's own *label*; nothing happens for "". Raises OSError."""
    if label:
        os.setxattr(path, ATTRIBUTE, label.encode(), follow_symlinks=False)


def levels(mount_labels: Iterable[str]) -> frozenset[str]:
    """The levels of labels."""
    return frozenset(filter(None, map(level_of, mount_labels)))
