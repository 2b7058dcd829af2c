"""Who may: rights of routes, tokens and sessions at a real application's socket, and what each is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from agent.contract.container import Container, Mount
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.errors import RefusedError
from orchestrator.gitops import api as gitops_api
from orchestrator.ingress import api as ingress_api
from orchestrator.managed import api as managed_api
from orchestrator.metrics import api as metrics_api
from orchestrator.notify import api as notify_api
from orchestrator.server.access import passwords, sessions
from orchestrator.server.access.model import Caller
from orchestrator.server.access.rights import NEEDS, engine_need, need_of, plain
from orchestrator.server.api import oidc
from orchestrator.server.api.app import make_app
from orchestrator.server.api.routes import ROUTES
from orchestrator.server.api.stacks import UpRequest
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import StackRecord
from orchestrator.stackfile.model import Service, Stack, StackContent, StackNetwork, StackVolume
from orchestrator.stackfile.workloads import Backup
from orchestrator.store.sqlite import SqliteStore
from orchestrator.ui import api as ui_api

# requests keep who sent them under a plain key
pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")
ALL_ROUTES = (
    *ROUTES,
    *gitops_api.ROUTES,
    *ingress_api.ROUTES,
    *managed_api.ROUTES,
    *metrics_api.ROUTES,
    *notify_api.ROUTES,
    *oidc.ROUTES,
    *ui_api.ROUTES,
)
PASSWORD = "green tea at four"


def test_no_route_lacks_its_right_and_no_right_its_route() -> None:
    there = {(method, plain(path)) for method, path, *_ in ALL_ROUTES}
    known = {(method, plain(path)) for method, path in NEEDS} - {("*", "/{path}")}
    assert there == known


def test_what_changes_something_is_not_for_viewers() -> None:
    reading = {"/v1/plan", "/v1/stacks/{stack}/plan", "/v1/stacks/{stack}/rollout/watch", "/v1/stackfile"}
    for method, path, *_ in ALL_ROUTES:
        if method not in ("GET", "*") and not path.startswith("/v1/session") and path not in reading:
            need = need_of(method, path)
            assert (need.right != "look", need.changes, need.open) == (True, True, False), path


@pytest.mark.parametrize(
    ("method", "path", "right", "container"),
    [
        ("GET", "/containers/abc/logs", "look", "abc"),
        ("GET", "/v1.47/containers/abc/json", "look", "abc"),
        ("GET", "/containers/json", "look", ""),
        ("GET", "/containers/abc/archive", "operate", ""),
        ("GET", f"/containers/{'a' * 64}/archive", "operate", "a" * 64),
        ("POST", f"/v1.47/containers/{'a' * 64}/exec", "operate", "a" * 64),
        ("POST", "/containers/shop-web-1/exec", "operate", ""),
        ("POST", f"/exec/{'b' * 64}/start", "operate", "b" * 64),
        ("POST", f"/exec/{'b' * 64}/start/../../{'c' * 64}/start", "administer", ""),
        ("GET", "/containers/abc/export", "operate", ""),
        ("POST", "/containers/create", "operate", ""),
        ("POST", "/containers/abc/logs", "operate", ""),
        ("PUT", "/pystack/manifest", "administer", ""),
        ("GET", "/pystack/info", "administer", ""),
        ("GET", "/containers/abc/../../pystack/manifest", "administer", ""),
        ("GET", "/containers/abc%2f..%2fx/logs", "administer", ""),
        ("GET", "/containers//logs", "administer", ""),
        ("PUT", "/swarm/pystack", "administer", ""),
    ],
)
def test_an_engine_request_is_judged_by_what_it_asks(method: str, path: str, right: str, container: str) -> None:
    need, found = engine_need(method, path)
    assert (need.right, found) == (right, container)
    assert need.changes == (method != "GET")


def test_a_password_is_kept_as_a_salted_hash() -> None:
    one, two = passwords.hashed(PASSWORD), passwords.hashed(PASSWORD)
    assert one != two
    assert PASSWORD not in one
    assert passwords.matches(PASSWORD, one)
    assert not passwords.matches(PASSWORD + " ", one)
    assert not passwords.matches("", "")
    for bad in ("short", "aaaaaaaaaaaa", "password1234", "ada-and-more"):
        with pytest.raises(RefusedError):
            passwords.check(bad, "ada")


def test_sessions_end_by_themselves() -> None:
    now = [0.0]
    book = sessions.Sessions(lambda: now[0])
    secret, _ = book.begin("ada", "viewer", ("*",), "user")
    now[0] = sessions.IDLE_S - 1
    assert book.find(secret)
    now[0] += sessions.IDLE_S - 1
    assert book.find(secret), "each use begins the time again"
    now[0] += sessions.IDLE_S + 1
    assert book.find(secret) is None
    secret, _ = book.begin("ada", "viewer", ("*",), "user")
    end = now[0] + sessions.LONGEST_S
    while now[0] < end:
        assert book.find(secret)
        now[0] += sessions.IDLE_S / 2
    now[0] += 1
    assert book.find(secret) is None, "whoever uses it all the time signs in again too"
    code = book.link("root", "admin", ("*",), "socket")
    assert book.follow(code)
    assert book.follow(code) is None, "a link is good once"
    code = book.link("root", "admin", ("*",), "socket")
    now[0] += sessions.LINK_S + 1
    assert book.follow(code) is None


def test_who_guesses_waits_longer_each_time() -> None:
    now = [0.0]
    throttle = sessions.Throttle(lambda: now[0])
    for _ in range(sessions.FREE):
        throttle.check("a")
        throttle.failed("a")
    with pytest.raises(RefusedError, match="wait 2 s"):
        throttle.check("a")
    throttle.check("b")
    now[0] += 2.1
    throttle.check("a")
    throttle.failed("a")
    with pytest.raises(RefusedError, match="wait 4 s"):
        throttle.check("a", "b")
    throttle.succeeded("a")
    throttle.check("a")


# --- at the sockets of an application -----------------------------------------------------------------------------


class Sockets:
    """An application at two sockets: root's, and that at which nobody is."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        root: bool = False,
        token: str = "",
        jar: aiohttp.CookieJar | None = None,
        **options: Any,
    ) -> tuple[int, Any, Any]:
        """(status, body, headers) of the answer."""
        connector = aiohttp.UnixConnector(path=str(self.folder / ("pystack.sock" if root else "web.sock")))
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar() if jar is None else jar) as session,
            session.request(method, f"http://page.test:8443{path}", headers=headers, **options) as reply,
        ):
            raw = await reply.read()
            return reply.status, msgspec.json.decode(raw) if "json" in reply.content_type and raw else raw, reply.headers

    async def sign_in(self, name: str) -> tuple[aiohttp.CookieJar, dict[str, str]]:
        """The cookies of a browser, and the headers of what it changes."""
        jar = aiohttp.CookieJar(unsafe=True)
        status, body, _ = await self("POST", "/v1/session", jar=jar, json={"name": name, "password": PASSWORD})
        assert status == 200, body
        return jar, {"X-CSRF-Token": body["token"], "Origin": "http://page.test:8443"}

    async def token(self, name: str, role: str, *stacks: str) -> str:
        body = {"role": role, "stacks": stacks or ("*",)}
        status, made, _ = await self("PUT", f"/v1/tokens/{name}", root=True, json=body)
        assert status == 200, made
        return str(made["secret"])


def stack_of(name: str, **more: Any) -> Stack:
    return Stack(name=name, services=(Service(name="web", container=Container(image="i", **more), where="stack.yml:2"),))


def backed_up(place: str, **more: Any) -> StackVolume:
    return StackVolume(key="d", name="shop_d", backup=Backup(place=place, password="p", **more))


@pytest.fixture
async def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sockets]:
    """Of a server with the stacks `shop` and `bank` in memory, which is connected to no node; its hashes are quickly made."""
    monkeypatch.setattr(passwords, "N", 1 << 8)
    monkeypatch.setattr(passwords, "NOBODY", passwords.hashed(PASSWORD))
    store = await SqliteStore.open(tmp_path / "store.db")
    plane = ControlPlane(store, "n1", tmp_path / "docker.sock", tmp_path / "run", tmp_path / "keys")
    await plane.state.load()
    await plane.access.load()
    await plane.audit.load()
    for number, name in enumerate(("shop", "bank")):
        plane.state.stacks[name] = StackRecord(stack=stack_of(name), revision=1, updated="2026-01-01T00:00:00Z")
        task = f"{name}-web-1"
        plane.state.tasks[task] = Task(name=task, stack=name, service="web", node="n1", container=Container(image="i"))
        plane.statuses.by_task[task] = TaskStatus(task=task, state="running", container=str(number) * 64)
    app = make_app(plane, asyncio.Event(), (), tmp_path / "pystack.sock")
    runner = web.AppRunner(app)
    await runner.setup()
    for name in ("pystack.sock", "web.sock"):
        await web.UnixSite(runner, str(tmp_path / name)).start()
    yield Sockets(plane, tmp_path)
    await runner.cleanup()
    await plane.audit.close()
    await store.close()


async def test_nobody_may_anything_and_the_socket_is_roots(sockets: Sockets) -> None:
    assert (await sockets("GET", "/v1/stacks", root=True))[0] == 200
    for method, path, *_ in ROUTES:
        if (method, path) == ("POST", "/v1/session"):
            continue
        asked = path.replace("{kind:config|secret}", "config").replace("{verb:stop|start|restart}", "stop")
        asked = (
            asked.replace("{verb:pause|resume}", "pause").replace("{verb:backup|verify}", "backup").replace("{path:.*}", "info")
        )
        status, body, _ = await sockets("GET" if method == "*" else method, asked.replace("{", "").replace("}", ""))
        assert (status, "sign in" in str(body)) == (401, True), path
    assert (await sockets("GET", "/v1/stacks", token="pystack_guess"))[0] == 401


async def test_roles(sockets: Sockets) -> None:
    viewer, operator = await sockets.token("eye", "viewer"), await sockets.token("hand", "operator")
    admin = await sockets.token("head", "admin")
    for secret, plan, stop, users in ((viewer, 400, 403, 403), (operator, 400, 404, 403), (admin, 400, 404, 200)):
        assert (await sockets("GET", "/v1/stacks", token=secret))[0] == 200
        assert (await sockets("POST", "/v1/plan", token=secret, data=b"{}"))[0] == plan
        assert (await sockets("POST", "/v1/stacks/none/stop", token=secret))[0] == stop
        assert (await sockets("GET", "/v1/users", token=secret))[0] == users
    assert (await sockets("DELETE", "/v1/tokens/eye", root=True))[0] == 204
    assert (await sockets("GET", "/v1/stacks", token=viewer))[0] == 401


async def test_a_token_of_one_stack_has_nothing_of_another(sockets: Sockets) -> None:
    secret = await sockets.token("clerk", "operator", "shop", "shop-*")
    status, rows, _ = await sockets("GET", "/v1/stacks", token=secret)
    assert [r["stack"] for r in rows] == ["shop"]
    for method, path in (
        ("GET", "/v1/stacks/bank"),
        ("GET", "/v1/stacks/bank/tasks"),
        ("GET", "/v1/stacks/%62ank"),
        ("POST", "/v1/stacks/bank/stop"),
        ("POST", "/v1/stacks/bank/rollback"),
        ("GET", f"/v1/nodes/n1/engine/containers/{'1' * 64}/logs"),
        ("GET", "/v1/nodes/n1/engine/containers/bank-web-1/json"),
        ("GET", f"/v1/nodes/n1/engine/containers/{'1' * 64}/archive?path=/"),
        ("POST", f"/v1/nodes/n1/engine/containers/{'1' * 64}/exec"),
        ("POST", f"/v1/nodes/n1/engine/containers/{'1' * 64}/attach"),
        ("POST", "/v1/nodes/n1/engine/containers/shop-web-1/exec"),
        ("POST", f"/v1/nodes/n1/engine/exec/{'2' * 64}/start"),
        ("POST", f"/v1/nodes/n2/engine/exec/{'2' * 64}/start"),
        ("GET", "/v1/nodes/n1/engine/containers/json"),
        ("GET", "/v1/secrets"),
        ("GET", "/v1/gitops"),
        ("GET", "/v1/store"),
        ("GET", "/v1/doctor"),
        ("POST", "/v1/nodes/n1/drain"),
        ("GET", "/v1/audit-log"),
    ):
        status, body, _ = await sockets(method, path, token=secret)
        assert status in ((403, 404) if "gitops" in path else (403,)), (path, body)
        assert "revision" not in str(body)
    assert (await sockets("GET", "/v1/stacks/shop", token=secret))[0] == 200
    for verb in ("up", "plan"):
        body = msgspec.json.encode(UpRequest(stack=stack_of("bank")))
        status, answer, _ = await sockets("POST", f"/v1/{verb}", token=secret, data=body)
        assert (status, answer["message"]) == (403, "clerk has shop, shop-*, and not bank")
    twice = b'{"stack":{"name":"shop"},' + body[1:]
    assert (await sockets("POST", "/v1/up", token=secret, data=twice))[0] == 403, "the last of two stacks counts for both"


@pytest.mark.parametrize(
    "body",
    [
        {"Cmd": ["id"], "Privileged": True},
        {"Cmd": ["id"], "privileged": 1},
        b'{"PRIVILEGED": true, "Privileged": false}',
        b'{"Privileged": true, "Privileged": false}',
        b'{"Pr\\u0069vileged": true}',
    ],
)
async def test_a_command_in_a_task_has_no_more_rights_than_the_task(sockets: Sockets, body: Any) -> None:
    secret = await sockets.token("clerk", "operator", "shop")
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    path = f"/v1/nodes/n1/engine/containers/{'0' * 64}/exec"
    status, answer, _ = await sockets("POST", path, token=secret, data=data)
    assert (status, "--privileged reaches the node" in answer["message"]) == (403, True)
    status, answer, _ = await sockets("POST", path, token=secret, data=b'{"Cmd": ["id"], "Privileged": false}')
    assert status != 403, "the node is asked"


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (stack_of("shop", privileged=True), "privileged reaches the node"),
        (stack_of("shop", network_mode="host"), "network_mode host leaves the stack"),
        (stack_of("shop", pid_mode="container:x"), "pid_mode container:x"),
        (stack_of("shop", cap_add=("SYS_ADMIN",)), "cap_add SYS_ADMIN"),
        (stack_of("shop", security_opt=("seccomp=unconfined",)), "security_opt seccomp=unconfined"),
        (stack_of("shop", mounts=(Mount(kind="bind", source="/", target="/host"),)), "/ of the node is mounted"),
        (stack_of("shop", mounts=(Mount(kind="volume", source="bank_data", target="/d"),)), "volume bank_data is not of"),
        (Stack(name="shop", volumes=(StackVolume(key="d", name="bank_data", external=True),)), "volume bank_data: it is not"),
        (Stack(name="shop", volumes=(StackVolume(key="d", name="shop_d", options=(("device", "/"),)),)), "can mount anything"),
        (Stack(name="shop", volumes=(backed_up("/etc"),)), "/etc is reached as root on the node"),
        (Stack(name="shop", volumes=(backed_up("rclone:x:y", rclone="r"),)), "rclone:x:y is reached as root"),
        (Stack(name="shop", networks=(StackNetwork(key="n", name="bank_default", external=True),)), "network bank_default"),
        (Stack(name="shop", networks=(StackNetwork(key="n", name="shop_n", driver="macvlan"),)), "reach the nodes' links"),
        (
            Stack(name="shop", contents=(StackContent(kind="secret", key="k", name="bank_key", external=True),)),
            "secret bank_key",
        ),
    ],
    ids=lambda v: v.replace(" ", "-") if isinstance(v, str) else "",
)
async def test_who_has_some_stacks_reaches_no_node_by_them(sockets: Sockets, stack: Stack, words: str) -> None:
    secret = await sockets.token("clerk", "operator", "shop")
    body = msgspec.json.encode(UpRequest(stack=stack))
    status, answer, _ = await sockets("POST", "/v1/up", token=secret, data=body)
    assert status == 403
    assert words in answer["message"]


async def test_a_browser_signs_in_and_out(sockets: Sockets) -> None:
    await sockets.plane.access.put_user("ada", "operator", ("*",), PASSWORD, new=True)
    for wrong in ({"name": "ada", "password": "red tea at four"}, {"name": "bob", "password": PASSWORD}, {"code": "x"}):
        status, body, _ = await sockets("POST", "/v1/session", json=wrong)
        assert status == 401
    jar = aiohttp.CookieJar(unsafe=True)
    status, body, headers = await sockets("POST", "/v1/session", jar=jar, json={"name": "ada", "password": PASSWORD})
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]
    assert (await sockets("GET", "/v1/session", jar=jar))[1]["name"] == "ada"
    own = {"X-CSRF-Token": body["token"]}
    assert (await sockets("DELETE", "/v1/session", jar=jar, headers=own))[0] == 204
    assert (await sockets("GET", "/v1/session", jar=jar))[0] == 401


async def test_a_session_goes_with_its_user(sockets: Sockets) -> None:
    await sockets.plane.access.put_user("ada", "operator", ("*",), PASSWORD, new=True)
    jar, own = await sockets.sign_in("ada")
    assert (await sockets("POST", "/v1/stacks/none/stop", jar=jar, headers=own))[0] == 404
    await sockets.plane.access.put_user("ada", "viewer", ("shop",), new=False)
    assert (await sockets("POST", "/v1/stacks/none/stop", jar=jar, headers=own))[0] == 403
    assert [r["stack"] for r in (await sockets("GET", "/v1/stacks", jar=jar))[1]] == ["shop"]
    assert (await sockets("DELETE", "/v1/users/ada", root=True))[0] == 204
    assert (await sockets("GET", "/v1/stacks", jar=jar))[0] == 401


async def test_the_page_of_somebody_else_changes_nothing(sockets: Sockets) -> None:
    await sockets.plane.access.put_user("ada", "operator", ("*",), PASSWORD, new=True)
    jar, own = await sockets.sign_in("ada")
    stop = "/v1/stacks/none/stop"
    for headers in (
        {},
        {"X-CSRF-Token": "guess"},
        {**own, "Origin": "http://evil.test"},
        {**own, "Origin": "http://page.test:9000"},
        {**own, "Origin": "null"},
        {**own, "Sec-Fetch-Site": "cross-site"},
        {**own, "Sec-Fetch-Site": "same-site"},
    ):
        assert (await sockets("POST", stop, jar=jar, headers=headers))[0] == 403, headers
    assert (await sockets("POST", stop, jar=jar, headers=own))[0] == 404
    assert (await sockets("GET", "/v1/doctor?repair=1", jar=jar))[0] == 403, "a GET that changes something"
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert (await sockets("GET", "/v1/stacks", jar=jar, headers=upgrade))[0] == 403, "no Origin"
    assert (await sockets("GET", "/v1/stacks", jar=jar, headers={**upgrade, "Origin": "http://evil.test"}))[0] == 403
    form = {"Content-Type": "text/plain"}
    data = msgspec.json.encode({"name": "ada", "password": PASSWORD})
    assert (await sockets("POST", "/v1/session", headers=form, data=data))[0] == 415, "a form of another page signs nobody in"


async def test_guessing_is_throttled(sockets: Sockets) -> None:
    await sockets.plane.access.put_user("ada", "operator", ("*",), PASSWORD, new=True)
    answers = [(await sockets("POST", "/v1/session", json={"name": "ada", "password": f"guess {n}"}))[0] for n in range(7)]
    assert answers == [401] * 5 + [429] * 2
    assert (await sockets("POST", "/v1/session", json={"name": "ada", "password": PASSWORD}))[0] == 429


async def test_every_change_is_written_down(sockets: Sockets) -> None:
    secret = await sockets.token("clerk", "viewer", "shop")
    await sockets("POST", "/v1/stacks/shop/stop", token=secret)
    await sockets("POST", "/v1/stacks/none/stop", root=True)
    await sockets("GET", "/v1/stacks", token=secret)
    lines = (await sockets("GET", "/v1/audit-log", root=True))[1]
    found = [(one["user"], one["action"], one.get("stack", ""), one["outcome"], one["status"]) for one in lines]
    assert found == [
        ("root", "PUT /v1/tokens/clerk", "", "done", 200),
        ("clerk", "POST /v1/stacks/shop/stop", "", "refused", 403),
        ("root", "POST /v1/stacks/none/stop", "none", "failed", 404),
    ]
    assert lines[0]["target"] == "clerk: viewer of shop"
    assert secret not in str(lines)
    own = (await sockets("GET", "/v1/audit-log?user=clerk", root=True))[1]
    assert [one["user"] for one in own] == ["clerk"]


async def test_users_and_tokens_outlive_the_server(sockets: Sockets) -> None:
    secret = await sockets.token("clerk", "viewer", "shop")
    await sockets.plane.access.put_user("ada", "operator", ("*",), PASSWORD, new=True)
    again = ControlPlane(sockets.plane.store, "n1", sockets.folder / "d", sockets.folder / "r", sockets.folder / "k")
    await again.access.load()
    found = again.access.token_of(secret)
    assert found
    assert found.stacks == ("shop",)
    assert await again.access.verify("ada", PASSWORD)
    assert secret.encode() not in b"".join(e.value for e in await sockets.plane.store.scan(""))


@pytest.mark.parametrize("name", ["", "../x", "Ada", "a b", "a" * 65, "-a"])
async def test_names_that_are_none(sockets: Sockets, name: str) -> None:
    with pytest.raises(RefusedError, match="is not a name"):
        await sockets.plane.access.put_user(name, "viewer", new=True)


def test_patterns_hold_whole_names() -> None:
    caller = Caller(name="c", role="viewer", stacks=("shop", "t-?"), way="token", source="local")
    assert [s for s in ("shop", "shop2", "t-1", "t-12", "SHOP", "") if caller.has_stack(s)] == ["shop", "t-1"]
