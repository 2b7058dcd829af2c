"""Routes of users, tokens, the sessions of browsers, and the log of changes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, TypedDict

import msgspec
from aiohttp import web

from agent.contract.takeover import Taken, Written
from agent.contract.times import timestamp_if_set
from agent.contract.tunnel import mark
from agent.contract.wire import WireStruct
from orchestrator import __version__
from orchestrator.errors import RefusedError
from orchestrator.server.access.log import AuditLine
from orchestrator.server.access.model import ALL, Role, Token, User
from orchestrator.server.access.sessions import LONGEST_S, Owner, Session
from orchestrator.server.api.guard import SECRET, TRUSTED, caller_of, change_of, cookie_name, is_encrypted, source_of
from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.plane import ControlPlane

WEB_SOCKET = "web.sock"
"""The name, beside the control socket, of the socket at which nobody is root (`agent.paths.Paths.web_socket`)."""
CHUNK = 1 << 16


class UserRow(TypedDict):
    """One row of `pystack user ls`. *password*: whether there is one."""

    name: str
    role: str
    stacks: tuple[str, ...]
    password: bool
    created: str


class TokenRow(TypedDict):
    """One row of `pystack token ls`. *expires* is "" for never. *secret* is there once, when the token is made."""

    name: str
    role: str
    stacks: tuple[str, ...]
    created: str
    expires: str
    secret: str


class UserRequest(WireStruct, frozen=True, kw_only=True):
    """*new*: there must be none of the name yet, or else one. An empty *password* keeps the old one."""

    role: Role
    stacks: tuple[str, ...] = ALL
    password: str = ""
    new: bool = True


class TokenRequest(WireStruct, frozen=True, kw_only=True):
    """*days* is how long it holds, 0 for ever."""

    role: Role
    stacks: tuple[str, ...] = ALL
    days: float = 0.0


class SignInRequest(WireStruct, frozen=True, kw_only=True):
    """A name and a password, or the *code* of a link."""

    name: str = ""
    password: str = ""
    code: str = ""


class SessionRow(TypedDict):
    """Who is signed in. *token* is for the header X-CSRF-Token of what changes something."""

    name: str
    role: str
    stacks: tuple[str, ...]
    token: str
    version: str
    node: str


class Link(WireStruct, frozen=True, kw_only=True):
    """*code* begins a session once."""

    code: str


def _user_row(user: User) -> UserRow:
    return UserRow(name=user.name, role=user.role, stacks=user.stacks, password=bool(user.password), created=user.created)


def _token_row(token: Token, secret: str = "") -> TokenRow:
    expires = timestamp_if_set(token.expires)
    return TokenRow(
        name=token.name, role=token.role, stacks=token.stacks, created=token.created, expires=expires, secret=secret
    )


async def list_users(request: web.Request) -> web.Response:
    """List the users."""
    return json_response([_user_row(u) for _, u in sorted(request.app[PLANE].access.users.items())])


async def put_user(request: web.Request) -> web.Response:
    """Create a user, or change one."""
    plane, name = request.app[PLANE], request.match_info["name"]
    body = msgspec.json.decode(await request.read(), type=UserRequest)
    change_of(request).target = f"{name}: {body.role} of {', '.join(body.stacks)}" + (", password set" if body.password else "")
    user = await plane.access.put_user(name, body.role, body.stacks, body.password, new=body.new)
    if body.password:
        plane.sessions.end_all_of(name)
    return json_response(_user_row(user))


async def remove_user(request: web.Request) -> web.Response:
    """Remove a user; sessions of it end."""
    await request.app[PLANE].access.remove_user(request.match_info["name"])
    request.app[PLANE].sessions.end_all_of(request.match_info["name"])
    return web.Response(status=204)


async def list_tokens(request: web.Request) -> web.Response:
    """List the tokens; their secrets are kept nowhere."""
    return json_response([_token_row(t) for _, t in sorted(request.app[PLANE].access.tokens.items())])


async def create_token(request: web.Request) -> web.Response:
    """Create a token; the answer alone has its secret."""
    name = request.match_info["name"]
    body = msgspec.json.decode(await request.read(), type=TokenRequest)
    change_of(request).target = f"{name}: {body.role} of {', '.join(body.stacks)}"
    return json_response(_token_row(*await request.app[PLANE].access.create_token(name, body.role, body.stacks, body.days)))


async def remove_token(request: web.Request) -> web.Response:
    """Remove a token; what shows it is refused from now on."""
    await request.app[PLANE].access.remove_token(request.match_info["name"])
    return web.Response(status=204)


async def audit_log(request: web.Request) -> web.Response:
    """The last changes, the oldest first: who, from where, what. `last=` how many, `stack=`, `user=` of which."""
    last = int(request.query.get("last", "100"))
    stack, user = request.query.get("stack", ""), request.query.get("user", "")
    lines = await request.app[PLANE].audit.lines(0)
    return json_response([one for one in lines if stack in ("", one.stack) and user in ("", one.user)][-last:])


async def get_session(request: web.Request) -> web.Response:
    """Who is signed in."""
    caller = caller_of(request)
    session = request.app[PLANE].sessions.find(request[SECRET]) if caller.way == "session" else None
    return json_response(_session_row(request.app[PLANE], session, caller.name, caller.role, caller.stacks))


def _session_row(plane: ControlPlane, session: Session | None, name: str, role: str, stacks: tuple[str, ...]) -> SessionRow:
    token = session.token if session else ""
    return SessionRow(name=name, role=role, stacks=stacks, token=token, version=__version__, node=plane.node)


def set_cookie(request: web.Request, response: web.Response, secret: str) -> None:
    """Give a browser its session."""
    response.set_cookie(
        cookie_name(request),
        secret,
        max_age=int(LONGEST_S),
        path="/",
        secure=is_encrypted(request),
        httponly=True,
        samesite="Strict",
    )


async def sign_in(request: web.Request) -> web.Response:
    """Begin a session of a browser: a cookie."""
    plane, source = request.app[PLANE], source_of(request)
    if request.content_type != "application/json":
        raise RefusedError("sign in with JSON", 415)
    body = msgspec.json.decode(await request.read(), type=SignInRequest)
    keys = (f"source {source}", f"name {body.name[:64]}") if body.name else (f"source {source}",)
    plane.throttle.check(*keys)
    begun: tuple[str, Session] | None = None
    if body.code:
        begun = plane.sessions.follow(body.code)
    elif user := await plane.access.verify(body.name, body.password):
        begun = plane.sessions.begin(user.name, user.role, user.stacks, "user")
    if begun is None:
        plane.throttle.failed(*keys)
        note_sign_in(plane, body.name[:64] or "by a link", "", source, refused=True)
        raise RefusedError(
            "the link was used already, or is too old: `pystack ui` makes another" if body.code else "wrong name or password",
            401,
        )
    plane.throttle.succeeded(*keys)
    secret, session = begun
    note_sign_in(plane, session.name, session.role, source, refused=False)
    response = json_response(_session_row(plane, session, session.name, session.role, session.stacks))
    set_cookie(request, response, secret)
    return response


def note_sign_in(plane: ControlPlane, name: str, role: str, source: str, *, refused: bool) -> None:
    """Write an attempt to sign in to the log of changes."""
    plane.audit.put(
        AuditLine(
            id=plane.audit.next_id(),
            time=time.time(),
            user=name,
            role=role,
            way="session",
            source=source,
            action="sign in",
            outcome="refused" if refused else "done",
            status=401 if refused else 200,
        )
    )


async def sign_out(request: web.Request) -> web.Response:
    """End the session of a browser."""
    if caller_of(request).way == "session":
        request.app[PLANE].sessions.end(request[SECRET])
    response = web.Response(status=204)
    response.del_cookie(cookie_name(request), path="/", secure=is_encrypted(request), httponly=True, samesite="Strict")
    return response


async def make_link(request: web.Request) -> web.Response:
    """A code with which a browser signs in once, within two minutes, as the user who asks for it."""
    caller = caller_of(request)
    plane = request.app[PLANE]
    owner: Owner = "token" if caller.way == "token" else "socket"
    if caller.way == "session":
        session = plane.sessions.find(request[SECRET])
        owner = session.of if session else "user"
    return json_response(Link(code=plane.sessions.link(caller.name, caller.role, caller.stacks, owner)))


async def connect_page(request: web.Request) -> web.StreamResponse:
    """Make of this connection one to the socket at which nobody is root: `pystack ui` brings browsers here."""
    trusted = request.app.get(TRUSTED)
    if trusted is None:
        raise RefusedError("this server has no socket for browsers", 404)
    sock = _connected(f"{trusted.rpartition('/')[0]}/{WEB_SOCKET}")
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    client = Taken(request)
    await client.send(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    inward = asyncio.create_task(_pass_on(client.reader, writer))
    try:
        while data := await reader.read(CHUNK):
            await client.send(data)
    except ConnectionError:
        pass
    finally:
        inward.cancel()
        await asyncio.gather(inward, return_exceptions=True)
        with contextlib.suppress(OSError):
            writer.close()
    return Written()


def _connected(path: str) -> Any:
    import socket

    sock = socket.socket(socket.AF_UNIX)
    mark(sock, "page", "local")
    sock.connect(path)
    return sock


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()  # a browser that has ended its input is gone
