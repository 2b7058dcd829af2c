"""The repositories' part of the control plane's REST API; the rows are part of `server/api/routes.py`."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.gitops.gitops import Gitops, NewRepo
from orchestrator.gitops.model import SyncOutcome
from orchestrator.gitops.reconciler import Reconciler

GITOPS = web.AppKey("gitops", Gitops)


class RepoRow(WireStruct, frozen=True, kw_only=True, omit_defaults=False):
    """One row of `pystack gitops ls`; *state* is that of the newest commit, or paused, or unreachable."""

    name: str
    url: str
    branch: str
    path: str
    state: str
    commit: str
    subject: str
    author: str
    good: str
    problem: str
    since: str
    checked: str
    drift: tuple[str, ...]
    message: str
    plan: tuple[str, ...]
    stacks: dict[str, int]
    history: tuple[SyncOutcome, ...]


class Difference(WireStruct, frozen=True, kw_only=True, omit_defaults=False):
    """What the newest commit would change, a line a step."""

    commit: str
    subject: str
    plan: tuple[str, ...]


def _row(follower: Reconciler) -> RepoRow:
    repo, state = follower.repo, follower.state
    newest, good = state.newest, state.good
    phase: str = newest.phase if newest else "new"
    if repo.paused or state.problem:
        phase = "paused" if repo.paused else "unreachable"
    elif phase == "good" and state.drift and repo.drift == "report":
        phase = "drifted"
    return RepoRow(
        name=repo.name,
        url=repo.url,
        branch=repo.branch,
        path=repo.path,
        state=phase,
        commit=newest.commit.id if newest else "",
        subject=newest.commit.subject if newest else "",
        author=newest.commit.author if newest else "",
        good=good.commit.id if good else "",
        problem=state.problem,
        since=state.since,
        checked=state.checked,
        drift=state.drift,
        message=newest.message if newest else "",
        plan=newest.plan if newest else (),
        stacks=good.stacks if good else {},
        history=state.history,
    )


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _follower(request: web.Request) -> Reconciler:
    return request.app[GITOPS].find(request.match_info["name"])


async def ls(request: web.Request) -> web.Response:
    """The repositories that are followed."""
    return _json([_row(f) for _, f in sorted(request.app[GITOPS].followers.items())])


async def get(request: web.Request) -> web.Response:
    """One of them, with what became of its commits."""
    return _json(_row(_follower(request)))


async def add(request: web.Request) -> web.Response:
    """Follow a repository; the answer comes when its newest commit was looked at."""
    load_request = msgspec.json.decode(await request.read(), type=NewRepo)
    await request.app[GITOPS].add(load_request)
    return _json(_row(request.app[GITOPS].find(load_request.repo.name)))


async def sync(request: web.Request) -> web.Response:
    """Look at the newest commit now."""
    follower = _follower(request)
    await follower.sync()
    return _json(_row(follower))


async def approve(request: web.Request) -> web.Response:
    """Apply the commit that waits."""
    await request.app[GITOPS].approve(request.match_info["name"])
    return _json(_row(_follower(request)))


async def diff(request: web.Request) -> web.Response:
    """What the newest commit would change. Changes nothing."""
    commit, lines = await _follower(request).newest()
    return _json(Difference(commit=commit.id, subject=commit.subject, plan=lines))


async def pause(request: web.Request) -> web.Response:
    """Follow it no more until it is resumed."""
    return _json(_row(await request.app[GITOPS].change(request.match_info["name"], paused=True)))


async def resume(request: web.Request) -> web.Response:
    """Follow it again."""
    return _json(_row(await request.app[GITOPS].change(request.match_info["name"], paused=False)))


async def remove(request: web.Request) -> web.Response:
    """Forget a repository; its stacks run on."""
    await request.app[GITOPS].remove(request.match_info["name"])
    return web.Response(status=204)


ROUTES: tuple[tuple[str, str, Any, type | None, Any], ...] = (
    ("GET", "/v1/gitops", ls, None, list[RepoRow]),
    ("POST", "/v1/gitops", add, NewRepo, RepoRow),
    ("GET", "/v1/gitops/{name}", get, None, RepoRow),
    ("DELETE", "/v1/gitops/{name}", remove, None, None),
    ("GET", "/v1/gitops/{name}/diff", diff, None, Difference),
    ("PUT", "/v1/gitops/{name}/sync", sync, None, RepoRow),
    ("PUT", "/v1/gitops/{name}/approve", approve, None, RepoRow),
    ("PUT", "/v1/gitops/{name}/pause", pause, None, RepoRow),
    ("PUT", "/v1/gitops/{name}/resume", resume, None, RepoRow),
)
