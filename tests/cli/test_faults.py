"""A fault in a node's worker: one sentence for the user, and with `--debug` where it was."""

from __future__ import annotations

import traceback

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from agent.api.app import errors
from agent.errors import ImageError
from orchestrator.cli.client import _refusal
from orchestrator.cli.http import Response

PLACES = ("layer.py:80 main", "extract.py:130 _next")


@pytest.mark.filterwarnings("ignore:.*web.RequestKey")  # which aiohttp has had since 3.14 alone
async def test_the_places_of_a_fault_reach_who_debugs() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        raise ImageError("a fault of pystack's, not of yours", PLACES)

    answered = await errors(make_mocked_request("GET", "/"), handler)
    assert isinstance(answered, web.Response)
    assert isinstance(answered.body, bytes)

    body = answered.body

    class Answered(Response):
        status = answered.status

        def __init__(self) -> None:
            self.headers = {}

        def read(self, size: int | None = None) -> bytes:
            return body

    error = _refusal(Answered())
    assert (str(error), error.status) == ("a fault of pystack's, not of yours", 500)
    shown = "".join(traceback.format_exception(error))
    assert all(f"on the node, in a worker: {place}\n" in shown for place in PLACES)
