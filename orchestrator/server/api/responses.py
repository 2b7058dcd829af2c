"""What every handler uses: the parts of the server, JSON answers, and errors as answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from agent.contract.printable import shown
from agent.errors import user_message
from orchestrator.errors import PystackError, RefusedError
from orchestrator.server.plane import ControlPlane

PLANE = web.AppKey("plane", ControlPlane)
STOP = web.AppKey("stop", asyncio.Event)
"""Set to end the server."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LONGEST = 64 << 10
"""Characters of a message: a plan that cannot be has reasons of every node."""
log = logging.getLogger(__name__)


def json_response(value: Any) -> web.Response:
    """*value*, anything that msgspec encodes, as JSON."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as {"message": …} with Docker's status codes."""
    try:
        return await handler(request)
    except RefusedError as error:
        return web.json_response({"message": shown(str(error), LONGEST)}, status=error.status)
    except PystackError as error:
        return web.json_response({"message": shown(str(error), LONGEST)}, status=409)
    except (msgspec.MsgspecError, ValueError) as error:
        return web.json_response({"message": shown(f"malformed request: {error}", LONGEST)}, status=400)
    except RecursionError:
        return web.json_response({"message": "malformed request: it is nested too deeply"}, status=400)
    except web.RequestPayloadError as error:
        return web.json_response({"message": shown(f"malformed request: {error}", LONGEST)}, status=400)
    except web.HTTPException as error:
        return web.json_response({"message": error.reason}, status=error.status)
    except (ConnectionResetError, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        return web.json_response({"message": shown(user_message(error), LONGEST)}, status=500)
