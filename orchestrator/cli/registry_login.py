"""The user's own credentials for registries, as they are sent with what makes a server pull, build or push.

A server pulls with its own host's credentials as well; but a user who is logged in here need not be so there. Only those of the
registries in question are sent. Source: Docker CLI (config.json, credential helpers); Docker Engine API v1.48, ImageBuild
(X-Registry-Config).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

HEADER = "X-Registry-Config"


def headers_for(images: Iterable[str]) -> dict[str, str]:
    """The header with the credentials for the registries of *images*; none where the user has none. Raises PystackError."""
    if not _is_logged_in():
        return {}
    from agent.errors import AgentError
    from agent.images.reference import parse

    hosts = set()
    for name in images:
        if name.startswith("sha256:"):  # an ID
            continue
        try:
            hosts.add(parse(name).host)
        except AgentError:  # no name at all: the server says so
            continue
    return _header(hosts)


def headers_for_build() -> dict[str, str]:
    """The header with all credentials that the user's config.json names a registry of: which ones a Dockerfile needs shows on
    the way. Raises PystackError."""
    if not _is_logged_in():
        return {}
    from agent.errors import AgentError
    from agent.images import credentials
    from orchestrator.errors import PystackError

    try:
        _, config = credentials.load()
    except AgentError as error:
        raise PystackError(str(error)) from None
    hosts = {credentials.host_of(name) for name in (*config.auths, *config.cred_helpers)}
    return _header({"docker.io" if host == "index.docker.io" else host for host in hosts})


def _is_logged_in() -> bool:
    """Whether there is a config.json with more than nothing: what reads it loads much that other commands need not."""
    path = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return any(word in text for word in (b'"auths"', b'"credHelpers"', b'"credsStore"'))


def _header(hosts: Iterable[str]) -> dict[str, str]:
    import asyncio
    import base64

    from agent.errors import AgentError
    from agent.images import credentials
    from orchestrator.errors import PystackError

    async def found() -> dict[str, dict[str, str]]:
        out = {}
        for host in sorted(hosts):
            if one := await credentials.find(host):
                token = one.username == credentials.TOKEN
                name = credentials.HUB_KEY if host == "docker.io" else host
                out[name] = {"identitytoken": one.password} if token else {"username": one.username, "password": one.password}
        return out

    try:
        known = asyncio.run(found())
    except AgentError as error:
        raise PystackError(str(error)) from None
    return {HEADER: base64.urlsafe_b64encode(json.dumps(known).encode()).decode()} if known else {}
