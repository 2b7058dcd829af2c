"""The repositories' routes are part of the server's API, whether the server leads or answers from memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from orchestrator import STALE
from orchestrator.gitops.api import extension
from orchestrator.gitops.gitops import Gitops
from orchestrator.server.api.app import make_app
from orchestrator.server.api.standby import StandbyState, make_standby_app
from orchestrator.server.plane import ControlPlane
from orchestrator.store.sqlite import SqliteStore

# agent/errors.py marks a request that has begun under a plain key
pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")


@pytest.fixture
async def gitops(tmp_path: Path) -> AsyncIterator[Gitops]:
    store = await SqliteStore.open(tmp_path / "store.db")
    plane = ControlPlane(store, "n1", tmp_path / "docker.sock", tmp_path / "run", tmp_path / "keys")
    await plane.state.load()  # not all of `start`: no node is connected here
    await plane.contents.start()
    made = Gitops(plane, tmp_path / "gitops", tmp_path / "run" / "gitops")
    await made.start()
    yield made
    await made.close()
    await store.close()


async def test_a_server_that_leads_answers_and_describes_them(gitops: Gitops) -> None:
    async with TestClient(TestServer(make_app(gitops.plane, asyncio.Event(), [extension(gitops)]))) as client:
        assert await (await client.get("/v1/gitops")).json() == []
        unknown = await client.get("/v1/gitops/site")
        assert unknown.status == 404
        assert "no repository is called site; the cluster follows: none" in (await unknown.json())["message"]
        paths = (await (await client.get("/v1/openapi.json")).json())["paths"]
        assert {"/v1/stacks", "/v1/gitops", "/v1/gitops/{name}/sync"} <= paths.keys()


async def test_a_standby_answers_reads_from_memory_and_refuses_the_rest(gitops: Gitops) -> None:
    state = StandbyState()
    state.last_plane, state.extensions, state.since = gitops.plane, [extension(gitops)], time.monotonic()
    async with TestClient(TestServer(make_standby_app(state))) as client:
        assert (await client.get("/v1/gitops")).status == 503  # another server may lead
        state.store_unreachable = True
        known = await client.get("/v1/gitops")
        assert (known.status, await known.json()) == (200, [])
        assert STALE in known.headers
        assert (await client.get("/v1/gitops/site/diff")).status == 503
        assert (await client.put("/v1/gitops/site/sync")).status == 503


async def test_a_standby_that_never_led_refuses_everything() -> None:
    state = StandbyState()
    state.store_unreachable = True
    async with TestClient(TestServer(make_standby_app(state))) as client:
        assert (await client.get("/v1/gitops")).status == 503


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"repo": {"name": "a/b", "url": "https://git.example/a"}}', "is not a valid name"),
        (b'{"repo": {"name": "a", "url": "--upload-pack=x"}}', "is not the address of a repository"),
        (b'{"repo": {"name": "a", "url": "/a", "branch": "a..b"}}', "is not the name of a branch"),
        (b'{"repo": {"name": "a", "url": "/a", "webhook": "nowhere"}}', "--webhook nowhere"),
    ],
)
async def test_a_repository_that_cannot_be_followed_is_refused(gitops: Gitops, body: bytes, message: str) -> None:
    async with TestClient(TestServer(make_app(gitops.plane, asyncio.Event(), [extension(gitops)]))) as client:
        answer = await client.post("/v1/gitops", data=body)
        assert answer.status in (400, 409)
        assert message in (await answer.json())["message"]
        assert await (await client.get("/v1/gitops")).json() == []
