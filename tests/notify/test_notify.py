"""Notices: told once, signed, sent again, given up; by a real SMTP server, a real HTTP server and a real program."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiosmtpd.smtp import SMTP

from agent.contract.container import Container
from agent.contract.notify import Command, Kind, Mail, NotifySettings, Webhook
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.notify import notifier as module
from orchestrator.notify.channels import channels
from orchestrator.notify.conditions import ending_certificates, failed_rollouts, failed_runs, trouble_of
from orchestrator.notify.model import Notice
from orchestrator.notify.notifier import Notifier, attempt
from orchestrator.server.jobs.records import JobRun
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import StackRecord, UpOptions
from orchestrator.server.rollouts.records import RolloutRecord
from orchestrator.stackfile.model import Stack
from orchestrator.store.sqlite import SqliteStore

EVIL = "shop\r\nBcc: all@example.org\u001b[2J"


class Receiver:
    """A server that keeps what it is sent, and answers with *status*."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, headers={"Location": "http://127.0.0.1:1/"})

    def notices(self) -> list[tuple[str, str]]:
        return [(n.kind, n.subject) for n in (msgspec.json.decode(body, type=Notice) for _, body in self.got)]


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    made, app = Receiver(), web.Application()
    app.router.add_post("/hook", made.take)
    async with TestServer(app) as server:
        yield made, str(server.make_url("/hook"))


@pytest.fixture
async def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ControlPlane]:
    """Of a server that has a task that runs, and is connected to no node."""
    store = await SqliteStore.open(tmp_path / "store.db")
    made = ControlPlane(store, "n1", tmp_path / "docker.sock", tmp_path / "run", tmp_path / "keys")
    await made.state.load()
    monkeypatch.setattr(made.cluster, "unreachable_reason", lambda name: "")  # its node answers
    task = Task(name="shop-web-1", stack="shop", service="web", node="n1", container=Container(image="i"), desired="running")
    made.state.tasks["shop-web-1"] = task
    made.state.stacks["shop"] = StackRecord(stack=Stack(name="shop"), revision=1, updated="")
    made.statuses.by_task["shop-web-1"] = TaskStatus(task="shop-web-1", state="running")
    yield made
    await store.close()


def notice(subject: str = "shop") -> Notice:
    return Notice(id="0011", kind="stack_degraded", subject=subject, text=f"{subject} is in trouble", time=1_700_000_000.0)


async def test_a_stack_is_told_once_and_when_it_has_healed(plane: ControlPlane, receiver: tuple[Receiver, str]) -> None:
    got, url = receiver
    settings = NotifySettings(webhooks=(Webhook(url=url),), after_s=10.0)
    one = Notifier(plane, dict, settings)
    one.led -= 60  # it has led for a while
    await one.look(0.0)
    plane.statuses.by_task["shop-web-1"] = TaskStatus(task="shop-web-1", state="failed", error="no such image")
    await one.look(1.0)
    await one.send_due(time.time())
    assert got.got == [], "a moment is no trouble"
    for now in (12.0, 13.0, 60.0):
        await one.look(now)
        await one.send_due(time.time())
    assert got.notices() == [("stack_degraded", "shop")]
    assert b"no such image" in got.got[0][1]
    again = Notifier(plane, dict, settings)  # another server leads
    await again.load()
    await again.look(0.0)
    await again.look(20.0)
    await again.send_due(time.time())
    assert len(got.got) == 1, "it is not told again"
    again.led -= 60
    plane.statuses.by_task["shop-web-1"] = TaskStatus(task="shop-web-1", state="running")
    await again.look(21.0)
    await again.send_due(time.time())
    assert got.notices()[1:] == [("stack_healed", "shop")]
    assert not await plane.store.scan("outbox/")
    assert not await plane.store.scan("troubles/")


async def test_what_does_not_arrive_is_sent_again_and_given_up(plane: ControlPlane, receiver: tuple[Receiver, str]) -> None:
    got, url = receiver
    one = Notifier(plane, dict, NotifySettings(webhooks=(Webhook(url=url),)))
    got.status = 500
    made = one.address("node_down", "n2", "it is away")
    one.deliveries |= {d.id: d for d in made}
    now = time.time()
    pauses = []
    for _ in range(module.ATTEMPTS):
        await one.send_due(now)
        (left,) = one.deliveries.values()
        pauses.append(round(left.next - time.time()))
        now = left.next
    assert pauses[:4] == [5, 10, 20, 40]
    assert max(pauses) == module.LONGEST_S
    assert (left.dead, left.problem) == (True, "it answers 500 Internal Server Error")
    assert len(got.got) == module.ATTEMPTS
    await one.send_due(now + 1e6)
    assert len(got.got) == module.ATTEMPTS, "the dead stay so"
    kept = Notifier(plane, dict, NotifySettings())
    await kept.load()
    assert list(kept.deliveries) == [left.id], "the next leader knows of it"
    got.status = 200
    assert await one.retry([left.id]) == 1
    await one.send_due(time.time())
    assert (one.deliveries, len(got.got)) == ({}, module.ATTEMPTS + 1)


async def test_a_post_is_signed_and_follows_no_redirect(tmp_path: Path, receiver: tuple[Receiver, str]) -> None:
    got, url = receiver
    (tmp_path / "key").write_text("s3cret\n")
    channel = channels(NotifySettings(webhooks=(Webhook(url=url, secret_file=str(tmp_path / "key")),)))[0]
    assert await attempt(channel, notice()) == ""
    headers, body = got.got[0]
    signed = hmac.new(b"s3cret", headers["X-Pystack-Time"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Pystack-Signature"] == f"sha256={signed}"
    got.status = 302
    assert (await attempt(channel, notice())).startswith("it answers 302")
    (tmp_path / "key").unlink()
    assert "key cannot be read" in await attempt(channel, notice())


class Mailbox:
    """A handler of aiosmtpd that keeps messages."""

    def __init__(self) -> None:
        self.kept: list[tuple[list[str], EmailMessage]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        del server, session
        self.kept.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
        return "250 OK"


async def test_a_mail_arrives_and_a_name_adds_no_head(tmp_path: Path) -> None:
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(box), "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        mail = Mail(host="127.0.0.1", port=port, security="none", sender="pystack@example.org", recipients=("ops@example.org",))
        channel = channels(NotifySettings(mail=(mail,)))[0]
        assert await attempt(channel, notice(EVIL)) == ""
        ((to, message),) = box.kept
        assert to == ["ops@example.org"]
        assert message["Bcc"] is None
        assert message["Subject"] == r"pystack: stack degraded: shop\r\nBcc: all@example.org\x1b[2J"
        assert "\u001b" not in message.get_content()
        encrypted = msgspec.structs.replace(mail, security="starttls")
        problem = await attempt(channels(NotifySettings(mail=(encrypted,)))[0], notice())
        assert "STARTTLS" in problem, "what was to be encrypted is not sent in the clear"
    finally:
        server.close()
        await server.wait_closed()
    assert await attempt(channel, notice()) != ""


async def test_a_program_is_told(tmp_path: Path) -> None:
    script = tmp_path / "told"
    script.write_text(
        f'#!/bin/sh\ncat > {tmp_path}/stdin\necho "$PYSTACK_NOTICE_KIND $PYSTACK_NOTICE_SUBJECT" > {tmp_path}/words\n'
    )
    script.chmod(0o755)
    channel = channels(NotifySettings(commands=(Command(words=(str(script),)),)))[0]
    assert await attempt(channel, notice("shop; rm -rf /")) == ""
    assert (tmp_path / "words").read_text() == "stack_degraded shop; rm -rf /\n"
    assert msgspec.json.decode((tmp_path / "stdin").read_bytes(), type=Notice).id == "0011"
    script.write_text("#!/bin/sh\necho no such pager >&2\nexit 4\n")
    assert await attempt(channel, notice()) == "it ended with 4 no such pager"


@pytest.mark.parametrize(("events", "told"), [((), True), (("node_down",), True), (("stack_degraded",), False)])
async def test_each_gets_what_it_asked_for(plane: ControlPlane, events: tuple[Kind, ...], told: bool) -> None:
    one = Notifier(plane, dict, NotifySettings(webhooks=(Webhook(url="http://127.0.0.1:1/", events=events),)))
    assert bool(one.address("node_down", "n2", "it is away")) == told


def test_troubles() -> None:
    task = Task(name="t", stack="s", service="w", node="n1", container=Container(image="i"), desired="running")

    def why(**status: Any) -> str:
        return trouble_of(task, TaskStatus(task="t", **status), "")

    assert why(state="running") == ""
    assert why(state="running", health="unhealthy") == "its healthcheck fails"
    assert why(state="exited", exit_code=0) == ""
    assert "3" in why(state="exited", exit_code=3)
    assert trouble_of(task, None, "node n1 does not answer") == "node n1 does not answer"
    assert trouble_of(msgspec.structs.replace(task, desired="stopped"), None, "node n1 does not answer") == ""
    now = 1000.0 * 86_400
    ends = {"soon.org": now + 3 * 86_400, "late.org": now + 60 * 86_400}
    assert [(c.subject, "ends in 3 days" in c.text) for c in ending_certificates(ends, now, 14)] == [("soon.org", True)]
    failed = RolloutRecord(id="r", stack=Stack(name="s"), options=UpOptions(), state="failed", ended=50.0, reason="no image")
    assert [c.text for c in failed_rollouts([failed], 40.0)] == ["the rollout of stack s failed: no image"]
    assert failed_rollouts([failed], 60.0) == []


def test_runs_of_backups_are_told_apart_from_those_of_jobs() -> None:
    def run(service: str, **more: Any) -> JobRun:
        return JobRun(id="1", stack="shop", service=service, trigger="schedule", **{"ended": 10.0, "state": "failed", **more})

    found = failed_runs(
        [
            run("nightly", reason="it ended with status 1"),
            run("data@backup", reason="the repository is locked"),
            run("data@verify", state="missed", ended=0.0, created=10.0, reason="nobody led"),
            run("nightly", state="missed"),
            run("data@backup", ended=1.0),
            run("data@backup", state="succeeded"),
        ],
        since=5.0,
    )
    assert [(c.kind, c.text) for c in found] == [
        ("run_failed", "run 1 of shop/nightly failed: it ended with status 1"),
        ("backup_failed", "the backup of volume data of stack shop failed: the repository is locked"),
        ("backup_failed", "the trial of the backup of volume data of stack shop was missed: nobody led"),
    ]
