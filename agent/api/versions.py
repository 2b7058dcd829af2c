"""Versions of the Engine API: those that are served, and paths that name one.

Docker's clients ask `/_ping` for the newest and then write `/v1.43/…` before each path; without that the newest is meant.
Source: Docker Engine API v1.48, "Versioning".
"""

from __future__ import annotations

import re

from aiohttp import web

from agent.contract.version import VERSION
from agent.errors import BadRequestError

NEWEST, OLDEST = (1, 48), (1, 24)
TOLERATED = (1, 22)
"""The version of requests by skopeo and its kin (containers/image before 5.25), which do not negotiate; what they request has
never changed."""
SERVER = f"pystack/{VERSION} (linux)"
PREFIX = "/v{version:[0-9][0-9.]*}"


def text(version: tuple[int, int]) -> str:
    """*version* as MAJOR.MINOR."""
    return ".".join(map(str, version))


def asked(request: web.Request) -> tuple[int, int]:
    """The version that the request is written in. Raises BadRequestError for one that is not served."""
    written = request.match_info.get("version")
    if written is None:
        return NEWEST
    match = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})", written)
    if match is None:
        raise BadRequestError(f"API version {written!r}: a version is written like {text(NEWEST)}")
    version = int(match[1]), int(match[2])
    if version < TOLERATED:
        raise BadRequestError(
            f"client version {written} is too old. Minimum supported API version is {text(OLDEST)}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise BadRequestError(f"client version {written} is too new. Maximum supported API version is {text(NEWEST)}")
    return version


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: the headers of each answer that name the server and its version."""
    del request
    for name, value in (("Api-Version", text(NEWEST)), ("Docker-Experimental", "false"), ("Ostype", "linux")):
        response.headers.setdefault(name, value)
    response.headers["Server"] = SERVER
