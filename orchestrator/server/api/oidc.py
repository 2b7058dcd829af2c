"""Routes of the sign-in by an OpenID provider."""

from __future__ import annotations

from typing import TypedDict

from aiohttp import web

from orchestrator.errors import RefusedError
from orchestrator.server.access.oidc import CALLBACK, PENDING_S, Provider
from orchestrator.server.api.access import note_sign_in, set_cookie
from orchestrator.server.api.extension import ApiExtension, Route
from orchestrator.server.api.guard import is_encrypted, source_of
from orchestrator.server.api.responses import PLANE, json_response

PROVIDER = web.AppKey("provider", Provider)
COOKIE = "pystack_sign_in"


class Ways(TypedDict):
    """*oidc* is what the button for the provider says, "" if there is none."""

    oidc: str


async def ways(request: web.Request) -> web.Response:
    """How somebody can sign in besides a password."""
    provider = request.app.get(PROVIDER)
    return json_response(Ways(oidc=provider.settings.name if provider else ""))


def _provider(request: web.Request) -> Provider:
    provider = request.app.get(PROVIDER)
    if provider is None:
        raise RefusedError("config.yml names no OpenID provider", 404)
    return provider


async def to_provider(request: web.Request) -> web.Response:
    """Lead a browser to the provider."""
    address, secret = await _provider(request).begin()
    response = web.Response(status=303, headers={"Location": address})
    # Lax: it comes back from the provider's page
    response.set_cookie(
        COOKIE, secret, max_age=int(PENDING_S), path=CALLBACK, secure=is_encrypted(request), httponly=True, samesite="Lax"
    )
    return response


async def from_provider(request: web.Request) -> web.Response:
    """Begin the session of a person that the provider knows by a user's name."""
    plane, source = request.app[PLANE], source_of(request)
    plane.throttle.check(f"source {source}")
    try:
        name = await _provider(request).finish(dict(request.query), request.cookies.get(COOKIE, ""))
        user = plane.access.users.get(name)
        if user is None:
            raise RefusedError(f"{name} is not a user here: `pystack user create --no-password {name}`", 403)
    except RefusedError as error:
        if error.status in (401, 403):
            plane.throttle.failed(f"source {source}")
            note_sign_in(plane, "by the provider", "", source, refused=True)
        raise
    secret, _ = plane.sessions.begin(user.name, user.role, user.stacks, "user")
    note_sign_in(plane, user.name, user.role, source, refused=False)
    response = web.Response(status=303, headers={"Location": "/ui/"})
    set_cookie(request, response, secret)
    response.del_cookie(COOKIE, path=CALLBACK)
    return response


ROUTES: tuple[Route, ...] = (
    ("GET", "/v1/session/ways", ways, None, Ways),
    ("GET", "/v1/session/oidc", to_provider, None, None),
    ("GET", CALLBACK, from_provider, None, None),
)


def extension(provider: Provider | None) -> ApiExtension:
    """The routes, for the server's application."""

    def attach(app: web.Application) -> None:
        if provider:
            app[PROVIDER] = provider

    return ApiExtension(routes=ROUTES, readable_when_stale=frozenset(), attach=attach)
