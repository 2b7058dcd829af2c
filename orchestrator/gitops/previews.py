"""A stack of its own for each branch that matches a pattern: it comes with the branch, follows it, and goes with it.

A preview is a repository like any other (`REPO.BRANCH`), followed by a reconciler of its own, whose stack has another name,
other hosts, and no ports or names that only one stack can have. Which branches there are is asked of the remote
(git-ls-remote(1)). What is wanted and what there is are compared again at each round, so a round may be cut off anywhere.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import msgspec

from orchestrator.errors import PystackError
from orchestrator.gitops.model import Commit, Preview, Repo, SyncState
from orchestrator.stackfile.model import Service, Stack, StackVolume

LONGEST = 30
"""Characters of a branch in names: they are parts of host names (63, RFC 1035) and of containers' names."""
MOST = 100
"""Previews of one repository: more branches than that match by mistake."""
_PLAIN = re.compile(r"[^a-z0-9]+")


def slug(branch: str) -> str:
    """What *branch* is called in names of stacks and hosts. Two branches never have one: where it was changed, a part of its
    hash follows."""
    short = branch.removeprefix("refs/").removesuffix("/head") if branch.startswith("refs/") else branch
    plain = _PLAIN.sub("-", short.lower()).strip("-")
    if plain == branch and len(plain) <= LONGEST:
        return plain
    tail = hashlib.sha256(branch.encode()).hexdigest()[:6]
    return f"{plain[: LONGEST - 7].strip('-')}-{tail}".strip("-")


def chosen(repo: Repo, branches: Mapping[str, str]) -> dict[str, str]:
    """Those of *branches* (name → hash) that are to have a preview; never the one that *repo* itself follows. Of requests
    (`refs/pull/7/head`), which many servers keep when they are closed, the newest have one.
    Raises PystackError where branches are too many."""
    patterns = [p.removeprefix("refs/heads/") for p in repo.previews]
    found = {
        name: commit
        for name, commit in branches.items()
        if name != repo.branch and any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    requests = sorted((name for name in found if name.startswith("refs/")), key=_number, reverse=True)
    if (count := len(found) - len(requests)) > MOST:
        raise PystackError(f"{count} branches match {', '.join(repo.previews)}: at most {MOST} have previews")
    old = set(requests[MOST - count :])
    return {name: commit for name, commit in found.items() if name not in old}


def _number(ref: str) -> tuple[int, str]:
    """The number of a request, and its name."""
    return int(next(iter(re.findall(r"[0-9]{1,18}", ref)), "0")), ref


def child(repo: Repo, branch: str) -> Repo:
    """The repository that follows *branch* as a preview of *repo*."""
    part = slug(branch)
    return msgspec.structs.replace(
        repo,
        name=f"{repo.name}.{part}",
        branch=branch,
        previews=(),
        preview=Preview(of=repo.name, slug=part, host=repo.preview_host),
        webhook="",
        drift="repair",
        prune=True,
        preview_host="",
    )


def has_expired(repo: Repo, state: SyncState, now: datetime.datetime) -> bool:
    """Whether the newest commit of a preview is older than the time that *repo* gives it."""
    if not repo.preview_ttl_s or state.newest is None:
        return False
    return (now - datetime.datetime.fromisoformat(state.newest.at)).total_seconds() > repo.preview_ttl_s


def too_old(repo: Repo, state: SyncState, commit: Commit, now: datetime.datetime) -> str:
    """Why *commit*, the first of a preview, brings nothing up: it is older than the time that *repo* gives it. Else ""."""
    if state.newest or not repo.preview or not repo.preview_ttl_s:
        return ""
    if (now - datetime.datetime.fromisoformat(commit.date)).total_seconds() <= repo.preview_ttl_s:
        return ""
    return "its newest commit is older than --preview-ttl: a new one brings it up"


def as_preview(stack: Stack, preview: Preview) -> Stack:
    """*stack*, which has the preview's name already, without what only one stack can have. Raises PystackError with the place
    of what cannot be had twice."""
    problems = [
        f"{v.where}: volume {v.name} has a name that all previews would share: leave `name:` out" for v in _shared(stack)
    ]
    if not preview.host:
        problems += [
            f"{r.where}: host {r.host} is the other stack's: `gitops add --preview-host '{{branch}}.preview.example.org'`"
            for s in stack.services
            for r in s.ingress
        ]
    services = tuple(_alone(s, preview) for s in stack.services)
    seen: dict[str, str] = {}
    for rule in (r for s in services for r in s.ingress):
        if first := seen.get(rule.place):
            problems.append(f"{rule.where}: {rule.place} is that of {first} too: put {{service}} into --preview-host")
        seen.setdefault(rule.place, rule.where)
    if problems:
        raise PystackError("\n".join(problems))
    return msgspec.structs.replace(stack, services=services)


def _shared(stack: Stack) -> Iterable[StackVolume]:
    return (v for v in stack.volumes if not v.external and not v.name.startswith(f"{stack.name}_"))


def _alone(service: Service, preview: Preview) -> Service:
    host = preview.host.replace("{branch}", preview.slug).replace("{service}", _PLAIN.sub("-", service.name.lower()))
    ports = tuple(msgspec.structs.replace(p, published=0) for p in service.container.ports)
    return msgspec.structs.replace(
        service,
        container_name="",
        port_ranges=(),
        container=msgspec.structs.replace(service.container, ports=ports),
        ingress=tuple(msgspec.structs.replace(r, host=host) for r in service.ingress) if host else service.ingress,
    )
