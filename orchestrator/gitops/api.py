"""The REST API of the repositories that the cluster follows: an extension of the server's API."""

from __future__ import annotations

from typing import TypedDict

import msgspec
from aiohttp import web

from orchestrator.gitops.gitops import Gitops, NewRepo
from orchestrator.gitops.model import SyncOutcome
from orchestrator.gitops.reconciler import Reconciler
from orchestrator.server.api.extension import ApiExtension, Route
from orchestrator.server.api.responses import json_response

GITOPS = web.AppKey("gitops", Gitops)


class RepoRow(TypedDict):
    """One row of `pystack gitops ls`. *state* is the phase of the newest commit, or paused, unreachable or drifted. *plan* and
    *drift* have one line a step; *stacks* maps the stacks of the last good commit to their revisions."""

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


class Difference(TypedDict):
    """The steps that the newest commit would take, one line each."""

    commit: str
    subject: str
    plan: tuple[str, ...]


def _row(reconciler: Reconciler) -> RepoRow:
    repo, state = reconciler.repo, reconciler.state
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


def _reconciler(request: web.Request) -> Reconciler:
    return request.app[GITOPS].find(request.match_info["name"])


async def ls(request: web.Request) -> web.Response:
    """List the repositories that the cluster follows."""
    return json_response([_row(r) for _, r in sorted(request.app[GITOPS].reconcilers.items())])


async def get(request: web.Request) -> web.Response:
    """Get one repository, with the outcomes of its commits."""
    return json_response(_row(_reconciler(request)))


async def add(request: web.Request) -> web.Response:
    """Follow a repository. Answers when its newest commit has been reconciled."""
    new = msgspec.json.decode(await request.read(), type=NewRepo)
    await request.app[GITOPS].add(new)
    return json_response(_row(request.app[GITOPS].find(new.repo.name)))


async def sync(request: web.Request) -> web.Response:
    """Fetch and reconcile the newest commit now. Answers when that is done."""
    reconciler = _reconciler(request)
    await reconciler.sync()
    return json_response(_row(reconciler))


async def approve(request: web.Request) -> web.Response:
    """Apply the commit that waits for approval."""
    await request.app[GITOPS].approve(request.match_info["name"])
    return json_response(_row(_reconciler(request)))


async def diff(request: web.Request) -> web.Response:
    """Show what the newest commit would change. Changes nothing."""
    commit, lines = await _reconciler(request).plan_newest()
    return json_response(Difference(commit=commit.id, subject=commit.subject, plan=lines))


async def pause(request: web.Request) -> web.Response:
    """Stop following a repository until it is resumed."""
    return json_response(_row(await request.app[GITOPS].change(request.match_info["name"], paused=True)))


async def resume(request: web.Request) -> web.Response:
    """Follow a paused repository again."""
    return json_response(_row(await request.app[GITOPS].change(request.match_info["name"], paused=False)))


async def remove(request: web.Request) -> web.Response:
    """Stop following a repository for good. Its stacks keep running."""
    await request.app[GITOPS].remove(request.match_info["name"])
    return web.Response(status=204)


ROUTES: tuple[Route, ...] = (
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
READABLE_WHEN_STALE = frozenset({"/v1/gitops", "/v1/gitops/{name}"})


def extension(gitops: Gitops) -> ApiExtension:
    """The routes of *gitops*, for the server's application."""

    def attach(app: web.Application) -> None:
        app[GITOPS] = gitops

    return ApiExtension(routes=ROUTES, readable_when_stale=READABLE_WHEN_STALE, attach=attach)
