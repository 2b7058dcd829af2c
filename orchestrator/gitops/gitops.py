"""All repositories that the cluster follows; only the server that leads does."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError, RefusedError
from orchestrator.gitops import git
from orchestrator.gitops.model import Repo, SyncState, encoded
from orchestrator.gitops.reconciler import TREES, Reconciler
from orchestrator.server.contents import NAME
from orchestrator.store.interface import Delete, Put

if TYPE_CHECKING:
    from orchestrator.server.plane import ControlPlane


SECRETS = ("key", "token", "webhook_secret", "age_key")


class NewRepo(WireStruct, frozen=True, kw_only=True):
    """*repo* with the contents of its secrets, which it then names."""

    repo: Repo
    key: bytes = b""
    token: bytes = b""
    webhook_secret: bytes = b""
    age_key: bytes = b""


class Gitops:
    def __init__(self, plane: ControlPlane, folder: Path, run: Path) -> None:
        self.plane = plane
        self.followers: dict[str, Reconciler] = {}
        self._folder = folder
        self._run = run
        self._hooks: dict[str, web.AppRunner] = {}

    async def start(self) -> None:
        """Take up what the store has, and sweep what a killed server left."""
        states = {e.key.removeprefix("gitops-state/"): e.value for e in await self.plane.store.scan("gitops-state/")}
        for entry in await self.plane.store.scan("gitops/"):
            repo = msgspec.json.decode(entry.value, type=Repo)
            raw = states.get(repo.name)
            await self._take(repo, msgspec.json.decode(raw, type=SyncState) if raw else SyncState())
        for left in self._folder.glob("*"):
            if left.is_dir() and left.name not in self.followers:
                shutil.rmtree(left, ignore_errors=True)
            for tree in left.glob("tree-*"):
                shutil.rmtree(tree, ignore_errors=True)
        shutil.rmtree(self._run.with_name(TREES), ignore_errors=True)

    async def _take(self, repo: Repo, state: SyncState) -> Reconciler:
        made = self.followers[repo.name] = Reconciler(self.plane, repo, state, self._folder, self._run)
        made.start()
        with contextlib.suppress(OSError):
            await self._listen(repo.webhook)
        return made

    def find(self, name: str) -> Reconciler:
        if name not in self.followers:
            raise RefusedError(f"no repository is called {name}; there is: {', '.join(sorted(self.followers)) or 'none'}", 404)
        return self.followers[name]

    async def add(self, load_request: NewRepo) -> SyncState:
        """Follow a repository from now on. Raises RefusedError; returns once its newest commit was looked at."""
        repo = load_request.repo
        if not NAME.fullmatch(repo.name):
            raise RefusedError(f"{repo.name!r} is no name: up to 64 letters, digits, _, . and -: choose one with --name", 400)
        git.check(repo)
        if repo.name in self.followers:
            raise RefusedError(f"a repository is called {repo.name} already: choose another name with --name", 409)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        if repo.webhook:
            try:
                await self._listen(repo.webhook)
            except (OSError, ValueError) as error:
                raise RefusedError(f"--webhook {repo.webhook}: {error}", 409) from None
        named = {}
        for field in SECRETS:
            if content := getattr(load_request, field):
                named[field] = f"gitops.{repo.name}.{field}"
                await self.plane.contents.create("secret", named[field], content, replace=True)
        repo = msgspec.structs.replace(repo, **named)
        await self.plane.store.transact((), [Put(f"gitops/{repo.name}", encoded(repo))])
        made = await self._take(repo, SyncState())
        return await made.sync()

    async def change(self, name: str, **fields: object) -> Reconciler:
        """Pause or resume. The follower starts anew."""
        old = self.find(name)
        repo = msgspec.structs.replace(old.repo, **fields)
        await self.plane.store.transact((), [Put(f"gitops/{name}", encoded(repo))])
        await old.stop()
        return await self._take(repo, old.state)

    async def approve(self, name: str) -> SyncState:
        """Let the commit that waits be applied. Raises RefusedError where none waits."""
        follower = self.find(name)
        newest = follower.state.newest
        if newest is None or newest.phase != "waiting":
            raise RefusedError(f"no commit of {name} waits: `pystack gitops status {name}`", 409)
        follower.state = msgspec.structs.replace(follower.state, approved=newest.commit.id)
        return await follower.sync()

    async def remove(self, name: str) -> None:
        """Follow it no more; its stacks run on."""
        follower = self.find(name)
        await follower.stop()
        await self.plane.store.transact((), [Delete(f"gitops/{name}"), Delete(f"gitops-state/{name}")])
        del self.followers[name]
        for field in SECRETS:
            if secret := getattr(follower.repo, field):
                with contextlib.suppress(PystackError):
                    await self.plane.contents.remove("secret", secret, ())
        shutil.rmtree(self._folder / name, ignore_errors=True)

    # --- webhooks ----------------------------------------------------------------------------------------------

    async def _listen(self, address: str) -> None:
        """POST /NAME on *address* makes a follower look, if the body is signed. Raises OSError, ValueError."""
        if not address or address in self._hooks:
            return
        host, _, port = address.rpartition(":")
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/{name}", self._called)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._hooks[address] = runner

    async def _called(self, request: web.Request) -> web.Response:
        """What GitHub, Gitea and GitLab send. Source: their webhook documentation (X-Hub-Signature-256, X-Gitlab-Token)."""
        follower = self.followers.get(request.match_info["name"])
        body = await request.read()
        if follower is None or not follower.repo.webhook_secret or not self._signed(follower.repo, request, body):
            return web.json_response({"message": "no such repository, or not signed with its secret"}, status=403)
        follower.trigger()
        return web.Response(status=202)

    def _signed(self, repo: Repo, request: web.Request, body: bytes) -> bool:
        secret = self.plane.contents.read("secret", repo.webhook_secret)
        wanted = hmac.new(secret, body, hashlib.sha256).hexdigest()
        header = request.headers.get("X-Hub-Signature-256", "").removeprefix("sha256=") or request.headers.get(
            "X-Gitea-Signature", ""
        )
        token = request.headers.get("X-Gitlab-Token", "")
        return hmac.compare_digest(header.encode(), wanted.encode()) or (
            bool(token) and hmac.compare_digest(token.encode(), secret)
        )

    async def close(self) -> None:
        for follower in self.followers.values():
            await follower.stop()
        for runner in self._hooks.values():
            await runner.cleanup()
