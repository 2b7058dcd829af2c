"""Errors of a node, with Docker's status codes. The text says what failed, where, why and what to do."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web


class AgentError(Exception):
    """Base class. *status* is the HTTP status that the Docker Engine API uses for the kind; *code* the exit status of the
    program that failed, 0 if none did; *places* the stack of a fault of ours in a worker, for `--debug`."""

    status = 500
    code = 0

    def __init__(self, message: str = "", places: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.places = places


class NotFoundError(AgentError):
    """The named object does not exist."""

    status = 404


class ConflictError(AgentError):
    """The state of things does not allow it."""

    status = 409


class ForbiddenError(AgentError):
    """It is not allowed."""

    status = 403


class BadRequestError(AgentError):
    """The request is wrong."""

    status = 400


class ImageError(AgentError):
    """An image could not be pulled, read or unpacked."""


class ImageNotFoundError(ImageError):
    """The image does not exist."""

    status = 404


class DeniedError(ImageError):
    """A registry denies access to an image. Docker tells so of a pull and of a push with 500."""


class UnauthorizedError(ImageError):
    """A registry does not take the name and password."""

    status = 401


class NoSwarmError(AgentError):
    """The node is not part of a Swarm."""

    status = 503


class NotImplementedHereError(AgentError):
    """This kind of container or node does not do it."""

    status = 501


class RuntimeFailureError(AgentError):
    """The OCI runtime refused a container."""


class NoProgramError(RuntimeFailureError):
    """The command of a container does not exist, or is not a program."""

    status = 400


class NotModifiedError(AgentError):
    """Already in the state that was asked for."""

    status = 304


def of_worker(reply: Mapping[str, Any], kind: type[AgentError] | None = None, before: str = "") -> AgentError:
    """The error that a worker for foreign trees replied (`agent.trees.process`), prefixed with *before*; of the *kind* given,
    or else of the one that its status stands for."""
    kinds: dict[int, type[AgentError]] = {400: BadRequestError, 404: NotFoundError}
    made = kind or kinds.get(reply.get("status", 500), AgentError)
    return made(f"{before}{reply['error']}", reply.get("trace", ()))


def disk_is_full(error: BaseException) -> bool:
    """Whether *error* says that there is no room for what was to be written."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def reason(error: OSError) -> str:
    """What the system says of *error*, as programs in Go have it, by which Docker's clients know it."""
    return (error.strerror or "").lower()


def user_message(error: BaseException) -> str:
    """The message of *error* for a user, with its kind if the fault is ours."""
    if isinstance(error, OSError) and disk_is_full(error):
        at = f" ({error.filename})" if error.filename else ""
        return f"the disk is full{at}: make room, with `pystack image prune` for instance, and do this again"
    return str(error) if isinstance(error, AgentError | OSError) else f"{type(error).__name__}: {error}"


async def abort_if_response_started(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare` of an aiohttp application: if a handler fails after its response began, abort the connection,
    so that the client sees a truncated response, not a complete one. Raises ConnectionResetError."""
    del response
    if request.get("begun"):
        if request.transport:
            request.transport.abort()
        raise ConnectionResetError(f"{request.method} {request.path} failed when its answer had begun")
    request["begun"] = True
