"""The REST API of notices: an extension of the server's API."""

from __future__ import annotations

from typing import TypedDict

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.notify.notifier import Notifier
from orchestrator.server.api.extension import ApiExtension, Route
from orchestrator.server.api.responses import json_response

NOTIFIER = web.AppKey("notifier", Notifier)


class DeliveryRow(TypedDict):
    """One row of `pystack notify ls`: a notice that has not arrived. *state* is waiting or dead."""

    id: str
    kind: str
    subject: str
    text: str
    channel: str
    state: str
    attempts: int
    problem: str
    time: float


class Outbox(TypedDict):
    """The receivers, and the notices that have not arrived."""

    channels: list[str]
    deliveries: list[DeliveryRow]


class RetryRequest(WireStruct, frozen=True, kw_only=True):
    """*ids* of deliveries; none stands for all."""

    ids: tuple[str, ...] = ()


class TestRow(TypedDict):
    """What became of a test by one way; *problem* is "" if it arrived."""

    channel: str
    problem: str


async def ls(request: web.Request) -> web.Response:
    """The receivers of notices, and which notices have not arrived."""
    notifier = request.app[NOTIFIER]
    rows = [
        DeliveryRow(
            id=d.id,
            kind=d.notice.kind,
            subject=d.notice.subject,
            text=d.notice.text,
            channel=d.channel,
            state="dead" if d.dead else "waiting",
            attempts=d.attempts,
            problem=d.problem,
            time=d.notice.time,
        )
        for d in sorted(notifier.deliveries.values(), key=lambda d: d.notice.time)
    ]
    return json_response(Outbox(channels=[c.name for c in notifier.channels], deliveries=rows))


async def retry(request: web.Request) -> web.Response:
    """Send notices again that have not arrived, those that were given up too."""
    body = msgspec.json.decode(await request.read() or b"{}", type=RetryRequest)
    return json_response({"retried": await request.app[NOTIFIER].retry(body.ids)})


async def test(request: web.Request) -> web.Response:
    """Send a test by each way, and say what became of it."""
    found = await request.app[NOTIFIER].test()
    return json_response([TestRow(channel=name, problem=problem) for name, problem in found.items()])


ROUTES: tuple[Route, ...] = (
    ("GET", "/v1/notify", ls, None, Outbox),
    ("POST", "/v1/notify/retry", retry, RetryRequest, None),
    ("POST", "/v1/notify/test", test, None, list[TestRow]),
)


def extension(notifier: Notifier) -> ApiExtension:
    """The routes of *notifier*, for the server's application."""

    def attach(app: web.Application) -> None:
        app[NOTIFIER] = notifier

    return ApiExtension(routes=ROUTES, readable_when_stale=frozenset(), attach=attach)
