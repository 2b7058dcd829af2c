"""All repositories that the cluster follows. Only the server that leads follows them."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import shutil
from pathlib import Path

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError, RefusedError
from orchestrator.gitops import git, previews
from orchestrator.gitops.model import Repo, SyncState, encoded
from orchestrator.gitops.reconciler import TREES, Reconciler
from orchestrator.server.contents import NAME
from orchestrator.server.plane import ControlPlane
from orchestrator.store.interface import Delete, Put

SECRETS = ("key", "token", "webhook_secret", "age_key")
"""Fields of NewRepo with the content of a secret, and fields of Repo with its name."""


class NewRepo(WireStruct, frozen=True, kw_only=True):
    """A request to follow *repo*. The contents of its secrets become secrets of the cluster, which the stored Repo names."""

    repo: Repo
    key: bytes = b""
    token: bytes = b""
    webhook_secret: bytes = b""
    age_key: bytes = b""


class Gitops:
    """The repositories, each with its Reconciler, and the listeners for their webhooks.

    *folder* keeps what is fetched; *run* is a folder on a tmpfs, for secrets."""

    def __init__(self, plane: ControlPlane, folder: Path, run: Path) -> None:
        self.plane = plane
        self.reconcilers: dict[str, Reconciler] = {}
        self._folder = folder
        self._run = run
        self._hooks: dict[str, web.AppRunner] = {}

    async def start(self) -> None:
        """Follow the repositories that are in the store, and delete the trees that a killed server left. Raises StoreError."""
        states = {e.key.removeprefix("gitops-state/"): e.value for e in await self.plane.store.scan("gitops-state/")}
        for entry in await self.plane.store.scan("gitops/"):
            repo = msgspec.json.decode(entry.value, type=Repo)
            raw = states.get(repo.name)
            await self._follow(repo, msgspec.json.decode(raw, type=SyncState) if raw else SyncState())
        for left in self._folder.glob("*"):
            if left.is_dir() and left.name not in self.reconcilers:
                shutil.rmtree(left, ignore_errors=True)
            for tree in left.glob("tree-*"):
                shutil.rmtree(tree, ignore_errors=True)
        shutil.rmtree(self._run.with_name(TREES), ignore_errors=True)

    async def _follow(self, repo: Repo, state: SyncState) -> Reconciler:
        made = self.reconcilers[repo.name] = Reconciler(self.plane, repo, state, self._folder, self._run)
        if repo.previews:
            made.after = lambda: self._follow_branches(made)
        made.start()
        with contextlib.suppress(OSError):
            await self._listen(repo.webhook)
        return made

    # --- previews ----------------------------------------------------------------------------------------------

    async def _follow_branches(self, parent: Reconciler) -> None:
        """Have a preview for each branch that *parent* says, and none for others. Raises PystackError."""
        wanted = previews.chosen(parent.repo, await parent.branches())
        there = {r.repo.branch: r for r in self._previews(parent.repo.name)}
        for branch in sorted(there.keys() - wanted.keys()):
            await self._drop_preview(there[branch])
        now = datetime.datetime.now(datetime.UTC)
        for branch, commit in sorted(wanted.items()):
            known = there.get(branch)
            repo = previews.child(parent.repo, branch)
            if known is None or known.repo != repo:
                state = known.state if known else SyncState()
                if known:
                    await known.stop()
                await self.plane.store.transact((), [Put(f"gitops/{repo.name}", encoded(repo))])
                known = await self._follow(repo, state)
            newest = known.state.newest
            if previews.has_expired(parent.repo, known.state, now) and newest and newest.commit.id == commit:
                await known.rest()
            elif newest is None or newest.commit.id != commit:
                known.trigger()

    def _previews(self, name: str) -> list[Reconciler]:
        """Those of repository *name*."""
        return [r for r in self.reconcilers.values() if r.repo.preview and r.repo.preview.of == name]

    async def _drop_preview(self, preview: Reconciler) -> None:
        await preview.stop()
        await preview.take_down()
        name = preview.repo.name
        await self.plane.store.transact((), [Delete(f"gitops/{name}"), Delete(f"gitops-state/{name}")])
        self.reconcilers.pop(name, None)
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def find(self, name: str) -> Reconciler:
        """Raises RefusedError, with status 404, if no repository has this name."""
        if name not in self.reconcilers:
            known = ", ".join(sorted(self.reconcilers)) or "none"
            raise RefusedError(f"no repository is called {name}; the cluster follows: {known}", 404)
        return self.reconcilers[name]

    async def add(self, new: NewRepo) -> SyncState:
        """Follow a repository from now on. Returns when its newest commit has been reconciled.

        Raises RefusedError, GitError for an address or branch that is not valid."""
        repo = new.repo
        if not NAME.fullmatch(repo.name):
            raise RefusedError(
                f"{repo.name!r} is not a valid name: use up to 64 letters, digits, _, . and -: choose one with --name", 400
            )
        git.check(repo)
        if repo.preview_host and "{branch}" not in repo.preview_host:
            raise RefusedError(f"--preview-host {repo.preview_host}: {{branch}} must be in it, or all have one host", 400)
        if repo.name in self.reconcilers:
            raise RefusedError(f"a repository is already called {repo.name}: choose another name with --name", 409)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        if repo.webhook:
            try:
                await self._listen(repo.webhook)
            except (OSError, ValueError) as error:
                raise RefusedError(f"--webhook {repo.webhook}: {error}", 409) from None
        named = {}
        for field in SECRETS:
            if content := getattr(new, field):
                named[field] = f"gitops.{repo.name}.{field}"
                await self.plane.contents.create("secret", named[field], content, replace=True)
        repo = msgspec.structs.replace(repo, **named)
        await self.plane.store.transact((), [Put(f"gitops/{repo.name}", encoded(repo))])
        made = await self._follow(repo, SyncState())
        return await made.sync()

    async def change(self, name: str, **fields: object) -> Reconciler:
        """Change *fields* of a repository, such as *paused*, and restart its reconciler. Raises RefusedError."""
        old = self.find(name)
        repo = msgspec.structs.replace(old.repo, **fields)
        await self.plane.store.transact((), [Put(f"gitops/{name}", encoded(repo))])
        await old.stop()
        for preview in self._previews(name):
            await self.change(preview.repo.name, **fields)
        return await self._follow(repo, old.state)

    async def approve(self, name: str) -> SyncState:
        """Apply the commit that waits for approval. Raises RefusedError if none waits."""
        reconciler = self.find(name)
        newest = reconciler.state.newest
        if newest is None or newest.phase != "waiting":
            raise RefusedError(f"no commit of {name} waits for approval: see `pystack gitops status {name}`", 409)
        reconciler.approve(newest.commit)
        return await reconciler.sync()

    async def remove(self, name: str) -> None:
        """Stop following a repository for good. Its stacks keep running. Raises RefusedError."""
        reconciler = self.find(name)
        await reconciler.stop()
        if reconciler.repo.preview:
            raise RefusedError(
                f"{name} goes with its branch: delete that, or `pystack gitops rm {reconciler.repo.preview.of}`", 409
            )
        for preview in self._previews(name):
            await self._drop_preview(preview)
        await self.plane.store.transact((), [Delete(f"gitops/{name}"), Delete(f"gitops-state/{name}")])
        del self.reconcilers[name]
        for field in SECRETS:
            if secret := getattr(reconciler.repo, field):
                with contextlib.suppress(PystackError):
                    await self.plane.contents.remove("secret", secret, ())
        shutil.rmtree(self._folder / name, ignore_errors=True)

    # --- webhooks ----------------------------------------------------------------------------------------------

    async def _listen(self, address: str) -> None:
        """Listen on *address*, HOST:PORT: a signed POST to /NAME triggers that reconciler. Raises OSError, ValueError."""
        if not address or address in self._hooks:
            return
        host, _, port = address.rpartition(":")
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/{name}", self._on_webhook)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._hooks[address] = runner

    async def _on_webhook(self, request: web.Request) -> web.Response:
        """A webhook of GitHub, Gitea or GitLab. Source: their webhook documentation (X-Hub-Signature-256, X-Gitlab-Token)."""
        reconciler = self.reconcilers.get(request.match_info["name"])
        body = await request.read()
        if reconciler is None or not reconciler.repo.webhook_secret or not self._is_signed(reconciler.repo, request, body):
            return web.json_response({"message": "no such repository, or not signed with its secret"}, status=403)
        reconciler.trigger()
        return web.Response(status=202)

    def _is_signed(self, repo: Repo, request: web.Request, body: bytes) -> bool:
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
        """Stop all reconcilers and webhook listeners."""
        for reconciler in self.reconcilers.values():
            await reconciler.stop()
        for runner in self._hooks.values():
            await runner.cleanup()
