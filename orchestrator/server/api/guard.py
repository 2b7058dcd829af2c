"""Who may: the one place that every request passes on its way to its route.

It learns who asks (the socket that is root's, a token, a session), what the route needs (`access/rights.py`), and whether it
is of a stack that the caller has; and it writes the log of changes. Source: OWASP Cross-Site Request Forgery Prevention Cheat
Sheet (synchronizer token, origin of the request, Fetch Metadata); RFC 6750 (bearer tokens); RFC 6265bis (`__Host-`, SameSite).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import pwd
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import SO_PEERCRED, SOL_SOCKET
from typing import Any

import msgspec
from aiohttp import web

from agent.contract.printable import shown
from agent.contract.tunnel import origin_of
from orchestrator.errors import RefusedError
from orchestrator.server.access.change import Change
from orchestrator.server.access.confinement import problems
from orchestrator.server.access.log import AuditLine
from orchestrator.server.access.model import Caller, Token, User
from orchestrator.server.access.rights import REPAIR, Need, engine_need, need_of
from orchestrator.server.access.sessions import Session
from orchestrator.server.api.responses import PLANE, Handler
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from orchestrator.stackfile.model import Stack

TRUSTED = web.AppKey("trusted", str)
"""The path of the socket at which everybody is root."""
CALLER, CHANGE, SECRET = "pystack.caller", "pystack.change", "pystack.secret"
COOKIE = "pystack_session"
CSRF = "X-CSRF-Token"
OWN_ENGINE = "/v1/nodes/local/engine"
"""The path of the Engine API of the server's own node."""
NEXT = {"look": "a viewer", "operate": "an operator", "administer": "an admin"}
MESSAGE = 500
"""Characters of a line's message."""


class StackName(msgspec.Struct, frozen=True):
    """What of a stack counts for one who is not limited."""

    name: str


class NamedBody(msgspec.Struct, frozen=True):
    """A request about a stack."""

    stack: StackName


class StackBody(msgspec.Struct, frozen=True):
    """The same, with all that the stack asks for."""

    stack: Stack


def caller_of(request: web.Request) -> Caller:
    """The sender of *request*; the guard has let it pass."""
    found: Caller = request[CALLER]
    return found


def sees(request: web.Request, stack: str) -> bool:
    """Whether *stack* may be shown in the answer: for routes of the scope `shown`."""
    return caller_of(request).has_stack(stack)


def signed(request: web.Request, options: UpOptions) -> UpOptions:
    """*options* with the name of the caller, where that is known: a revision says who made it."""
    caller = caller_of(request)
    return msgspec.structs.replace(options, user=caller.name) if caller.way in ("token", "session") else options


def change_of(request: web.Request) -> Change:
    """What the request changes, for its line in the log."""
    found: Change = request.setdefault(CHANGE, Change())
    return found


def is_encrypted(request: web.Request) -> bool:
    """Whether the browser speaks TLS to the server."""
    return _origin(request)[0] == "tls"


def cookie_name(request: web.Request) -> str:
    """Of the session. `__Host-` is kept by browsers for the host that set it, over TLS alone."""
    return f"__Host-{COOKIE}" if is_encrypted(request) else COOKIE


def _origin(request: web.Request) -> tuple[str, str, str]:
    """How the connection came: (`tls`, `page` or "", address, common name of a certificate)."""
    transport = request.transport
    return origin_of(transport.get_extra_info("peername") if transport else None)


def source_of(request: web.Request) -> str:
    """The address that the request came from; `local` for a socket of this host."""
    return _origin(request)[1] or "local"


def _identify(request: web.Request) -> Caller:
    """Raises RefusedError (401) for a token that is none."""
    access, trusted = request.app[PLANE].access, request.app.get(TRUSTED)
    way, address, common = _origin(request)
    transport = request.transport
    if trusted is None or (transport and transport.get_extra_info("sockname") == trusted):
        if way == "tls":
            return Caller(name=common or "certificate", role="admin", way="certificate", source=address)
        return Caller(name=_local_user(request), role="admin", way="socket", source="local")
    source = address or "local"
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    if secret:
        token = access.token_of(secret.strip()) if kind.lower() == "bearer" else None
        if token is None:
            raise RefusedError("this token is not known, or has expired: `pystack token ls`", 401)
        return Caller(name=token.name, role=token.role, stacks=token.stacks, way="token", source=source)
    cookie = request.cookies.get(cookie_name(request), "")
    session = request.app[PLANE].sessions.find(cookie) if cookie else None
    given = _owner(request.app[PLANE], session) if session else None
    if session is None or given is None:
        return Caller(name="", role="viewer", stacks=(), way="nobody", source=source)
    request[SECRET] = cookie
    return Caller(name=session.name, role=given.role, stacks=given.stacks, way="session", source=source)


def _owner(plane: ControlPlane, session: Session) -> User | Token | Session | None:
    """Whose rights the session has now; None if its user or token is gone."""
    match session.of:
        case "user":
            return plane.access.users.get(session.name)
        case "token":
            token = plane.access.tokens.get(session.name)
            return None if token is None or token.has_expired() else token
        case _:
            return session


def _local_user(request: web.Request) -> str:
    """The name of the user of this host at the other end of the socket. Source: unix(7), SO_PEERCRED."""
    sock: Any = request.transport.get_extra_info("socket") if request.transport else None
    try:
        _, uid, _ = struct.unpack("3i", sock.getsockopt(SOL_SOCKET, SO_PEERCRED, struct.calcsize("3i")))
        return pwd.getpwuid(uid).pw_name if uid >= 0 else "root"
    except (OSError, AttributeError, KeyError):
        return "root"


def _needed(request: web.Request) -> tuple[Need, str]:
    """What the request needs, and the container of a node, or the exec there, that it is about."""
    resource = request.match_info.route.resource
    path = resource.canonical if resource else ""
    if path.startswith(f"{OWN_ENGINE}/") or path == "/v1/nodes/{node}/engine/{path}":
        return engine_need(request.method, request.rel_url.raw_path.split("/engine", 1)[1])
    if path == "/v1/doctor" and request.query.get("repair", "") not in ("", "0"):
        return REPAIR, ""
    return need_of(request.method, path), ""


def _check_browser(request: web.Request, need: Need) -> None:
    """A page of somebody else makes a browser send requests too. Raises RefusedError (403)."""
    if need.open and request.method in ("GET", "HEAD"):
        return  # a link to the page, or the way back from a provider
    origin = request.headers.get("Origin", "")
    if origin and origin.partition("://")[2] != request.host:
        raise RefusedError(f"a page of {shown(origin, 200)} may not ask for this", 403)
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise RefusedError("a page of another site may not ask for this", 403)
    if need.open:
        return
    if request.headers.get("Upgrade", "").lower() == "websocket":
        if not origin:
            raise RefusedError("a page that opens a connection says which it is (Origin)", 403)
        return
    if request.method not in ("GET", "HEAD") or need.changes:
        session = request.app[PLANE].sessions.find(request[SECRET])
        if session is None or not hmac.compare_digest(request.headers.get(CSRF, "").encode(), session.token.encode()):
            raise RefusedError(f"a change by a browser has the token of its session in {CSRF}", 403)


def _container_stack(plane: ControlPlane, ident: str) -> str:
    """The stack of the container *ident*, its ID, a beginning of that, or the name of its task; "" if it has none."""
    if ident in plane.state.tasks:
        return plane.state.tasks[ident].stack
    found = {s.task for s in plane.statuses.by_task.values() if len(ident) >= 12 and s.container.startswith(ident)}
    return plane.state.tasks[found.pop()].stack if len(found) == 1 and found <= plane.state.tasks.keys() else ""


async def _container_of_exec(request: web.Request, ident: str) -> str:
    """The ID of the container in which the exec *ident* of a node runs, "" if that is not known. Raises PystackError."""
    cluster = request.app[PLANE].cluster
    member = cluster.members.get(request.match_info.get("node", cluster.local))
    if member is None or not member.ready:
        return ""
    found = await member.client.call("GET", f"/exec/{ident}/json")
    return str(found.get("ContainerID", "")) if isinstance(found, dict) else ""


async def _check_privileges(request: web.Request, caller: Caller) -> None:
    """A command that is started in a container with more rights than the container has is one on the node. Raises RefusedError
    (403)."""
    # names of Go's fields are the same in capitals, and of two the node may take either
    pairs = json.loads(await request.read() or b"{}", object_pairs_hook=list)
    if any(name.casefold() == "privileged" and value is not False for name, value in pairs):
        raise RefusedError(f"--privileged reaches the node, and {caller.name} is limited to {', '.join(caller.stacks)}", 403)


async def _check_stack(request: web.Request, caller: Caller, need: Need, container: str) -> None:
    """Raises RefusedError (403) if what the request is about is not the caller's; of which stack that is, its change knows."""
    stack = request.match_info.get("stack", "")
    if need.scope == "exec" and caller.is_limited:
        container = await _container_of_exec(request, container)
    if container:
        stack = _container_stack(request.app[PLANE], container)
    if caller.is_limited and request.path.endswith("/exec") and need.scope == "stack":
        await _check_privileges(request, caller)
    if need.scope == "body":
        stack = msgspec.json.decode(await request.read(), type=NamedBody).stack.name
    change_of(request).stack = stack
    if need.scope == "body" and caller.is_limited:
        body = msgspec.json.decode(await request.read(), type=StackBody).stack
        if caller.has_stack(body.name) and (wrong := problems(body, caller)):
            raise RefusedError(
                f"{caller.name} is limited to {', '.join(caller.stacks)}, and what reaches nodes or other stacks is not for "
                f"those: {'; '.join(wrong)}",
                403,
            )
        stack = body.name
    if caller.is_limited:
        if need.scope == "cluster":
            raise RefusedError(f"this is about more than {', '.join(caller.stacks)}, which is all that {caller.name} has", 403)
        if need.scope in ("stack", "body", "exec") and not caller.has_stack(stack):
            raise RefusedError(f"{caller.name} has {', '.join(caller.stacks)}, and not {stack or 'what is of no stack'}", 403)


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request pass that may, and write down what changes something. Raises RefusedError (401, 403)."""
    if request.match_info.http_exception is not None:  # there is no such route: nothing to keep
        return await handler(request)
    need, container = _needed(request)
    caller = request[CALLER] = _identify(request)
    refusal = None
    try:
        if caller.way == "session" or (caller.way == "nobody" and need.open):
            _check_browser(request, need)
        if not need.open:
            if caller.way == "nobody":
                raise RefusedError("sign in, or show a token: `Authorization: Bearer …`", 401)
            if not caller.may(need.right):
                raise RefusedError(f"{caller.name} is {_article(caller.role)}: this is for {NEXT[need.right]}", 403)
            await _check_stack(request, caller, need, container)
    except RefusedError as error:
        if caller.way == "nobody" or not need.changes:
            raise
        refusal = error
    if not need.changes:
        return await handler(request)
    return await _recorded(request, caller, lambda: _refuse(refusal) if refusal else handler(request))


async def _refuse(error: RefusedError) -> web.StreamResponse:
    raise error


def _article(role: str) -> str:
    return f"{'a' if role == 'viewer' else 'an'} {role}"


async def _recorded(
    request: web.Request, caller: Caller, answer: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The answer, and a line in the log of changes: at the begin, and at the end."""
    log, change, begun = request.app[PLANE].audit, change_of(request), time.time()
    path = request.rel_url.raw_path
    line = AuditLine(
        id=log.next_id(),
        time=begun,
        user=caller.name,
        role=caller.role,
        way=caller.way,
        source=caller.source,
        action=f"{request.method} {shown(path, MESSAGE)}",
        stack=change.stack,
    )
    log.put(line)

    def end(outcome: str, status: int, message: str = "") -> None:
        log.put(
            msgspec.structs.replace(
                line,
                stack=change.stack,
                target=change.target,
                outcome=outcome,
                status=status,
                message=shown(message or change.problem, MESSAGE),
                steps=tuple(change.steps),
                more_steps=change.more,
                seconds=round(time.time() - begun, 3),
            )
        )

    try:
        response = await answer()
    except RefusedError as error:
        end("refused" if error.status in (401, 403) else "failed", error.status, str(error))
        raise
    except asyncio.CancelledError:
        if request.headers.get("Upgrade"):
            end("done", 101)  # a shell ends so
        else:
            end("left", 0, "the client went away")
        raise
    except Exception as error:
        end("failed", getattr(error, "status", 500), str(error))
        raise
    end("failed" if change.problem or response.status >= 400 else "done", response.status)
    return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: what browsers must not do with an answer. Source: OWASP HTTP Headers Cheat Sheet."""
    headers: Any = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    if request.path.startswith("/v1/"):
        headers.setdefault("Cache-Control", "no-store")


def trust(app: web.Application, socket: Path | None) -> None:
    """Everybody at *socket* is root in *app*; where it is None, everybody is."""
    if socket is not None:
        app[TRUSTED] = os.fspath(socket)
